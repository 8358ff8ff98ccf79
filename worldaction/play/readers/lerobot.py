"""Reads LeRobotDataset v2.1 and v3.0 from a local folder, without the `lerobot` package.

`meta/info.json` describes the features and where the files are; rows are frames in parquet files, images are in them
or in videos. v2.1 has one file an episode, v3.0 many episodes a file. Format: https://github.com/huggingface/lerobot
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldaction import spec
from worldaction.errors import UserError, unknown
from worldaction.interface import CAMERAS_RECORDED, recorded_cameras
from worldaction.io import typed_json
from worldaction.io.files import check_regular
from worldaction.play.images import fitted
from worldaction.play.labels import achieved, is_sparse
from worldaction.play.layout import Segment
from worldaction.play.lerobot_layout import EXTRA, PLAY, Extra, read_extra
from worldaction.play.readers.lerobot_alignment import HALF, Filmed, first_frames
from worldaction.play.readers.parquet import Rows, count_rows, read_columns, read_rows, read_table
from worldaction.play.readers.reading import (
    Sound,
    camera_name,
    check_vectors,
    layout_of,
    load_json,
    naming,
    need,
    piece,
)
from worldaction.play.readers.source import Origin, Recording
from worldaction.play.readers.video import count_frames, video_frames
from worldaction.spec import Kind

logger = logging.getLogger(__name__)

VERSIONS: Final = {"v2.0": "2.0", "v2.1": "2.1", "v3.0": "3.0"}
PLAIN_TEMPLATE: Final = re.compile(r"(?:[^{}]|\{[a-z_]+(?::0?[0-9]d)?\})*")
NUMBERING: Final = ("episode_index", "frame_index")
SUCCESSES: Final = ("next.success", "success")
REWARDS: Final = ("next.reward", "reward")
"""Columns that say whether an attempt succeeded, asked in this order; rewards only if they are 0 and 1."""
MANY: Final = 2**24
"""More episodes than this no set has."""
SHOWN: Final = 8
"""Ranges of episodes that a message names."""


@dataclass(frozen=True)
class Camera:
    """One camera of the set."""

    feature: str
    name: str
    video: bool
    height: int
    width: int


@dataclass(frozen=True)
class Place:
    """Where the frames of one episode are."""

    number: int
    length: int
    rows: Rows
    tasks: tuple[str, ...] = ()
    """What the list of episodes says."""
    videos: Mapping[str, tuple[Path, int]] = field(default_factory=dict)
    """File and number of the first frame, for each camera's feature."""


class LeRobotSource:
    """A LeRobot data set; see `Source`.

    An episode with a task is an attempt at it. It succeeded by `next.success`, else by `success`, else by a reward of 1
    in a set whose rewards are 0 and 1. Frames that are not square lose their sides.

    Args:
        path: the folder that holds `meta` and `data`.
        action: the feature that serves as action, such as `action` or `rel_actions`.
        state: the feature that serves as proprioception, if the set has it.
        scene: the feature that serves as privileged state, if the set has it.
        strict: refuse a set of which an episode is damaged or missing.

    Raises:
        UserError: pyarrow is missing, the set is of another version, its description is damaged, episodes are listed
            twice or are in training and in validation, or none can be read.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        action: str = "action",
        state: str = "observation.state",
        scene: str = "observation.environment_state",
        strict: bool = False,
    ) -> None:
        need("pyarrow")
        self.path = Path(path)
        self._info_path = self.path / "meta" / "info.json"
        self._info = load_json(self._info_path)
        with naming(self._info_path):
            self._version = _version(self._info_path, self._info)
            self._rate = float(self._info["fps"])
            if not 0 < self._rate < 1e6:
                raise ValueError(f"fps is {self._rate}")
            self._features = dict(self._info["features"])
            self._vectors = self._find_vectors({spec.ROBOT: state, spec.SCENE: scene, spec.ACTION: action})
            self._cameras = self._find_cameras()
        self.image_size = min((min(c.height, c.width) for c in self._cameras), default=0)
        self.rate: float | None = self._rate
        self.format = f"LeRobot {VERSIONS[self._version]}"
        extra = self._read_episodes(Sound(strict=strict))
        chosen = {key: name for key, (name, _) in self._vectors.items()}
        config = {"path": str(self.path.resolve()), "format": self.format, "features": chosen}
        config[CAMERAS_RECORDED] = recorded_cameras({c.name: (c.feature, (c.height, c.width)) for c in self._cameras})
        source, renderer = (extra.source, extra.renderer) if extra else ("lerobot", "unknown")
        self.origin = Origin(source, renderer, config=config)

    def _read_episodes(self, sound: Sound) -> Extra | None:
        """What is said about the episodes, by the set and by our own file beside it."""
        places = self._v3(sound) if self._version == "v3.0" else self._v2(sound)
        extra = self._extra(places, self._check_totals(places, sound))
        self.layout = self._layout(extra)
        self._stale: list[int] = []
        self._longer = False
        self._validation = self._held_out()
        self._names: dict[int, str] | None = None
        self._last_read: tuple[Path, dict[str, np.ndarray]] = (Path(), {})
        flags = sound.each(places, self._flags)
        sparse = is_sparse([found for _, name, found in flags if name in REWARDS and found is not None])
        read = sound.each(flags, lambda one: (one[0], self._recording(*one, extra, sparse=sparse)))
        self._places = [place for place, _ in read]
        self.episodes: Sequence[Recording] = [recording for _, recording in read]
        self.skipped: Sequence[str] = sound.skipped
        self._warn_of_stale()
        return extra

    def _extra(self, places: Sequence[Place], total: int) -> Extra | None:
        if not (self.path / EXTRA).exists():
            return None
        lengths = {place.number: place.length for place in places}
        return read_extra(self.path, [lengths.get(number) for number in range(total)])

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like a LeRobot data set."""
        return (path / "meta" / "info.json").is_file()

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        place = self._places[episode]
        cameras = self._cameras if image_size != 0 else []
        still = [camera for camera in cameras if not camera.video]
        films = {c.name: self._film(place, c, start) for c in cameras if c.video}
        size = piece(max((c.height * c.width * 3 for c in cameras), default=1))
        columns = [*NUMBERING, *(name for name, _ in self._vectors.values()), *(c.feature for c in still)]
        timed = bool(films) and "timestamp" in self._features
        columns += ["timestamp"] if timed else []
        done = start
        for rows in read_rows(place.rows, columns, start=start, count=place.length - start, size=size):
            _check_numbering(rows.numbers, place, done)
            if timed:
                _check_times(rows.vector("timestamp")[:, 0], place, done, self._rate)
            block = {key: self._vector(place, rows.vector(name), key) for key, (name, _) in self._vectors.items()}
            count = len(block[spec.ACTION])
            images = {c.name: self._stills(rows.images(c.feature), place, c) for c in still}
            images |= {name: np.stack(list(islice(frames, count))) for name, frames in films.items()}
            yield block | {name: fitted(image, image_size) for name, image in images.items()}
            done += count

    # --- features ---------------------------------------------------------------------------------------------------

    def _find_vectors(self, wanted: Mapping[str, str]) -> dict[str, tuple[str, int]]:
        """Feature and size of each vector that the set has."""
        if (action := wanted[spec.ACTION]) not in self._features:
            raise unknown(f"feature of {self.path} for the action", action, self._features)
        found = {key: name for key, name in wanted.items() if name in self._features}
        return {key: (name, math.prod(int(n) for n in self._features[name]["shape"])) for key, name in found.items()}

    def _find_cameras(self) -> list[Camera]:
        cameras: list[Camera] = []
        for name, feature in self._features.items():
            if feature["dtype"] not in ("video", "image") or _is_depth(feature):
                continue
            short = re.sub(r"^observation\.(images?\.)?", "", name)
            key = camera_name(short, (camera.name for camera in cameras), self._info_path)
            cameras.append(Camera(name, key, feature["dtype"] == "video", *_sides(feature)))
        return cameras

    def _layout(self, extra: Extra | None) -> spec.Layout:
        sizes = {key: self._vectors[key][1] if key in self._vectors else 0 for key in spec.CALVIN.vectors}
        names = tuple(camera.name for camera in self._cameras)
        robot, scene, action = sizes[spec.ROBOT], sizes[spec.SCENE], sizes[spec.ACTION]
        if extra is None:
            return layout_of(names, robot=robot, scene=scene, action=action, absolute=self._are_positions())
        said = extra.layout
        if {*said.cameras} != {*names} or (said.robot, said.scene, said.action) != (robot, scene, action):
            raise UserError(f"{self.path / EXTRA} and {self._info_path} describe different frames; delete the former")
        return said

    def _are_positions(self) -> bool:
        """Whether all numbers of an action are called positions, as "shoulder_pan.pos" of LeRobot's own robots."""
        names = self._features[self._vectors[spec.ACTION][0]].get("names")
        if isinstance(names, Mapping):
            names = next(iter(names.values()), None)
        return isinstance(names, list) and bool(names) and all(str(name).endswith(".pos") for name in names)

    # --- where episodes are -----------------------------------------------------------------------------------------

    def _v2(self, sound: Sound) -> list[Place]:
        path = self.path / "meta" / "episodes.jsonl"
        places = sound.each(_lines(path), partial(self._v2_place, path))
        return sorted(places, key=lambda place: place.number)

    def _v2_place(self, path: Path, line: tuple[int, str]) -> Place:
        row, text = line
        with naming(f"{path}, line {row + 1}"):
            about = typed_json.parse(text, f"{path}, line {row + 1}", remedy="get the file anew")
            number = _number(about["episode_index"])
            names = {"episode_chunk": number // int(self._info.get("chunks_size", 1000)), "episode_index": number}
            videos = {c.feature: (self._file("video_path", names, c), 0) for c in self._cameras if c.video}
            rows = Rows(self._file("data_path", names), 0)
            tasks = tuple(str(task) for task in about.get("tasks", ()))
            return Place(number, _count(about["length"]), rows, tasks, videos)

    def _v3(self, sound: Sound) -> list[Place]:
        folder = self.path / "meta" / "episodes"
        films = [camera.feature for camera in self._cameras if camera.video]
        columns = ["episode_index", "length", "tasks", "dataset_from_index", "data/chunk_index", "data/file_index"]
        columns += [f"videos/{f}/{n}" for f in films for n in ("chunk_index", "file_index", "from_timestamp")]
        paths = sorted(folder.glob("*/*.parquet"))
        if not paths:
            raise UserError(f"{folder} holds no parquet files; copy the set again")
        lines = [line for part in sound.each(paths, lambda path: read_table(path, columns)) for line in part]
        found = sound.each(lines, lambda line: (self._v3_place(folder, line), line))
        found = self._aligned(found, sound)
        return sorted((place for place, _ in found), key=lambda place: place.number)

    def _v3_place(self, folder: Path, line: Mapping[str, Any]) -> Place:
        with naming(folder):
            at = {name: line[f"data/{name}"] for name in ("chunk_index", "file_index")}
            tasks = tuple(str(task) for task in line["tasks"] or ())
            # its rows are looked for where they are
            rows = Rows(self._file("data_path", at), int(line["dataset_from_index"]))
            videos = {c.feature: (self._v3_video(line, c), 0) for c in self._cameras if c.video}
            return Place(_number(line["episode_index"]), _count(line["length"]), rows, tasks, videos)

    def _v3_video(self, line: Mapping[str, Any], camera: Camera) -> Path:
        if not math.isfinite(time := float(line[f"videos/{camera.feature}/from_timestamp"])):
            raise ValueError(f"from_timestamp of {camera.feature} is {time}")
        at = {name: line[f"videos/{camera.feature}/{name}"] for name in ("chunk_index", "file_index")}
        return self._file("video_path", at, camera)

    def _aligned(self, found: list[tuple[Place, Any]], sound: Sound) -> list[tuple[Place, Any]]:
        """Places whose videos begin in the right frame; see `lerobot_alignment`."""
        for feature in (camera.feature for camera in self._cameras if camera.video):
            starts = self._starts(feature, found, sound)
            found = [
                (replace(p, videos={**p.videos, feature: (p.videos[feature][0], starts[p.number])}), line)
                for p, line in found
                if p.number in starts
            ]
        return found

    def _starts(self, feature: str, found: Sequence[tuple[Place, Any]], sound: Sound) -> dict[int, int]:
        """The first frame of each episode in its video, by number."""
        files: dict[Path, list[Filmed]] = {}
        for place, line in found:
            time = float(line[f"videos/{feature}/from_timestamp"]) * self._rate
            filmed = Filmed(place.number, int(line["dataset_from_index"]), place.length, time)
            files.setdefault(place.videos[feature][0], []).append(filmed)
        starts = sound.each(files, lambda path: first_frames(path, files[path], count_frames))
        return {number: start for each in starts for number, start in each.items()}

    def _file(self, template: str, numbers: Mapping[str, int], camera: Camera | None = None) -> Path:
        """A file by its template in info.json, which may name numbers, and nothing outside of the folder."""
        text = self._info[template]
        if not isinstance(text, str) or not PLAIN_TEMPLATE.fullmatch(text):
            raise ValueError(f"{template} is {text!r}")
        name = text.format(**numbers, video_key=camera.feature if camera else "")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{template} leads out of the folder")
        return self.path / name

    def _check_totals(self, places: Sequence[Place], sound: Sound) -> int:
        """How many episodes the set has, or should have.

        Raises:
            UserError: there are none, or some are listed twice.
        """
        numbers = [place.number for place in places]
        frames = sum(place.length for place in places)
        found = (len(numbers), frames)
        said = (self._info.get("total_episodes", found[0]), self._info.get("total_frames", found[1]))
        told = (
            f"{self._info_path} says {said[0]} episodes of {said[1]} frames, the list of episodes beside it has "
            f"{found[0]} of {found[1]}"
        )
        if not numbers:
            raise UserError(f"{told}, or leaves numbers out; copy the set again")
        if twice := sorted(number for number, times in Counter(numbers).items() if times > 1):
            raise UserError(f"{self._info_path.parent} lists episode {twice[0]} twice; leave one of them out")
        total = max(numbers[-1] + 1, said[0] if type(said[0]) is int and said[0] < MANY else 0)
        gaps = [range(a + 1, b) for a, b in pairwise([-1, *numbers, total]) if b - a > 1]
        if gaps or found != said:
            which = f"{sum(map(len, gaps))} missing ({_listed(gaps)})" if gaps else "none missing"
            sound.skip(f"{told}, {which}; copy the set again")
        return total

    # --- what is said about episodes --------------------------------------------------------------------------------

    def _flags(self, place: Place) -> tuple[Place, str, np.ndarray | None]:
        """The place of an episode with its rows, the column that says of its success, and what that says."""
        path = place.rows.path
        if self._version != "v3.0":
            if (count := count_rows(path)) < place.length:
                early = f"{path} ends {place.length - count} frames too early"
                raise UserError(f"{early}: it has {count}, {self._info_path.parent} says {place.length}; get it anew")
            first = 0
        else:
            numbers = self._columns(path).get("episode_index")
            rows = np.flatnonzero(numbers == place.number) if numbers is not None else np.zeros(0, int)
            count, first = len(rows), int(rows[0]) if len(rows) else 0
        if count != place.length:
            raise UserError(
                f"{path} has {count} frames of episode {place.number}, {self._info_path.parent} says {place.length}; "
                "get them anew"
            )
        place = replace(place, rows=Rows(path, first))
        columns = self._columns(path)
        if not (name := next((name for name in (*SUCCESSES, *REWARDS) if name in columns), "")):
            return place, name, None
        found = columns[name][first : first + place.length]
        # a column with gaps elsewhere is one of objects
        return place, name, np.array(found.tolist()) if found.dtype == object else found

    def _columns(self, path: Path) -> dict[str, np.ndarray]:
        """Small columns of a file of rows; those of the last file are kept, for the next episode in it."""
        if self._last_read[0] != path:
            names = ["episode_index", "task_index", *SUCCESSES, *REWARDS]
            self._last_read = path, read_columns(path, names)
        return self._last_read[1]

    def _recording(
        self, place: Place, name: str, flags: np.ndarray | None, extra: Extra | None, *, sparse: bool
    ) -> Recording:
        number, where = place.number, f"{place.rows.path}, episode {place.number}"
        known = name in SUCCESSES or (name in REWARDS and sparse)
        own = partial(self._segments, place, flags if known else None, from_reset=name == "success")
        if extra is None:
            segments = tuple(own())
            kind: Kind = "demo" if any(task != PLAY for task in place.tasks) else "play"
            split: spec.Split = "validation" if any(number in of for of in self._validation) else "training"
            return Recording(place.length, where, kind, split, segments=segments)
        # the filler alone says nothing: lerobot's modify_tasks puts it where an episode began with it
        if extra.tasks and place.tasks not in ((PLAY,), tuple(extra.tasks[number])):
            self._stale.append(number)
            segments = tuple(own())
        else:
            segments = tuple(extra.segments[number])
        return Recording(place.length, where, extra.kind[number], extra.split[number], extra.scene[number], segments)

    def _warn_of_stale(self) -> None:
        if self._stale:
            logger.warning(
                "%s tells of other tasks than the set in episodes %s, whose tasks were changed since; those of the set "
                "are taken, and the file's for the rest",
                self.path / EXTRA,
                _listed([range(number, number + 1) for number in self._stale]),
            )

    def _held_out(self) -> list[range]:
        """Numbers of the episodes for validation."""
        found: dict[spec.Split, list[range]] = {"training": [], "validation": []}
        with naming(self._info_path):
            for name, text in dict(self._info.get("splits") or {}).items():
                first, _, last = str(text).partition(":")
                of: spec.Split = "validation" if name.startswith(("val", "test", "eval")) else "training"
                # those of other names, as "all", say nothing
                if of == "validation" or name.startswith("train"):
                    found[of].append(range(max(0, int(first)), min(int(last), MANY)))
        for one in found["training"]:
            for other in found["validation"]:
                if both := range(max(one.start, other.start), min(one.stop, other.stop)):
                    raise UserError(
                        f"{self._info_path}: episodes {_listed([both])} are in training and in validation; correct its "
                        "splits"
                    )
        return found["validation"]

    def _segments(self, place: Place, flags: np.ndarray | None, *, from_reset: bool) -> Iterator[Segment]:
        """Runs of frames with one task; where an episode has one task alone, its frames need not be asked."""
        runs = [(place.tasks[0], 0, place.length)] if len(place.tasks) == 1 else list(self._runs(place))
        for task, start, stop in runs:
            if task != PLAY:
                # the first entry of an episode belongs to its reset, where entries are of what is seen
                done = None if flags is None else achieved(flags[start:stop], from_reset=from_reset)
                yield Segment(task, start, stop, done)

    def _runs(self, place: Place) -> Iterator[tuple[str, int, int]]:
        """Successive frames of one task, of an episode of several."""
        if not place.tasks:
            return
        if self._names is None:
            self._names = self._task_names()
        first, start = place.rows.first, 0
        numbers = self._columns(place.rows.path).get("task_index")
        with naming(f"{place.rows.path}: task_index"):
            if numbers is None:
                raise ValueError("there is none")
            of = numbers[first : first + place.length].astype(np.int64).tolist()
        for number, run in groupby(of):
            if number not in self._names:
                raise UserError(f"{place.rows.path}: task_index {number} has no name; copy the set again")
            stop = start + len(list(run))
            yield self._names[number], start, stop
            start = stop

    def _task_names(self) -> dict[int, str]:
        if self._version != "v3.0":
            path = self.path / "meta" / "tasks.jsonl"
            with naming(path):
                lines = [typed_json.parse(text, path, remedy="get the file anew") for _, text in _lines(path)]
                return {int(line["task_index"]): str(line["task"]) for line in lines}
        path = self.path / "meta" / "tasks.parquet"
        with naming(path):
            # the index of a pandas frame, under the name that pandas gave it
            lines = read_table(path)
            return {int(v["task_index"]): str(v.get("task", v.get("__index_level_0__"))) for v in lines}

    # --- frames -----------------------------------------------------------------------------------------------------

    def _vector(self, place: Place, array: np.ndarray, key: str) -> np.ndarray:
        name, size = self._vectors[key]
        return check_vectors(array, (len(array), size), f"{place.rows.path}: {name} of episode {place.number}")

    def _film(self, place: Place, camera: Camera, start: int) -> Iterator[np.ndarray]:
        path, first = place.videos[camera.feature]
        count = place.length - start
        if self._version != "v3.0" and not self._longer and (frames := count_frames(path) or 0) > place.length:
            # once: of a set that was cut so, all episodes may be
            self._longer = True
            logger.warning(
                "%s has %d frames, its episode %d: the last ones are not read; videos of others may be longer, too",
                path,
                frames,
                place.length,
            )
        for frame in video_frames(path, first=(first + start) / self._rate, rate=self._rate, count=count):
            yield _checked(frame, camera, path)

    def _stills(self, items: Sequence[Any], place: Place, camera: Camera) -> np.ndarray:
        where = f"{place.rows.path}: {camera.feature} of episode {place.number}"
        with naming(where):
            return np.stack([_checked(_decoded(item, camera, where), camera, where) for item in items])


def _version(path: Path, info: Mapping[str, Any]) -> str:
    version = info["codebase_version"]
    if version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise UserError(f"{path} is of version {version!r}; versions {known} are read, convert it with lerobot first")
    return str(version)


def _is_depth(feature: Mapping[str, Any]) -> bool:
    about = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    return bool(about.get("is_depth_map") or about.get("video.is_depth_map"))


def _sides(feature: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width; sets of version 2 may have channels first."""
    shape = [int(n) for n in feature["shape"]]
    height, width, channels = shape if shape[2] == 3 else (*shape[1:], shape[0])
    if channels != 3 or min(height, width) < 1 or max(height, width) > 2**14:
        raise ValueError(f"images have the shape {shape}")
    return height, width


def _number(index: Any) -> int:
    if not 0 <= (number := int(index)) < MANY:
        raise ValueError(f"an episode has the number {number}")
    return number


def _count(length: Any) -> int:
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"an episode has {length!r} frames")
    return length


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers."""
    with naming(path), open(check_regular(path), encoding="utf-8") as file:
        text = file.read(typed_json.BYTES + 1)
    if len(text) > typed_json.BYTES:
        raise UserError(f"{path} has more than {typed_json.BYTES:,} characters; get the file anew")
    return [(number, line) for number, line in enumerate(text.splitlines()) if line.strip()]


def _listed(ranges: Sequence[range]) -> str:
    """Ranges in words: 1, 4 to 6."""
    words = [str(run.start) if len(run) == 1 else f"{run.start} to {run.stop - 1}" for run in ranges]
    return ", ".join(words[:SHOWN]) + (" and more" if len(words) > SHOWN else "")


def _check_numbering(numbers: np.ndarray, place: Place, done: int) -> None:
    """Rows are those of the episode, in order and without gaps."""
    # [T, 2]
    wanted = np.stack([np.full(len(numbers), place.number), done + np.arange(len(numbers))], axis=1)
    if (bad := (numbers != wanted).any(1)).any():
        row = int(bad.argmax())
        where = f"frame {done + row} of episode {place.number}"
        raise UserError(f"{place.rows.path} has {numbers[row].tolist()} where {where} should be; get the file anew")


def _check_times(times: np.ndarray, place: Place, done: int, rate: float) -> None:
    """A row's picture is the one at its time, and the one that is read is at its number divided by the rate."""
    frames = done + np.arange(len(times))
    if (bad := ~(np.abs(times * rate - frames) <= HALF)).any():
        row = int(bad.argmax())
        raise UserError(
            f"{place.rows.path}: frame {frames[row]} of episode {place.number} is at {times[row]:.3f} s, not at "
            f"{frames[row] / rate:.3f} s as {rate:g} frames/s say; correct fps in meta/info.json, or the timestamp"
        )


def _checked(image: np.ndarray, camera: Camera, where: Path | str) -> np.ndarray:
    if image.shape != (camera.height, camera.width, 3):
        wanted = (camera.height, camera.width, 3)
        raise UserError(f"{where} has images {image.shape}, info.json says {wanted}; get the file anew")
    return image


def _decoded(item: Any, camera: Camera, where: str) -> np.ndarray:
    """An image inside a parquet file: its bytes as PNG or JPEG, never a path."""
    image_module = need("PIL.Image")
    data = item["bytes"] if isinstance(item, dict) else None
    if not isinstance(data, bytes):
        raise UserError(f"{where} holds no image bytes; embed the images in the parquet files and copy the set again")
    with naming(where, image_module.DecompressionBombError):
        image = image_module.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        # before anything is decoded: a small file can claim to be a huge image
        if image.size != (camera.width, camera.height):
            raise ValueError(f"an image of {image.size} pixels")
        return np.asarray(image.convert("RGB"))

"""Reads LeRobotDataset v2.1 and v3.0 from a local folder, without the `lerobot` package.

`meta/info.json` describes the features and where the files are; rows are frames in parquet files, images are in them
or in videos. v2.1 has one file an episode, v3.0 many episodes a file. Format: https://github.com/huggingface/lerobot
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldaction import spec
from worldaction.errors import UserError, unknown
from worldaction.io import typed_json
from worldaction.io.files import check_regular
from worldaction.play.images import area_mean, centre_square
from worldaction.play.layout import Segment
from worldaction.play.lerobot_layout import EXTRA, Extra, read_extra
from worldaction.play.readers.parquet import Rows, read_rows, read_table
from worldaction.play.readers.reading import camera_name, check_vectors, layout_of, load_json, naming, need, piece
from worldaction.play.readers.source import Origin, Recording
from worldaction.play.readers.video import video_frames

logger = logging.getLogger(__name__)

VERSIONS: Final = {"v2.0": "2.0", "v2.1": "2.1", "v3.0": "3.0"}
PLAIN_TEMPLATE: Final = re.compile(r"(?:[^{}]|\{[a-z_]+(?::0?[0-9]d)?\})*")
SCANNED: Final = 1 << 14
"""Rows of a single column in memory at once."""
NUMBERING: Final = ("episode_index", "frame_index")


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
    videos: Mapping[str, tuple[Path, float]] = field(default_factory=dict)
    """File and time of the first frame, for each camera's feature."""


class LeRobotSource:
    """A LeRobot data set; see `Source`.

    An episode with a task is a demonstration of it. Frames that are not square lose their sides.

    Args:
        path: the folder that holds `meta` and `data`.
        action: the feature that serves as action, such as `action` or `rel_actions`.
        state: the feature that serves as proprioception, if the set has it.
        scene: the feature that serves as privileged state, if the set has it.

    Raises:
        UserError: pyarrow is missing, the set is of another version, or its description is damaged.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        action: str = "action",
        state: str = "observation.state",
        scene: str = "observation.environment_state",
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
        self._places, described = self._v3() if self._version == "v3.0" else self._v2()
        self._check_totals()
        extra = read_extra(self.path, [place.length for place in self._places])
        self.layout = self._layout(extra)
        self.episodes: Sequence[Recording] = self._extended(extra) if extra else self._recordings(described)
        chosen = {key: name for key, (name, _) in self._vectors.items()}
        config = {"path": str(self.path.resolve()), "format": self.format, "features": chosen}
        source, renderer = (extra.source, extra.renderer) if extra else ("lerobot", "unknown")
        self.origin = Origin(source, renderer, config=config)

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
        done = start
        for rows in read_rows(place.rows, columns, start=start, count=place.length - start, size=size):
            _check_numbering(rows.numbers, place, done)
            block = {key: self._vector(place, rows.vector(name), key) for key, (name, _) in self._vectors.items()}
            count = len(block[spec.ACTION])
            images = {c.name: self._stills(rows.images(c.feature), place, c) for c in still}
            images |= {name: np.stack(list(islice(frames, count))) for name, frames in films.items()}
            yield block | {name: area_mean(centre_square(image), image_size) for name, image in images.items()}
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

    def _v2(self) -> tuple[list[Place], list[list[str]]]:
        path = self.path / "meta" / "episodes.jsonl"
        places, tasks = [], []
        with naming(path):
            for line in sorted(_json_lines(path), key=lambda line: line["episode_index"]):
                number = int(line["episode_index"])
                names = {"episode_chunk": number // int(self._info.get("chunks_size", 1000)), "episode_index": number}
                videos = {c.feature: (self._file("video_path", names, c), 0.0) for c in self._cameras if c.video}
                rows = Rows(self._file("data_path", names), 0)
                places.append(Place(number, _count(line["length"]), rows, videos))
                tasks.append([str(task) for task in line.get("tasks", ())])
        return places, tasks

    def _v3(self) -> tuple[list[Place], list[list[str]]]:
        folder = self.path / "meta" / "episodes"
        films = [camera.feature for camera in self._cameras if camera.video]
        columns = ["episode_index", "length", "tasks", "dataset_from_index", "data/chunk_index", "data/file_index"]
        columns += [f"videos/{f}/{n}" for f in films for n in ("chunk_index", "file_index", "from_timestamp")]
        paths = sorted(folder.glob("*/*.parquet"))
        if not paths:
            raise UserError(f"{folder} holds no parquet files; copy the set again")
        lines = [line for path in paths for line in read_table(path, columns)]
        with naming(folder):
            lines.sort(key=lambda line: line["episode_index"])
            begin: dict[Path, int] = {}
            places = []
            for line in sorted(lines, key=lambda line: line["dataset_from_index"]):
                at = {name: line[f"data/{name}"] for name in ("chunk_index", "file_index")}
                file, first = self._file("data_path", at), int(line["dataset_from_index"])
                rows = Rows(file, first - begin.setdefault(file, first))
                videos = {c.feature: self._v3_video(line, c) for c in self._cameras if c.video}
                places.append(Place(int(line["episode_index"]), _count(line["length"]), rows, videos))
        places.sort(key=lambda place: place.number)
        return places, [[str(task) for task in line["tasks"] or ()] for line in lines]

    def _v3_video(self, line: Mapping[str, Any], camera: Camera) -> tuple[Path, float]:
        key = f"videos/{camera.feature}"
        at = {name: line[f"{key}/{name}"] for name in ("chunk_index", "file_index")}
        return self._file("video_path", at, camera), float(line[f"{key}/from_timestamp"])

    def _file(self, template: str, numbers: Mapping[str, int], camera: Camera | None = None) -> Path:
        """A file by its template in info.json, which may name numbers, and nothing outside of the folder."""
        text = self._info[template]
        if not isinstance(text, str) or not PLAIN_TEMPLATE.fullmatch(text):
            raise ValueError(f"{template} is {text!r}")
        name = text.format(**numbers, video_key=camera.feature if camera else "")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{template} leads out of the folder")
        return self.path / name

    def _check_totals(self) -> None:
        numbers = [place.number for place in self._places]
        frames = sum(place.length for place in self._places)
        found = (len(numbers), frames)
        said = (self._info.get("total_episodes", found[0]), self._info.get("total_frames", found[1]))
        if not numbers or numbers != list(range(len(numbers))) or found != said:
            raise UserError(
                f"{self._info_path} says {said[0]} episodes of {said[1]} frames, the list of episodes beside it has "
                f"{found[0]} of {found[1]}, or leaves numbers out; copy the set again"
            )

    # --- what is said about episodes --------------------------------------------------------------------------------

    def _recordings(self, described: list[list[str]]) -> list[Recording]:
        names = self._task_names() if any(len(tasks) > 1 for tasks in described) else {}
        return [
            Recording(
                place.length,
                f"{place.rows.path}, episode {place.number}",
                "demo" if tasks else "play",
                self._split(place.number),
                segments=tuple(self._segments(place, tasks, names)),
            )
            for place, tasks in zip(self._places, described, strict=True)
        ]

    def _extended(self, extra: Extra) -> list[Recording]:
        """Episodes as our own writer described them."""
        return [
            Recording(place.length, f"{place.rows.path}, episode {place.number}", kind, split, scene, tuple(segments))
            for place, kind, split, scene, segments in zip(
                self._places, extra.kind, extra.split, extra.scene, extra.segments, strict=True
            )
        ]

    def _split(self, number: int) -> spec.Split:
        with naming(self._info_path):
            for name, text in dict(self._info.get("splits") or {}).items():
                first, _, last = str(text).partition(":")
                if name.startswith(("val", "test", "eval")) and int(first) <= number < int(last):
                    return "validation"
        return "training"

    def _segments(self, place: Place, tasks: Sequence[str], names: Mapping[int, str]) -> Iterator[Segment]:
        """Runs of frames with one task; where an episode has one task alone, its frames need not be asked."""
        if len(tasks) > 1:
            numbers = self._column(place, "task_index").astype(np.int64).tolist()
            start = 0
            for number, run in groupby(numbers):
                if number not in names:
                    raise UserError(f"{place.rows.path}: task_index {number} has no name; copy the set again")
                stop = start + len(list(run))
                yield Segment(names[number], start, stop, self._success(place, start, stop))
                start = stop
        elif tasks:
            yield Segment(tasks[0], 0, place.length, self._success(place, 0, place.length))

    def _success(self, place: Place, start: int, stop: int) -> bool:
        """Whether any of the frames is a success; what a set says nothing about was demonstrated, so it was one."""
        if "next.success" not in self._features:
            return True
        return bool(self._column(place, "next.success")[start:stop].any())

    def _column(self, place: Place, name: str) -> np.ndarray:
        rows = read_rows(place.rows, [name], start=0, count=place.length, size=SCANNED)
        return np.concatenate([part.vector(name)[:, 0] for part in rows])

    def _task_names(self) -> dict[int, str]:
        if self._version != "v3.0":
            path = self.path / "meta" / "tasks.jsonl"
            with naming(path):
                return {int(line["task_index"]): str(line["task"]) for line in _json_lines(path)}
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
        for frame in video_frames(path, first=first + start / self._rate, rate=self._rate, count=count):
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


def _count(length: Any) -> int:
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"an episode has {length!r} frames")
    return length


def _json_lines(path: Path) -> list[Any]:
    with naming(path), open(check_regular(path), encoding="utf-8") as file:
        text = file.read(typed_json.BYTES + 1)
    if len(text) > typed_json.BYTES:
        raise UserError(f"{path} has more than {typed_json.BYTES:,} characters; get the file anew")
    return [typed_json.parse(line, path, remedy="get the file anew") for line in text.splitlines() if line.strip()]


def _check_numbering(numbers: np.ndarray, place: Place, done: int) -> None:
    """Rows are those of the episode, in order and without gaps."""
    # [T, 2]
    wanted = np.stack([np.full(len(numbers), place.number), done + np.arange(len(numbers))], axis=1)
    if (bad := (numbers != wanted).any(1)).any():
        row = int(bad.argmax())
        where = f"frame {done + row} of episode {place.number}"
        raise UserError(f"{place.rows.path} has {numbers[row].tolist()} where {where} should be; get the file anew")


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

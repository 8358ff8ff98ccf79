"""Reads a CALVIN data set, in the published layout or with images already shrunk.

On disk one `.npz` is one frame; `ep_start_end_ids.npy` says which runs of frame numbers are episodes, and
`lang_annotations/auto_lang_ann.npy` in which frames a task is done. Format: https://github.com/mees/calvin
"""

from __future__ import annotations

import logging
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Final, NamedTuple, get_args

import numpy as np

from worldaction import spec
from worldaction.errors import UserError, unknown
from worldaction.play.images import area_mean
from worldaction.play.layout import MAX_ACTION, Segment
from worldaction.play.readers.npz import open_npz
from worldaction.play.readers.reading import Sound, in_order, load_array
from worldaction.play.readers.restricted import load_object_array
from worldaction.play.readers.source import Origin, Recording

logger = logging.getLogger(__name__)

ON_DISK: Final = {spec.ROBOT: "robot_obs", spec.SCENE: "scene_obs", spec.ACTION: "rel_actions"}
PIECE: Final = 32
"""Frames that one thread reads at a time: two of them are decompressed side by side at native size."""
THREADS: Final = 8
TRIED: Final = 20
"""First frames of episodes that are tried until one can be read."""
ANNOTATIONS: Final = "auto_lang_ann.npy"
SMALL_FILES: Final = ("ep_start_end_ids.npy", "ep_lens.npy", "scene_info.npy", "statistics.yaml")
"""Files beside the frames that are read, or that are computed anew when the set is written again."""
_FRAME = re.compile(r"episode_(\d+)\.npz")


class CalvinSplit(NamedTuple):
    """One of the two folders of a set."""

    folder: Path
    name: spec.Split
    episodes: list[tuple[int, int]]
    """First and last frame number of each, both inclusive."""
    segments: list[Segment]
    """Annotated windows in frame numbers, stop exclusive."""
    digits: int
    """Digits in the name of a frame's file."""
    not_read: tuple[str, ...] = ()
    """Vectors of sentences, files and folders of which nothing is read."""

    def path(self, number: int) -> Path:
        """The file of a frame."""
        return self.folder / f"episode_{number:0{self.digits}d}.npz"


class CalvinSource:
    """A CALVIN data set; see `Source`. Actions are `rel_actions`, the moves that were achieved.

    Every frame is kept, the last of an episode too: its action is the one that came next.

    Args:
        path: the folder that holds `training`, `validation` or both.
        language: the folder whose annotations are read; by default `lang_annotations`, else the first `lang_*`.
        strict: refuse a set of which a frame is missing, or a window lies in no episode. Otherwise an episode is parted
            where frames are missing, and such windows are left out.

    Attributes:
        splits: the folders, with their episodes in frame numbers.
        scenes: first and last frame number of each scene.
        left_out: what the set holds and is not read: arrays of a frame, vectors of sentences, other files.

    Raises:
        UserError: the folder is no CALVIN set, its files contradict each other, or frames are in both splits.
    """

    format = "CALVIN"
    rate: float | None = float(spec.CONTROL_HZ)

    def __init__(self, path: Path | str, *, language: str | None = None, strict: bool = False) -> None:
        self.path = Path(path)
        names, sound = _split_names(self.path), Sound(strict=strict)
        self.splits = [_read_split(self.path / name, name, language, sound) for name in names]
        if language is not None and not any((self.path / name / language).is_dir() for name in names):
            found = {folder.name for name in names for folder in (self.path / name).glob("lang_*")}
            raise unknown(f"language folder in {self.path}", language, found)
        _check_apart(self.splits)
        self.scenes = _read_scenes(self.path / "training" / "scene_info.npy")
        self._reader = _first_of(split.path(first) for split in self.splits for first, _ in split.episodes)
        self.skipped = sound.skipped
        images = self._reader.images
        self.left_out = (
            *self._reader.left_out,
            *dict.fromkeys(name for split in self.splits for name in split.not_read),
        )
        self.layout = replace(spec.CALVIN, cameras=tuple(images))
        self.image_size = min((side for shape in images.values() for side in shape[:2]), default=0)
        self._ranges = [(split, *bounds) for split in self.splits for bounds in split.episodes]
        self.episodes: Sequence[Recording] = [self._recording(*bounds) for bounds in self._ranges]
        config = {"path": str(self.path.resolve()), "recorded_images": {k: list(v) for k, v in images.items()}}
        self.origin = Origin("calvin", "calvin", config=config | ({"language": language} if language else {}))

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like a CALVIN set."""
        return any((path / name / "ep_start_end_ids.npy").is_file() for name in get_args(spec.Split))

    def __len__(self) -> int:
        return sum(episode.length for episode in self.episodes)

    def split(self, name: spec.Split) -> CalvinSplit:
        """One of the two folders.

        Raises:
            UserError: the set has not got it.
        """
        if (found := next((split for split in self.splits if split.name == name), None)) is None:
            raise UserError(f"{self.path} has no folder {name}; get the whole set, or use the other split")
        return found

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`. Files are decompressed in threads; memory does not grow with the set."""
        split, first, last = self._ranges[episode]
        numbers = range(first + start, last + 1)
        pieces = [numbers[i : i + PIECE] for i in range(0, len(numbers), PIECE)]
        work = partial(self._reader.block, split, image_size=image_size)
        # at the size of the copies decompression is so quick that threads wait for each other
        large = image_size != 0 and self.image_size > 64
        threads = min(THREADS, len(os.sched_getaffinity(0))) if large else 1
        with ThreadPoolExecutor(threads) as pool:
            yield from in_order(pool, work, pieces, ahead=threads)

    def _recording(self, split: CalvinSplit, first: int, last: int) -> Recording:
        inside = tuple(
            replace(segment, start=segment.start - first, stop=segment.stop - first)
            for segment in split.segments
            if first <= segment.start and segment.stop <= last + 1
        )
        scene = next((name for name, (a, b) in self.scenes.items() if a <= first <= b), "")
        where = f"{split.path(first)} to {split.path(last).name}"
        return Recording(last - first + 1, where, "play", split.name, scene, inside)


def find_calvin(path: Path | str) -> CalvinSource:
    """Read the description of a whole CALVIN set; see `CalvinSource`."""
    return CalvinSource(path, strict=True)


class _FrameReader:
    """Reads frames that look like the first one of the set.

    Args:
        example: the file of the first frame.
    """

    def __init__(self, example: Path) -> None:
        with open_npz(example) as arrays:
            self.images: dict[str, tuple[int, ...]] = {c: arrays.shape(c) for c in spec.CAMERAS if c in arrays}
            known = {*self.images, *ON_DISK.values(), "actions"}
            self.left_out = tuple(name for name in arrays.names if name not in known)
        for camera, shape in self.images.items():
            if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
                raise UserError(f"{example}: {camera} has shape {shape}, not (height, width, 3); get the file anew")

    def block(self, split: CalvinSplit, numbers: Sequence[int], *, image_size: int | None) -> dict[str, np.ndarray]:
        """The frames of these numbers, as a writer takes them."""
        cameras = list(self.images) if image_size != 0 else []
        frames = [self._frame(split.path(number), cameras) for number in numbers]
        block = {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}
        return block | {camera: area_mean(block[camera], image_size) for camera in cameras}

    def _frame(self, path: Path, cameras: list[str]) -> dict[str, np.ndarray]:
        with open_npz(path) as arrays:
            if missing := [name for name in (*cameras, *ON_DISK.values()) if name not in arrays]:
                raise UserError(f"{path} has no {missing[0]}; get the file anew")
            images = {camera: arrays[camera] for camera in cameras}
            vectors = {key: arrays[name] for key, name in ON_DISK.items()}
        for camera, image in images.items():
            if image.shape != self.images[camera] or image.dtype != np.uint8:
                wanted = f"uint8 {self.images[camera]} like the first frame"
                raise UserError(f"{path}: {camera} is {image.dtype} {image.shape}, not {wanted}; get the file anew")
        for key, vector in vectors.items():
            _check_vector(vector, f"{path}: {ON_DISK[key]}", spec.CALVIN.vectors[key])
        if np.abs(vectors[spec.ACTION]).max() > MAX_ACTION:
            raise UserError(f"{path}: rel_actions leaves [-1, 1]; the set must hold relative, scaled actions")
        return images | vectors


def _check_vector(vector: np.ndarray, label: str, size: int) -> None:
    if vector.shape != (size,) or vector.dtype not in (np.float32, np.float64):
        raise UserError(f"{label} is {vector.dtype} {vector.shape}, not float ({size},); get the file anew")
    if not (np.abs(vector) <= np.finfo(np.float32).max).all():
        raise UserError(f"{label} holds NaN or infinity; get the file anew")


# --- the small files --------------------------------------------------------------------------------------------------


def _split_names(root: Path) -> list[spec.Split]:
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the folder of a CALVIN set")
    if not (names := [name for name in get_args(spec.Split) if (root / name).is_dir()]):
        candidates = [root.parent, *(child for child in sorted(root.iterdir()) if child.is_dir())]
        near = next((c for c in candidates if all((c / name).is_dir() for name in get_args(spec.Split))), None)
        hint = f"did you mean {near}?" if near else "give the folder that holds training and validation"
        raise UserError(f"{root} is no CALVIN set, it has no folder training or validation; {hint}")
    if len(names) == 1:
        logger.warning("%s has frames of the %s split alone", root, names[0])
    return names


def _read_split(folder: Path, name: spec.Split, language: str | None, sound: Sound) -> CalvinSplit:
    episodes = _read_ranges(folder / "ep_start_end_ids.npy")
    present, digits, others = set(), 0, set()
    # half a million names: only their numbers are kept
    with os.scandir(folder) as entries:
        for entry in entries:
            if match := _FRAME.fullmatch(entry.name):
                present.add(int(match[1]))
                digits = len(match[1])
            else:
                others.add(entry.name)
    if not present:
        raise UserError(f"{folder} holds no frames (episode_0000000.npz and so on); copy the set again")
    read = _languages(folder, language)[:1]
    segments, said = _read_segments(folder, language)
    beside = {f"{chosen}/{path.name}" for chosen in read for path in (folder / chosen).iterdir()}
    used = {*SMALL_FILES, *read, *(f"{chosen}/{ANNOTATIONS}" for chosen in read)}
    split = CalvinSplit(folder, name, episodes, segments, digits, (*said, *sorted((others | beside) - used)))
    for (first, last), (start, stop) in pairwise(sorted(episodes)):
        if start <= last:
            both = f"episodes {first} to {last} and {start} to {stop}"
            raise UserError(f"{folder}/ep_start_end_ids.npy: {both} share frames; end one before the other begins")
    there = sorted(present)
    whole = [run for bounds in episodes for run in _present(split, bounds, there, sound)]
    if not whole:
        raise UserError(f"{folder} holds none of the frames that its ep_start_end_ids.npy names; copy the set again")
    return split._replace(episodes=whole, segments=_inside(split, whole, sound))


def _present(split: CalvinSplit, bounds: tuple[int, int], there: list[int], sound: Sound) -> list[tuple[int, int]]:
    """An episode, or the parts of it whose frames are `there`, in order; a damaged one may claim billions of frames."""
    first, last = bounds
    inside = there[bisect_left(there, first) : bisect_right(there, last)]
    absent = last - first + 1 - len(inside)
    if not absent:
        return [bounds]
    gaps = _between([first - 1, *inside, last + 1])
    others = f" and {absent - 1} more of frames {first} to {last}" if absent > 1 else ""
    sound.skip(f"{split.path(gaps[0][0])}{others} is missing; copy the set again")
    edges = [first - 1, *(edge for gap in gaps for edge in gap), last + 1]
    return [run for edge in range(0, len(edges), 2) for run in _between(edges[edge : edge + 2])]


def _between(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of numbers that lies between two neighbours."""
    return [(before + 1, after - 1) for before, after in pairwise(numbers) if after - before > 1]


def _inside(split: CalvinSplit, episodes: Sequence[tuple[int, int]], sound: Sound) -> list[Segment]:
    """The windows that lie in an episode."""
    found = []
    for segment in split.segments:
        if any(first <= segment.start < segment.stop <= last + 1 for first, last in episodes):
            found.append(segment)
        else:
            window = f"{segment.start} to {segment.stop - 1}"
            sound.skip(
                f"{split.folder}: the annotated window {window} ({segment.task}) lies in no episode; leave it out"
            )
    return found


def _first_of(paths: Iterable[Path]) -> _FrameReader:
    """Reads frames that look like the first one that can be read.

    Raises:
        UserError: none can; says what is wrong with the first.
    """
    wrong: UserError | None = None
    for path in islice(paths, TRIED):
        try:
            return _FrameReader(path)
        except UserError as error:
            wrong = wrong or error
    assert wrong is not None
    raise wrong


def _check_apart(splits: Sequence[CalvinSplit]) -> None:
    """No frame of training is one of validation; equal numbers alone are allowed, as in the published ABC_D."""
    if len(splits) < 2:
        return
    one, other = splits
    for first, last in one.episodes:
        for start, stop in other.episodes:
            # the ends of what they share, and its middle
            low, high = max(first, start), min(last, stop)
            shared = [] if low > high else [low, (low + high) // 2, high]
            if shared and all(_same_frame(one.path(number), other.path(number)) for number in shared):
                where = f"{one.folder.parent}: frames {low} to {high}"
                raise UserError(f"{where} are in training and in validation; leave them out of one")


def _same_frame(one: Path, other: Path) -> bool:
    try:
        with open_npz(one) as a, open_npz(other) as b:
            return all(name in a and name in b and np.array_equal(a[name], b[name]) for name in ON_DISK.values())
    except UserError:
        # whoever reads the frame says so
        return False


def _read_ranges(path: Path) -> list[tuple[int, int]]:
    """First and last frame numbers, both inclusive."""
    ranges = load_array(path)
    if ranges.ndim != 2 or ranges.shape[1:] != (2,) or not np.issubdtype(ranges.dtype, np.integer):
        raise UserError(f"{path} is {ranges.dtype} {ranges.shape}, not integers (episodes, 2); get the file anew")
    if len(ranges) == 0:
        raise UserError(f"{path} lists no episodes: the set is empty; copy the set again")
    if (ranges[:, 0] < 0).any() or (ranges[:, 1] < ranges[:, 0]).any():
        raise UserError(f"{path} has an episode that ends before it starts; get the file anew")
    return [(int(first), int(last)) for first, last in ranges]


def _languages(folder: Path, language: str | None) -> list[str]:
    """Folders with annotations, the one that is read first."""
    names = [language] if language else ["lang_annotations", *sorted(p.name for p in folder.glob("lang_*"))]
    return [name for name in names if (folder / name / ANNOTATIONS).exists()]


def _read_segments(folder: Path, language: str | None) -> tuple[list[Segment], tuple[str, ...]]:
    """Annotated windows, and what else is said of them that is not read.

    They are those of the folder that was chosen, else of `lang_annotations`, else of the first of all.
    """
    if not (names := _languages(folder, language)):
        logger.warning("%s has no language annotations: its frames are play without segments", folder)
        return [], ()
    path = folder / names[0] / ANNOTATIONS
    content = load_object_array(path)
    try:
        tasks, windows = content["language"]["task"], content["info"]["indx"]
        # some sets have tasks alone
        said = content["language"].get("ann", [""] * len(tasks))
        segments = [
            # what is annotated was done
            Segment(_text(task), int(a), int(b) + 1, success=True, sentence=_text(sentence))
            for task, sentence, (a, b) in zip(tasks, said, windows, strict=True)
        ]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(f"{path} holds no annotations in CALVIN's form ({error!r}); get the file anew") from error
    logger.info("%s: %d annotated windows", path, len(segments))
    return segments, ("emb (vectors of the sentences)",) if "emb" in content["language"] else ()


def _text(value: object) -> str:
    """A text, and nothing that would have to be made one: that can take for ever."""
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where text should be")
    return value


def _read_scenes(path: Path) -> dict[str, tuple[int, int]]:
    if not path.exists():
        return {}
    content = load_object_array(path)
    try:
        return {_text(scene): (int(first), int(last)) for scene, (first, last) in content.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} does not map scenes to frame numbers ({error}); get the file anew") from error

"""Reads a CALVIN data set, in the published layout or with images already shrunk, into a play store.

On disk one `.npz` is one frame; `ep_start_end_ids.npy` says which runs of frame numbers are episodes, and
`lang_annotations/auto_lang_ann.npy` in which frames a task is done. Format: https://github.com/mees/calvin
"""

from __future__ import annotations

import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.lib.npyio import NpzFile

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.images import area_mean
from worldaction.play.layout import MAX_ACTION
from worldaction.play.restricted import load_object_array
from worldaction.play.store import PlayStore, Segment, StoreWriter

logger = logging.getLogger(__name__)

# frames in memory at once
BLOCK = 256
ON_DISK = {spec.ROBOT: "robot_obs", spec.SCENE: "scene_obs", spec.ACTION: "rel_actions"}
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

    def path(self, number: int) -> Path:
        """The file of a frame."""
        return self.folder / f"episode_{number:0{self.digits}d}.npz"


class CalvinSet(NamedTuple):
    """A CALVIN data set as its small files describe it; no frame has been read yet."""

    root: Path
    splits: list[CalvinSplit]
    scenes: dict[str, tuple[int, int]]
    """First and last frame number of each scene."""

    def __len__(self) -> int:
        return sum(last - first + 1 for split in self.splits for first, last in split.episodes)

    def scene_of(self, number: int) -> str:
        """The scene in which a frame was recorded; empty where the set does not say."""
        return next((name for name, (first, last) in self.scenes.items() if first <= number <= last), "")


def find_calvin(path: Path | str) -> CalvinSet:
    """Find the data set in a folder and check its description, and that no frame's file is missing.

    Args:
        path: the folder that holds `training` and `validation`.

    Raises:
        UserError: the folder is no CALVIN set, or its files contradict each other.
    """
    root = Path(path)
    _check_is_calvin(root)
    splits = [_read_split(root / name, name) for name in get_args(spec.Split)]
    return CalvinSet(root, splits, _read_scenes(root / "training" / "scene_info.npy"))


def read_calvin(
    source: Path | str, path: Path | str, *, image_size: int, progress: Callable[[int], object] | None = None
) -> PlayStore:
    """Convert a CALVIN data set into a play store.

    Every frame is kept, the last of an episode too: its action is the one that came next. Actions are `rel_actions`,
    the moves that were achieved. Images are averaged down by area. Memory does not grow with the set.

    Args:
        source: the folder that holds `training` and `validation`.
        path: the store to create.
        image_size: side of the store's images in pixels, at most that of the recordings.
        progress: called with the number of frames just read; `len(find_calvin(source))` is their total.

    Raises:
        UserError: `source` is no CALVIN set, or one of its files is missing, damaged or does not fit; names the file.
    """
    found = find_calvin(source)
    reader = _FrameReader(found.splits[0].path(found.splits[0].episodes[0][0]), image_size)
    config = {"path": str(found.root.resolve()), "recorded_images": {k: list(v) for k, v in reader.images.items()}}
    with StoreWriter(path, image_size=image_size, source="calvin", renderer="calvin", config=config) as writer:
        for split in found.splits:
            for first, last in split.episodes:
                writer.begin_episode(kind="play", split=split.name, scene=found.scene_of(first))
                for start in range(first, last + 1, BLOCK):
                    numbers = range(start, min(start + BLOCK, last + 1))
                    writer.append(reader.block([split.path(number) for number in numbers]))
                    if progress is not None:
                        progress(len(numbers))
                writer.end_episode(_inside(split.segments, first, last))
    return PlayStore.open(path)


class _FrameReader:
    """Reads frames that look like the first one of the set.

    Args:
        example: the file of the first frame.
        image_size: side of the result in pixels.
    """

    def __init__(self, example: Path, image_size: int) -> None:
        self.image_size = image_size
        with _opened(example) as arrays:
            self.images: dict[str, tuple[int, ...]] = {c: arrays[c].shape for c in spec.CAMERAS if c in arrays}
        for camera, shape in self.images.items():
            if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < image_size:
                raise UserError(f"{example}: {camera} is {shape}; choose an image size of at most {min(shape[:2])}")

    def block(self, paths: Sequence[Path]) -> dict[str, np.ndarray]:
        """The frames in these files, as a writer takes them."""
        frames = [self._frame(path) for path in paths]
        block = {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}
        return block | {camera: area_mean(block[camera], self.image_size) for camera in self.images}

    def _frame(self, path: Path) -> dict[str, np.ndarray]:
        with _opened(path) as arrays:
            try:
                images = {camera: arrays[camera] for camera in self.images}
                vectors = {key: arrays[name] for key, name in ON_DISK.items()}
            except KeyError as error:
                raise UserError(f"{path} has no {error.args[0]}; get the file anew") from error
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
    if not np.isfinite(vector).all():
        raise UserError(f"{label} holds NaN or infinity; get the file anew")


@contextmanager
def _opened(path: Path) -> Iterator[NpzFile]:
    """The arrays of an `.npz`, read on demand; whatever a damaged file raises names the file."""
    try:
        # opened here, because np.load leaks the file when it is no archive
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not isinstance(arrays, NpzFile):
                raise ValueError("it is no archive")
            yield arrays
    except FileNotFoundError:
        raise UserError(f"{path} is missing; copy the set again") from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); get the file anew") from error


# --- the small files --------------------------------------------------------------------------------------------------


def _check_is_calvin(root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the folder of a CALVIN set")
    if missing := [name for name in get_args(spec.Split) if not (root / name).is_dir()]:
        candidates = [root.parent, *(child for child in sorted(root.iterdir()) if child.is_dir())]
        near = next((c for c in candidates if all((c / name).is_dir() for name in get_args(spec.Split))), None)
        hint = f"did you mean {near}?" if near else "give the folder that holds training and validation"
        raise UserError(f"{root} is no CALVIN set, it has no folder {missing[0]}; {hint}")


def _read_split(folder: Path, name: spec.Split) -> CalvinSplit:
    episodes = _read_ranges(folder / "ep_start_end_ids.npy")
    files = [match for entry in folder.iterdir() if (match := _FRAME.fullmatch(entry.name))]
    if not files:
        raise UserError(f"{folder} holds no frames (episode_0000000.npz and so on); copy the set again")
    split = CalvinSplit(folder, name, episodes, _read_segments(folder), len(files[0][1]))
    present = {int(match[1]) for match in files}
    for first, last in episodes:
        absent = next((number for number in range(first, last + 1) if number not in present), None)
        if absent is not None:
            raise UserError(f"{split.path(absent)} is missing; copy the set again")
    for segment in split.segments:
        if not any(first <= segment.start and segment.stop <= last + 1 for first, last in episodes):
            window = f"{segment.start} to {segment.stop - 1}"
            raise UserError(f"{folder}: the annotated window {window} ({segment.task}) lies in no episode; fix the set")
    return split


def _read_ranges(path: Path) -> list[tuple[int, int]]:
    """First and last frame numbers, both inclusive."""
    try:
        ranges = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; copy the set again") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}); get the file anew") from error
    if ranges.ndim != 2 or ranges.shape[1:] != (2,) or not np.issubdtype(ranges.dtype, np.integer):
        raise UserError(f"{path} is {ranges.dtype} {ranges.shape}, not integers (episodes, 2); get the file anew")
    if len(ranges) == 0:
        raise UserError(f"{path} lists no episodes: the set is empty; copy the set again")
    if (ranges[:, 0] < 0).any() or (ranges[:, 1] < ranges[:, 0]).any():
        raise UserError(f"{path} has an episode that ends before it starts; get the file anew")
    return [(int(first), int(last)) for first, last in ranges]


def _read_segments(folder: Path) -> list[Segment]:
    """Annotated windows: those of `lang_annotations`, else of the first `lang_*` folder that has any."""
    paths = [folder / "lang_annotations" / "auto_lang_ann.npy", *sorted(folder.glob("lang_*/auto_lang_ann.npy"))]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        logger.warning("%s has no language annotations: its frames are play without segments", folder)
        return []
    content = load_object_array(path)
    try:
        tasks, windows = content["language"]["task"], content["info"]["indx"]
        segments = [Segment(str(task), int(a), int(b) + 1) for task, (a, b) in zip(tasks, windows, strict=True)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} holds no annotations in CALVIN's form ({error!r}); get the file anew") from error
    logger.info("%s: %d annotated windows", path, len(segments))
    return segments


def _inside(segments: Sequence[Segment], first: int, last: int) -> list[Segment]:
    """The segments of an episode, counted from its first frame."""
    return [
        Segment(segment.task, segment.start - first, segment.stop - first)
        for segment in segments
        if first <= segment.start and segment.stop <= last + 1
    ]


def _read_scenes(path: Path) -> dict[str, tuple[int, int]]:
    if not path.exists():
        return {}
    content = load_object_array(path)
    try:
        return {str(scene): (int(first), int(last)) for scene, (first, last) in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not map scenes to frame numbers ({error}); get the file anew") from error

"""What a play store holds and how `store.json` says so: episodes, segments, and the row of every key."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json
from worldaction.io.typed_json import typed
from worldaction.spec import Kind

FORMAT = "worldaction play store 2"
# a little more than 1, because actions come as rounded float64
MAX_ACTION = 1.0 + 1e-4

SKIPPED = "skipped"
"""In a store's config: what of its source was damaged or missing, a line each."""


@dataclass(frozen=True)
class Episode:
    """Frames `start` to `stop` (exclusive) of a store, recorded without an interruption."""

    start: int
    length: int
    kind: Kind = "play"
    split: spec.Split = "training"
    scene: str = ""
    """Which table it was recorded on, where the source says so."""

    @property
    def stop(self) -> int:
        """One past the last frame."""
        return self.start + self.length


@dataclass(frozen=True)
class Segment:
    """Frames `start` to `stop` (exclusive), inside one episode, in which `task` is attempted."""

    task: str
    start: int
    stop: int
    success: bool | None = None
    """Whether it succeeded; None where nobody says so, which is neither a success nor a failure."""
    sentence: str = ""
    """What a person said to the robot, where the recording says so."""

    @property
    def length(self) -> int:
        """How many frames it has."""
        return self.stop - self.start


@dataclass(frozen=True)
class StoreMeta:
    """Where a store's frames come from."""

    image_size: int
    """Side of the images in pixels."""
    source: str
    """What made the frames, such as "playtable" or "calvin"."""
    renderer: str
    """What drew the images."""
    seed: int | None
    """The seed of generated data; None for recordings."""
    layout: spec.Layout
    """What a frame holds."""
    config: dict[str, Any] = field(default_factory=dict)
    """The settings that made the frames."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return self.layout.cameras


class Description(NamedTuple):
    """The content of `store.json`."""

    frames: int
    meta: StoreMeta
    episodes: list[Episode]
    segments: list[Segment]
    checksums: dict[str, str]


class Row(NamedTuple):
    """One key of one frame."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def rows(image_size: int, layout: spec.Layout) -> dict[str, Row]:
    """Every key of a store with the shape and type of one frame of it.

    Args:
        image_size: side of the images in pixels.
        layout: what a frame holds.
    """
    images = {camera: Row((image_size, image_size, 3), torch.uint8) for camera in layout.cameras}
    vectors = {key: Row((size,), torch.float32) for key, size in layout.vectors.items()}
    derived = {
        spec.PREVIOUS_ACTION: Row((layout.action,), torch.float32),
        spec.IS_INIT: Row((), torch.bool),
        spec.EPISODE: Row((), torch.int64),
    }
    return images | vectors | derived


def recorded(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
    """How tensordict's meta.json describes a leaf; with it `TensorDict.load_memmap` reads the folder too."""
    return {"device": "cpu", "shape": list(shape), "dtype": str(dtype), "is_nested": False}


def write_description(folder: Path, description: Description) -> None:
    """Write `store.json`."""
    frames, meta, episodes, segments, checksums = description
    head = {"format": FORMAT, "frames": frames, **dataclasses.asdict(meta)}
    write_json(folder / "store.json", head | {"checksums": checksums, "segments": segments, "episodes": episodes})


def read_description(folder: Path) -> Description:
    """Read and check `store.json`.

    Raises:
        UserError: it is missing, damaged, of another version, or its numbers contradict each other.
    """
    path, remedy = folder / "store.json", "convert or generate the data again"
    found = read_json(path, remedy=remedy)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path} does not describe a play store of this version; {remedy}")
    content: _Content = typed(found, _Content, path, remedy=remedy)
    head = {field.name: getattr(content, field.name) for field in dataclasses.fields(StoreMeta)}
    description = Description(content.frames, StoreMeta(**head), content.episodes, content.segments, content.checksums)
    if problem := _contradiction(description):
        raise UserError(f"{path}: {problem}; {remedy}")
    return description


class _Content(NamedTuple):
    """`store.json`, as it is written."""

    format: str
    frames: int
    image_size: int
    source: str
    renderer: str
    seed: int | None
    layout: spec.Layout
    config: dict[str, Any]
    checksums: dict[str, str]
    segments: list[Segment]
    episodes: list[Episode]


def _contradiction(description: Description) -> str | None:
    """What is wrong with the numbers, if anything."""
    frames, meta, episodes, segments, checksums = description
    if frames < 1 or not episodes:
        return "the store has no frames"
    if problem := layout_problem(meta.layout):
        return problem
    files = {f"frames/{key}.memmap" for key in rows(meta.image_size, meta.layout)}
    if wrong := sorted(files ^ checksums.keys()):
        return (
            f"{wrong[0][:100]} has {'no checksum' if wrong[0] in files else 'a checksum, but is no file of the store'}"
        )
    position = 0
    for i, episode in enumerate(episodes):
        if episode.start != position or episode.length < 1:
            return f"episode {i} starts at frame {episode.start} with {episode.length} frames, expected {position}"
        position = episode.stop
    if position != frames:
        return f"the episodes have {position} frames together, the store says {frames}"
    if bad := next((s for s in segments if not 0 <= s.start < s.stop <= frames), None):
        return f"segment {bad.task} from {bad.start} to {bad.stop} lies outside the {frames} frames"
    return None


def layout_problem(layout: spec.Layout) -> str | None:
    """What is wrong with a layout that somebody may have edited, if anything."""
    if bad := next((camera for camera in layout.cameras if not camera.isidentifier()), None):
        return f"the camera {bad[:60]!r} is no word"
    if min(layout.robot, layout.scene, layout.euler or 0, *layout.binary, 0) < 0 or layout.action < 1:
        return "a size of the layout is no number of things"
    if max(layout.binary, default=0) >= layout.action or (layout.euler or 0) + 3 > max(layout.robot, 3):
        return "a number that is binary or an angle is none of an action's or a robot's"
    if len(layout.null_action) != layout.action:
        return f"the null action has {len(layout.null_action)} numbers, an action {layout.action}"
    return None

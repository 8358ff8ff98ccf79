"""What a play store holds and how `store.json` says so: episodes, segments, and the row of every key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args

import torch

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io.artefact import read_json, write_json
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
    path = folder / "store.json"
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} does not describe a play store of this version; convert or generate the data again")
    try:
        description = _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}); convert or generate the data again") from error
    if problem := _contradiction(description):
        raise UserError(f"{path}: {problem}; convert or generate the data again")
    return description


def _parse(content: Mapping[str, Any]) -> Description:
    names = [f.name for f in dataclasses.fields(StoreMeta) if f.name != "layout"]
    meta = StoreMeta(**{name: content[name] for name in names}, layout=spec.Layout.from_dict(content["layout"]))
    episodes = [Episode(**item) for item in content["episodes"]]
    segments = [Segment(**item) for item in content["segments"]]
    numbers = [content["frames"], meta.image_size, *(n for e in episodes for n in (e.start, e.length))]
    numbers += [n for s in segments for n in (s.start, s.stop)]
    if any(type(number) is not int for number in numbers):
        raise TypeError("a frame number is no integer")
    if any(type(s.sentence) is not str or type(s.success) not in (bool, NoneType) for s in segments):
        raise TypeError("a sentence is no text, or a success neither true, false nor null")
    _check_types(meta)
    return Description(content["frames"], meta, episodes, segments, dict(content["checksums"]))


def _check_types(meta: StoreMeta) -> None:
    """What the code relies on, in a file that anybody may have edited."""
    layout = meta.layout
    texts = [meta.source, meta.renderer, *layout.cameras]
    sizes = [layout.robot, layout.scene, layout.action, *layout.binary, 0 if layout.euler is None else layout.euler]
    if any(type(text) is not str for text in texts) or not all(camera.isidentifier() for camera in layout.cameras):
        raise TypeError("a name is no text, or a camera's no word")
    if any(type(size) is not int or size < 0 for size in sizes) or layout.action < 1:
        raise TypeError("a size of the layout is no number of things")
    if not all(type(number) in (int, float) for number in layout.null_action):
        raise TypeError("the null action holds no numbers")
    if type(layout.absolute) is not bool:
        raise TypeError("whether actions are absolute is neither true nor false")
    if type(meta.config) is not dict or not (meta.seed is None or type(meta.seed) is int):
        raise TypeError("the config is no mapping, or the seed no integer")


def _contradiction(description: Description) -> str | None:
    """What is wrong with the numbers, if anything."""
    frames, meta, episodes, segments, _ = description
    if frames < 1 or not episodes:
        return "the store has no frames"
    if len(meta.layout.null_action) != meta.layout.action:
        return f"the null action has {len(meta.layout.null_action)} numbers, an action {meta.layout.action}"
    position = 0
    for i, episode in enumerate(episodes):
        if episode.start != position or episode.length < 1:
            return f"episode {i} starts at frame {episode.start} with {episode.length} frames, expected {position}"
        if episode.kind not in get_args(Kind) or episode.split not in get_args(spec.Split):
            return f"episode {i} is of kind {episode.kind!r} and split {episode.split!r}"
        position = episode.stop
    if position != frames:
        return f"the episodes have {position} frames together, the store says {frames}"
    if bad := next((s for s in segments if not 0 <= s.start < s.stop <= frames), None):
        return f"segment {bad.task} from {bad.start} to {bad.stop} lies outside the {frames} frames"
    return None

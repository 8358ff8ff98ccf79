"""Recorded data of any format, as episodes that are read in blocks: what a play store is converted from.

A format is one file beside this one with a class that keeps to `Source`, and a line in `FORMATS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from worldaction.errors import UserError, unknown
from worldaction.play.layout import Segment
from worldaction.spec import Kind, Layout, Split

BLOCK: Final = 256
"""Frames in memory at once."""


@dataclass(frozen=True)
class Recording:
    """One episode of a source, before a frame of it has been read."""

    length: int
    """Frames."""
    where: str
    """File or part of a file, for whoever looks for it."""
    kind: Kind = "play"
    split: Split = "training"
    scene: str = ""
    segments: tuple[Segment, ...] = ()
    """Annotated ranges, counted from the episode's first frame."""


@dataclass(frozen=True)
class Origin:
    """Where the frames of a source come from, as the play store made of it will say; see `StoreMeta`."""

    source: str
    """What made the frames, such as "calvin"."""
    renderer: str = "unknown"
    """What drew the images."""
    seed: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    """What else there is to say: where the set lies, which of its parts were chosen, how actions were scaled."""


class Source(Protocol):
    """A data set whose small files have been read and checked; its frames are read when they are asked for."""

    path: Path
    format: str
    """The format and its version, such as "LeRobot 3.0"."""
    layout: Layout
    """What a frame holds; the cameras are those that the set has, under the names of the store."""
    image_size: int
    """The largest side of square images that can be made from it in pixels; 0 if there are none."""
    rate: float | None
    """Frames per second, where the set says so."""
    episodes: Sequence[Recording]
    origin: Origin

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """The frames of an episode in order, `BLOCK` at most at a time, as `StoreWriter.append` takes them.

        Args:
            episode: its number in `episodes`.
            image_size: side of the images in pixels, at most that of the source; smaller ones are averaged by area.
                None gives every camera in its own size, as recorded (the largest square in the middle, but for CALVIN).
                0 leaves the images out, and reads the vectors alone, which is much faster.
            start: the frame of the episode to begin with.

        Raises:
            UserError: a file is missing, damaged or does not fit the description; names the file.
        """
        ...


def check_intact(source: Source) -> None:
    """Read a set from end to end and compare it with the checksums that it brings along, if its format has any.

    Raises:
        UserError: a file has changed since it was written.
    """
    verify = getattr(source, "verify", None)
    if verify is not None:
        verify()


FORMATS: Final = {
    "calvin": "worldaction.play.readers.calvin:CalvinSource",
    "store": "worldaction.play.readers.store:StoreSource",
    "lerobot": "worldaction.play.readers.lerobot:LeRobotSource",
    "robomimic": "worldaction.play.readers.robomimic:RobomimicSource",
    "minari": "worldaction.play.readers.minari:MinariSource",
}
"""Every format and the class that reads it, `module:Class`: called with a path, it has `recognises(path)`."""


def open_source(path: Path | str, *, format: str | None = None, **options: Any) -> Source:
    """Find out which format a data set has, and read its description.

    Args:
        path: a folder or a file.
        format: a name in `FORMATS`, for a set that is not recognised; the class then says what is wrong with it.
        options: those of the format's class, such as `language` for CALVIN; see docs/data.md.

    Raises:
        UserError: nothing is there, no format fits, the format has no such option, or the description is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is nothing at {path}; give the folder or the file of a data set")
    name = format or recognise(path)
    if name is None:
        near = next((c for c in _near(path) if recognise(c)), None)
        hint = f"did you mean {near}?" if near else "see docs/data.md for what each looks like"
        raise UserError(f"{path} has none of the formats {', '.join(FORMATS)}; {hint}")
    reader = _reader(name)
    known = [option for option in inspect.signature(reader).parameters if option != "path"]
    for option in options:
        if option not in known:
            raise (
                unknown(f"option of the format {name}", option, known)
                if known
                else UserError(f"the format {name} has no options; leave {option} out")
            )
    source: Source = reader(path, **options)
    return source


def recognise(path: Path) -> str | None:
    """The name in `FORMATS` of what lies at a path, by the look of it; None if it has no format of these."""
    return next((name for name in FORMATS if _reader(name).recognises(path)), None)


def _reader(name: str) -> Any:
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    module, _, attribute = FORMATS[name].partition(":")
    return getattr(import_module(module), attribute)


def _near(path: Path) -> list[Path]:
    """Where a set often is instead: one folder up or down."""
    inside = sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
    return [path.parent, *inside[:20]]

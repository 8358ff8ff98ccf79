"""Recorded data of any format, as episodes that are read in blocks: what a play store is converted from.

A format is one file beside this one with a class that keeps to `Source`, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from worldaction.errors import UserError
from worldaction.play.layout import Kind, Segment
from worldaction.spec import Layout, Split

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

    def blocks(self, episode: int, *, image_size: int, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """The frames of an episode in order, `BLOCK` at most at a time, as `StoreWriter.append` takes them.

        Args:
            episode: its number in `episodes`.
            image_size: side of the images in pixels, at most that of the source; smaller ones are averaged by area.
            start: the frame of the episode to begin with.

        Raises:
            UserError: a file is missing, damaged or does not fit the description; names the file.
        """
        ...


FORMATS: Final = {
    "calvin": "worldaction.play.calvin:CalvinSource",
    "store": "worldaction.play.source_store:StoreSource",
    "lerobot": "worldaction.play.lerobot:LeRobotSource",
    "robomimic": "worldaction.play.robomimic:RobomimicSource",
    "minari": "worldaction.play.minari:MinariSource",
}
"""Every format and the class that reads it, `module:Class`: called with a path, it has `recognises(path)`."""


def open_source(path: Path | str) -> Source:
    """Find out which format a data set has, and read its description.

    Args:
        path: a folder or a file.

    Raises:
        UserError: nothing is there, no format fits, or the set's description is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is nothing at {path}; give the folder or the file of a data set")
    for target in FORMATS.values():
        module, _, name = target.partition(":")
        reader = getattr(import_module(module), name)
        if reader.recognises(path):
            source: Source = reader(path)
            return source
    raise UserError(f"{path} has none of the formats {', '.join(FORMATS)}; see docs/data.md for what each looks like")

"""Several recorded sets of one robot as one: their episodes one after the other, in the units of the first."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from worldaction.errors import UserError
from worldaction.interface import RECORDED
from worldaction.play.action_scaling import Scaled
from worldaction.play.readers.source import Recording, Source, check_intact
from worldaction.spec import ACTION

LOGGER = logging.getLogger("worldaction")
SETS: Final = "sets"
"""In a store's config: of each set that it was joined from, where it lies, its episodes and frames."""
SAME: Final = ("robot", "action", "binary", "absolute", "euler", "null_action")
"""What has to be the same of all: how to move this robot, and what it says of itself."""


def joined(sources: Sequence[Source]) -> Source:
    """Several sources as one, and one as it is; see `Joined`."""
    return sources[0] if len(sources) == 1 else Joined(sources)


class Joined:
    """Some sources as one; see `Source`. Cameras and scenes that one of them has not got are left out of all.

    Args:
        sources: at least one; the first says what the frames mean.

    Raises:
        UserError: they are not of the same robot, units or rate.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        first, *others = sources
        for other in others:
            _refuse_other(first, other)
        self._sources = sources
        self.path, self.format, self.rate = first.path, first.format, first.rate
        self.image_size = min(source.image_size for source in sources)
        layouts = [source.layout for source in sources]
        cameras = tuple(c for c in first.layout.cameras if all(c in layout.cameras for layout in layouts))
        scene = first.layout.scene if len({layout.scene for layout in layouts}) == 1 else 0
        self.layout = replace(first.layout, cameras=cameras, scene=scene)
        self.episodes: Sequence[Recording] = [episode for source in sources for episode in source.episodes]
        self._places = [(source, n) for source in sources for n in range(len(source.episodes))]
        self.skipped: Sequence[str] = [line for source in sources for line in source.skipped]
        self.left_out: tuple[str, ...] = tuple(x for source in sources for x in getattr(source, "left_out", ()))
        self.origin = replace(first.origin, config=first.origin.config | {SETS: [_about(s) for s in sources]})

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        source, number = self._places[episode]
        kept = {*self.layout.cameras, *self.layout.vectors}
        for block in source.blocks(number, image_size=image_size, start=start):
            yield {key: value for key, value in block.items() if key in kept}

    def verify(self) -> None:
        """See `check_intact`."""
        for source in self._sources:
            check_intact(source)


def in_units_of(first: Source, other: Source) -> Source:
    """Another set of the same robot, its actions scaled as those of the first are, if they are.

    What lies beyond the first one's lowest and highest is limited to them, with a warning that says how much.

    Raises:
        UserError: its actions were scaled otherwise.
    """
    scale, own = first.origin.config.get(RECORDED), other.origin.config.get(RECORDED)
    if scale == own:
        return other
    if scale is None or own is not None:
        raise UserError(f"{other.path}: its actions were scaled otherwise than those of {first.path}; leave it out")
    low, high = np.array(scale["low"]), np.array(scale["high"])
    beyond, frames = 0, 0
    for number in range(len(other.episodes)):
        for block in other.blocks(number, image_size=0):
            beyond += int(((block[ACTION] < low) | (block[ACTION] > high)).any(1).sum())
            frames += len(block[ACTION])
    if beyond:
        LOGGER.warning(
            "%s: actions of %d of %d frames lie beyond those of %s and are limited to them",
            *(other.path, beyond, frames, first.path),
        )
    return Scaled(other, low, high)


def _about(source: Source) -> dict[str, Any]:
    frames = sum(episode.length for episode in source.episodes)
    return {"path": str(source.path), "episodes": len(source.episodes), "frames": frames}


def _refuse_other(first: Source, other: Source) -> None:
    if first.rate and other.rate and first.rate != other.rate:
        raise UserError(
            f"{other.path} has {other.rate:g} frames a second, {first.path} has {first.rate:g}; leave it out, or record"
            " it anew"
        )
    for name in SAME:
        if (theirs := getattr(other.layout, name)) != (ours := getattr(first.layout, name)):
            raise UserError(
                f"{other.path} is of another robot than {first.path}: {name} is {theirs}, not {ours}; leave it out"
            )

"""Validation episodes for sets that have none: every tenth, and the last one at least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from worldaction.play.readers.source import Recording, Source

EVERY = 10


class HeldOut:
    """A source of which some episodes are kept from training. One that keeps some already stays as it is.

    Args:
        source: the data set.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.path, self.format, self.layout, self.origin = source.path, source.format, source.layout, source.origin
        self.image_size, self.rate = source.image_size, source.rate
        self.episodes: Sequence[Recording] = _held_out(source.episodes)

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        return self._source.blocks(episode, image_size=image_size, start=start)


def _held_out(episodes: Sequence[Recording]) -> Sequence[Recording]:
    if any(one.split == "validation" for one in episodes):
        return episodes
    last = len(episodes) - 1
    apart = set(range(EVERY - 1, len(episodes), EVERY)) or {last}
    return [replace(one, split="validation") if n in apart else one for n, one in enumerate(episodes)]

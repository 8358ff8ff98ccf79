"""Frames from all over a data set, without their images: what is found out about a set before it is read as a whole."""

from __future__ import annotations

from typing import Final

import numpy as np

from worldaction.play.inspect.actions import Run
from worldaction.play.readers.source import BLOCK, Source
from worldaction.spec import ACTION

SAMPLE: Final = 5000
"""About how many frames the statistics are taken from."""


def sample(source: Source, *, frames: int = SAMPLE, seed: int = 0, run: int = BLOCK) -> list[Run]:
    """Runs of consecutive frames without their images: all there are, or a seeded choice of runs from all over the set.

    Args:
        source: what `open_source` gave.
        frames: about how many.
        seed: of the choice.
        run: frames of a run, at most.
    """
    starts = [(i, first) for i, episode in enumerate(source.episodes) for first in range(0, episode.length, run)]
    lengths = [min(run, source.episodes[i].length - first) for i, first in starts]
    if sum(lengths) <= frames:
        return [read_run(source, i, 0, episode.length) for i, episode in enumerate(source.episodes)]
    order = np.random.default_rng(seed).permutation(len(starts))
    # as many as it takes to have enough
    count = int(np.searchsorted(np.cumsum(np.array(lengths)[order]), frames)) + 1
    return [read_run(source, starts[k][0], starts[k][1], lengths[k]) for k in sorted(order[:count])]


def read_run(source: Source, episode: int, first: int, length: int) -> Run:
    """Consecutive frames of an episode without their images, `length` from `first` on."""
    blocks: list[dict[str, np.ndarray]] = []
    found = 0
    for block in source.blocks(episode, image_size=0, start=first):
        blocks.append(block)
        found += len(block[ACTION])
        if found >= length:
            break
    return {key: np.concatenate([block[key] for block in blocks])[:length] for key in blocks[0]}

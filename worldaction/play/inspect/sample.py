"""Frames from all over a data set, without their images: what is found out about a set before it is read as a whole."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np

from worldaction.errors import UserError
from worldaction.play.inspect.actions import Run
from worldaction.play.readers.source import BLOCK, Source
from worldaction.spec import ACTION

logger = logging.getLogger(__name__)

SAMPLE: Final = 5000
"""About how many frames the statistics are taken from."""


def sample(source: Source, *, frames: int = SAMPLE, seed: int = 0, run: int = BLOCK) -> list[Run]:
    """Runs of consecutive frames without their images: all there are, or a seeded choice of runs from all over the set.

    Args:
        source: what `open_source` gave.
        frames: about how many.
        seed: of the choice.
        run: frames of a run, at most.

    Raises:
        UserError: none of them can be read.
    """
    starts = [(i, first) for i, episode in enumerate(source.episodes) for first in range(0, episode.length, run)]
    lengths = [min(run, source.episodes[i].length - first) for i, first in starts]
    if sum(lengths) <= frames:
        chosen = [(i, 0, episode.length) for i, episode in enumerate(source.episodes)]
    else:
        order = np.random.default_rng(seed).permutation(len(starts))
        # as many as it takes to have enough
        count = int(np.searchsorted(np.cumsum(np.array(lengths)[order]), frames)) + 1
        chosen = [(*starts[k], lengths[k]) for k in sorted(order[:count])]
    return _readable(source, chosen)


def _readable(source: Source, chosen: Sequence[tuple[int, int, int]]) -> list[Run]:
    """Those of the runs (episode, first frame, length) that can be read; whoever reads them all names the others."""
    runs: list[Run] = []
    wrong: UserError | None = None
    for episode, first, length in chosen:
        try:
            runs.append(read_run(source, episode, first, length))
        except UserError as error:
            wrong = wrong or error
    if wrong is not None:
        if not runs:
            raise wrong
        logger.warning(
            "%s: %d of %d parts of a sample cannot be read: %s",
            source.path,
            len(chosen) - len(runs),
            len(chosen),
            wrong,
        )
    return runs


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

"""Frames of training that are frames of validation, too: what was learnt by heart is no test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worldaction.errors import UserError
from worldaction.spec import Split

Marks = NDArray[np.uint64]
SHARED: Final = 0.5
"""Part of the shorter of two episodes that has to be the same: a robot may begin where it began before."""
FEW: Final = 8
"""Frames that have to be the same, at least."""


def marks(vectors: Mapping[str, np.ndarray]) -> Marks:
    """A number [T] for each frame, of all that is recorded but the images; equal where all of it is equal to the bit.

    Args:
        vectors: [T, n] by name; those that are no vectors are not looked at.
    """
    rows = [np.ascontiguousarray(value, np.float32) for _, value in sorted(vectors.items()) if value.ndim == 2]
    bits = np.concatenate([row.view(np.uint32) for row in rows], axis=1).astype(np.uint64)
    # [T, n] times [n] odd numbers drawn once, modulo 2^64: a sum that two different frames share by chance in 2^64
    factors = np.random.default_rng(bits.shape[1]).integers(0, 2**63, bits.shape[1], np.uint64) * 2 + 1
    mixed: Marks = (bits * factors).sum(1, dtype=np.uint64)
    return mixed


def leaks(episodes: Mapping[int, tuple[Split, Marks]]) -> list[str]:
    """Which episodes of validation are, or hold, or lie in, episodes of training; a line each.

    Frames that an episode has several times, because nothing moves, say nothing.

    Args:
        episodes: the split and the marks [T] of each, by number.
    """
    alone = {number: _once(of) for number, (_, of) in episodes.items()}
    training = [number for number, (split, _) in episodes.items() if split == "training"]
    if not training:
        return []
    known = np.concatenate([alone[number] for number in training])
    order = np.argsort(known)
    known, owner = known[order], np.repeat(training, [len(alone[number]) for number in training])[order]
    return [
        f"episode {number} of validation has {count} frames of episode {other} of training"
        for number in episodes
        if episodes[number][0] == "validation"
        for other, count in _shared(alone[number], known, owner)
        if count >= FEW and count > SHARED * min(len(alone[number]), len(alone[other]))
    ]


def refuse_leaks(path: Path, episodes: Mapping[int, tuple[Split, Marks]]) -> None:
    """Refuse a set of which frames are in both splits.

    Raises:
        UserError: some are; names the episodes.
    """
    if found := leaks(episodes):
        more = f" ({len(found)} such pairs)" if len(found) > 1 else ""
        raise UserError(f"{path}: {found[0]}{more}; leave one of the two out, or what is learnt is tested on itself")


def _shared(of: Marks, known: Marks, owner: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Whose marks are among these, and how many; `known` is sorted."""
    first, last = np.searchsorted(known, of, side="left"), np.searchsorted(known, of, side="right")
    counts: Counter[int] = Counter()
    for start, stop in zip(first[last > first], last[last > first], strict=True):
        counts.update(owner[start:stop].tolist())
    return sorted(counts.items())


def _once(of: Marks) -> Marks:
    values, count = np.unique(of, return_counts=True)
    return values[count == 1]

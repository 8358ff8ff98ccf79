"""Which frame of a video is the first of an episode, where LeRobot's metadata give a time that was rounded or added up.

What is certain are the lengths of the episodes: each begins where those before it in the file end. Times tell the same
unless they drifted, or frames that belong to no episode lie between; how many frames the file has decides which.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from worldaction.errors import UserError

logger = logging.getLogger(__name__)

HALF: Final = 0.5
"""Part of a frame by which a time may be off without a word."""
WHOLE: Final = 0.75
"""From here on frames may lie between."""
NAMED: Final = 8
"""Episodes that are named in a warning."""


class Filmed(NamedTuple):
    """One episode in a video file."""

    number: int
    row: int
    """Where its first row is in the whole set, if the set says so."""
    length: int
    time: float
    """Where the metadata say that its first frame is (frames)."""


def first_frames(path: Path, episodes: Sequence[Filmed], count: Callable[[Path], int | None]) -> dict[int, int]:
    """The first frame of each episode in a file, by its number.

    Args:
        path: the file.
        episodes: those that lie in it.
        count: how many frames a file has; None if nobody can tell. Asked only where times and lengths disagree.

    Raises:
        UserError: times and lengths disagree, and neither can be right.
    """
    episodes = sorted(episodes, key=lambda one: (one.row, one.number))
    lengths = np.array([one.length for one in episodes])
    ends = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    # rows of episodes that the set no longer lists count as well
    between = np.array([one.row - episodes[0].row for one in episodes])
    by_length = np.maximum.accumulate(np.maximum(between, ends))
    by_time = np.array([one.time for one in episodes])
    early = by_time - by_length
    off = np.abs(early) > HALF
    if not off.any():
        return _numbered(episodes, by_length)
    frames, end = count(path), int(by_length[-1] + lengths[-1])
    # less than a frame is drift, whatever else the file has
    if frames is None or frames <= end or (np.abs(early) < WHOLE).all():
        _say(path, episodes, early, off, "their frames are taken by the lengths")
        return _numbered(episodes, by_length)
    # as many frames before all of them, where the first episodes were taken out of the list
    shift = round(float(np.median(early)))
    if 0 < shift <= frames - end and (np.abs(early - shift) <= HALF).all():
        return _numbered(episodes, by_length + shift)
    starts = np.rint(by_time).astype(int)
    if (starts[1:] < starts[:-1] + lengths[:-1]).any() or starts[0] < 0 or starts[-1] + lengths[-1] > frames:
        raise UserError(
            f"{path} has {frames} frames, its episodes {int(lengths.sum())}, and their times do not tell which; "
            "copy the set again"
        )
    _say(path, episodes, early, off, f"the file has {frames} frames, more than they have, and times are taken")
    return _numbered(episodes, starts)


def _numbered(episodes: Sequence[Filmed], starts: np.ndarray) -> dict[int, int]:
    return {one.number: int(start) for one, start in zip(episodes, starts, strict=True)}


def _say(path: Path, episodes: Sequence[Filmed], early: np.ndarray, off: np.ndarray, taken: str) -> None:
    named = [f"{one.number} ({gap:+.1f} frames)" for one, gap, bad in zip(episodes, early, off, strict=True) if bad]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    logger.warning(
        "%s: the time of episode %s%s is not where those before end; %s", path, ", ".join(named[:NAMED]), more, taken
    )

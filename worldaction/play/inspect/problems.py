"""What is wrong with a data set: each thing once, with how often it was seen and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

SHOWN: Final = 8
"""Frames of an episode, and episodes, that are named; of the others the number is."""


class Findings(NamedTuple):
    """What was found, a line each."""

    problems: list[str]
    """A set that has one is not fit for training as it is."""
    warnings: list[str]
    """What a person should look at."""


class Problems:
    """What is wrong, each thing once, with how often it was seen and where first."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._places: dict[str, list[str]] = {}

    def add(self, what: str, where: str, count: int = 1) -> None:
        """Something is wrong in so many places, the first of them `where`."""
        if count:
            self._first.setdefault(what, where)
            self._count[what] += count

    def flag(self, what: str, where: str, wrong: np.ndarray, start: int) -> None:
        """Something is wrong in the frames [T] that are marked, counted from `start`."""
        if wrong.any():
            self.add(what, f"{where}, frame {start + int(wrong.argmax())}", int(wrong.sum()))

    def name(self, what: str, where: str) -> None:
        """Something is wrong in a place that is named, as are the others where it is."""
        self._places.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        """In words, a line each."""
        counted = [self._line(what, count) for what, count in self._count.items()]
        return counted + [f"{what}: {_listed(places, '; ')}" for what, places in self._places.items()]

    def _line(self, what: str, count: int) -> str:
        first = self._first[what]
        if count > 1:
            return f"{what} ({count} times, first in {first})"
        return f"{what} ({first})" if first else what


def frames(numbers: Sequence[int]) -> str:
    """Numbers of frames in words, not more of them than a person reads."""
    return f"frame{'s' * (len(numbers) != 1)} {_listed([str(number) for number in numbers], ', ')}"


def _listed(words: Sequence[str], separator: str) -> str:
    more = len(words) - SHOWN
    return separator.join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")

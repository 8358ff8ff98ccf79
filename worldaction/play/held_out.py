"""What nothing is trained on: episodes of sets that hold none out themselves, attempts in play that is made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from worldaction.play.layout import Episode
from worldaction.play.readers.source import Recording, Source, Wrapped
from worldaction.spec import Layout, Split

EVERY: Final = 10
"""Of a recorded set every tenth episode is held out, and the last one at least."""
SALT: Final = 15
"""Keeps the draw apart from all others of the same seed."""
FEW: Final = 3
"""So many attempts of an outcome are held out at least, but no more than half of them."""


class HeldOut(Wrapped):
    """A source of which some episodes are kept from training. One that keeps some already stays as it is.

    Args:
        source: the data set.
        layout: what `check_conventions` says of its frames; by default what the set says.
    """

    def __init__(self, source: Source, *, layout: Layout | None = None) -> None:
        super().__init__(source)
        self.layout = layout or source.layout
        self.episodes = _held_out(source.episodes)


def _held_out(episodes: Sequence[Recording]) -> Sequence[Recording]:
    if any(one.split == "validation" for one in episodes):
        return episodes
    last = len(episodes) - 1
    apart = set(range(EVERY - 1, len(episodes), EVERY)) or {last}
    return [replace(one, split="validation") if n in apart else one for n, one in enumerate(episodes)]


def split_attempts(
    episodes: Sequence[Episode], attempts: Sequence[tuple[str, bool | None]], *, share: float, demos: int, seed: int
) -> list[Split]:
    """Which attempts of made play are held out from everything that learns: of each task both successes and failures.

    Args:
        episodes: all of the play.
        attempts: of each episode the task and whether it was done, if that is known; an empty task for play.
        share: of the near misses of each task and outcome; 0 holds out nothing.
        demos: how many demonstrations of each task, the last ones.
        seed: draws the near misses.

    Returns:
        the split of each episode; that of play is its own.
    """
    rng = np.random.default_rng([seed, SALT])
    near: dict[tuple[str, bool | None], list[int]] = {}
    shown: dict[str, list[int]] = {}
    for number, (episode, (task, success)) in enumerate(zip(episodes, attempts, strict=True)):
        if episode.kind == "near_miss":
            near.setdefault((task, success), []).append(number)
        elif episode.kind == "demo":
            shown.setdefault(task, []).append(number)
    apart = [n for group in near.values() for n in rng.choice(group, held_out_of(len(group), share), replace=False)]
    apart += [n for group in shown.values() for n in group[len(group) - demos :]]
    return [_split(episode, number in apart) for number, episode in enumerate(episodes)]


def held_out_of(attempts: int, share: float, *, least: int = FEW) -> int:
    """How many attempts are held out: a least number, but no more than half of them; none of a share of 0."""
    return min(max(round(share * attempts), least), attempts // 2) if share else 0


def _split(episode: Episode, apart: bool) -> Split:
    if episode.kind == "play":
        return episode.split
    return "validation" if apart else "training"

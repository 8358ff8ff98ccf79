"""How the attempts of a play store ended, where the recording says so and no simulator can be asked."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from worldaction.play.layout import Segment
from worldaction.play.store import PlayStore
from worldaction.spec import Split


def attempts_at(store: PlayStore, task: str, split: Split, *, known: bool = True) -> list[Segment]:
    """The attempts at a task in a split.

    Args:
        store: a recorded set.
        task: its name.
        split: of which episodes.
        known: leave out those of which it is not known how they ended.
    """
    found = (s for s in store.segments if s.task == task and not (known and s.success is None))
    return [s for s in found if store.episode_of(s.start).split == split]


def frames_of_success(store: PlayStore, task: str, *, last: int) -> Tensor:
    """Which frames show that a task is done: the last ones of each attempt that succeeded.

    Args:
        store: a recorded set.
        task: its name.
        last: how many frames of each attempt, and never more than half of it.

    Returns:
        [N] bool.
    """
    done = torch.zeros(len(store), dtype=torch.bool)
    for segment in store.segments:
        if segment.task == task and segment.success:
            done[segment.stop - min(last, max(segment.length // 2, 1)) : segment.stop] = True
    return done


def other_side(store: PlayStore) -> PlayStore:
    """The same store, of which what was held out is learned from, and what was learned from is held out."""
    other: dict[Split, Split] = {"training": "validation", "validation": "training"}
    seen = copy.copy(store)
    seen.episodes = [replace(episode, split=other[episode.split]) for episode in store.episodes]
    return seen

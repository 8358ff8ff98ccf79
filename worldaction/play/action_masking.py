"""Masks the actions of some episodes of play, so that they can be learned from as videos are: without actions."""

from __future__ import annotations

import copy

import torch

from worldaction.play.store import Episode, PlayStore
from worldaction.spec import ACTION, ACTION_MASK, PREVIOUS_ACTION


def hide_actions(store: PlayStore, share: float, *, seed: int) -> PlayStore:
    """A store in which the actions of some episodes of play are the null action, and `action_mask` says which.

    Demonstrations, near misses and held-out episodes keep theirs. A larger share hides the same episodes and more.

    Args:
        store: stays as it is.
        share: of the training episodes of play, 0 to 1; 0 gives back the store itself.
        seed: which episodes.
    """
    if share == 0:
        return store
    episodes = [e for e in store.episodes if e.kind == "play" and e.split == "training"]
    order = torch.randperm(len(episodes), generator=torch.Generator().manual_seed(seed)).tolist()
    # [N]
    known = torch.ones(len(store), dtype=torch.bool)
    for number in order[: round(share * len(episodes))]:
        known[episodes[number].start : episodes[number].stop] = False
    null = torch.tensor(store.meta.layout.null_action)
    # whole episodes are masked, so the action before a frame is unknown where the frame's own is
    masked = {key: torch.where(known[:, None], store.frames[key], null) for key in (ACTION, PREVIOUS_ACTION)}
    result = copy.copy(store)
    result.frames = store.frames.copy().update({**masked, ACTION_MASK: known})
    return result


def knows_actions(store: PlayStore, episode: Episode) -> bool:
    """Whether every action of an episode is known."""
    mask = store.frames.get(ACTION_MASK, None)
    return mask is None or bool(mask[episode.start : episode.stop].all())

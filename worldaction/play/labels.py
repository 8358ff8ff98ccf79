"""Success, failure and unknown: what a recording says of its attempts, and what is nobody's to guess."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from worldaction.errors import UserError

ANSWERS: Final = {"success": True, "failure": False}
"""What can be said of all that is unknown."""


def achieved(flags: Any, *, from_reset: bool = False) -> bool | None:
    """Whether an attempt succeeded, by what was recorded after each of its steps.

    Args:
        flags: [T] 0 or 1 after every step; with `from_reset` [T + 1], the first one is the reset's.
        from_reset: whether there is an entry for the reset. It belongs to no step: where it alone is set, it is left
            over from the episode before, or the task was undone. Where it is set and stays so, the task was done before
            anything was tried, and nobody knows what the attempt was worth.

    Returns:
        None where flags are missing, or are no flags.
    """
    values = np.asarray(flags)
    if values.ndim < 1 or values.size == 0 or values.dtype.kind not in "fiub" or not np.isin(values, (0, 1)).all():
        return None
    done = np.asarray(values.reshape(len(values), -1).any(1))
    if not from_reset:
        return bool(done.any())
    if (done[1:] & ~done[:-1]).any():
        return True
    return None if done[1:].any() else False


def is_sparse(rewards: Sequence[np.ndarray]) -> bool:
    """Whether the rewards [T] of a set's episodes say when a task is done: 0 until then, and 1.

    A shaped reward does not, nor one for every step survived; and where no reward was ever given, nobody gave any.
    """
    whole = [np.asarray(reward).ravel() for reward in rewards if np.asarray(reward).size]
    if not whole or any(reward.dtype.kind not in "fiub" or not np.isin(reward, (0, 1)).all() for reward in whole):
        return False
    began = sum(bool(reward[0]) for reward in whole)
    return any(reward.any() for reward in whole) and 2 * began < len(whole)


def of_rewards(rewards: Sequence[np.ndarray | None]) -> list[bool | None]:
    """What the rewards [T] of each episode say of it; None of those that have none, and of all if they are shaped."""
    known = [reward for reward in rewards if reward is not None]
    if not is_sparse(known):
        return [None] * len(rewards)
    return [None if reward is None else achieved(reward) for reward in rewards]


def answer(unknown: str | None) -> bool | None:
    """What the option `unknown` says: "success", "failure", or nothing.

    Raises:
        UserError: it says something else.
    """
    if unknown is not None and unknown not in ANSWERS:
        raise UserError(
            f"unknown={unknown}: attempts of unknown success can be taken for success or failure; say which"
        )
    return None if unknown is None else ANSWERS[unknown]

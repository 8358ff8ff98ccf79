"""Where recorded episodes of policies begin: in lists of start states that nothing else uses."""

from __future__ import annotations

from typing import Final

from envs.benchmark import START_STATES
from envs.episodes import RECORDED_SEEDS, SEEDS, SEEDS_PER_USE
from worldaction.errors import UserError

LISTS: Final = (SEEDS["dream_starts"] + SEEDS_PER_USE - RECORDED_SEEDS) // START_STATES
"""So many lists there are, of `START_STATES` each."""


def start_numbers(seed: int, episodes: int) -> range:
    """Numbers of the start states of recorded episodes, see `envs.benchmark.recorded_start`.

    Args:
        seed: which list of them.
        episodes: how many.

    Raises:
        UserError: there is no such list, or it has not so many.
    """
    if not 0 <= seed < LISTS:
        raise UserError(f"--seed {seed}: there are {LISTS} lists of start states; give 0 to {LISTS - 1}")
    if not 1 <= episodes <= START_STATES:
        raise UserError(f"--episodes {episodes}: give 1 to {START_STATES}, as many as a list of start states has")
    return range(seed * START_STATES, seed * START_STATES + episodes)

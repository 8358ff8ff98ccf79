"""Where recorded episodes of policies begin: in lists of start states that nothing else uses."""

from __future__ import annotations

from typing import Final

from envs.benchmark import START_STATES
from envs.episodes import RECORDED_SEEDS, SEEDS, SEEDS_PER_USE
from worldaction.errors import UserError

LISTS: Final = (SEEDS["dream_starts"] + SEEDS_PER_USE - RECORDED_SEEDS) // START_STATES
"""So many lists there are, of `START_STATES` each."""
OF_ROUNDS: Final = 2
"""So many of the last lists are those of `--real.rounds`, one a round."""


def start_numbers(seed: int, episodes: int) -> range:
    """Numbers of the start states of recorded episodes, see `envs.benchmark.recorded_start`.

    Args:
        seed: which list of them, but for the last `OF_ROUNDS`.
        episodes: how many.

    Raises:
        UserError: there is no such list, or it has not so many.
    """
    if not 0 <= seed < LISTS - OF_ROUNDS:
        lists = f"there are {LISTS - OF_ROUNDS} lists of start states, and others are those of --real.rounds"
        raise UserError(f"--seed {seed}: {lists}; give 0 to {LISTS - OF_ROUNDS - 1}")
    return _numbers(seed, episodes)


def round_numbers(number: int, episodes: int) -> range:
    """As `start_numbers`, of a round of a study, counted from 1."""
    assert 1 <= number <= OF_ROUNDS
    return _numbers(LISTS - number, episodes)


def _numbers(seed: int, episodes: int) -> range:
    if not 1 <= episodes <= START_STATES:
        raise UserError(f"--episodes {episodes}: give 1 to {START_STATES}, as many as a list of start states has")
    return range(seed * START_STATES, seed * START_STATES + episodes)

"""Measures how far the end of an attempt can be foreseen: the same commands again, with the hand a little elsewhere.

A world model is asked whether recorded attempts succeed in its dreams, from the first frame on and under the recorded
commands. What the simulator itself says of them, when the hand is a millimetre from where it was, is the most that can
be asked of a model that knows the hand to a millimetre.

worldaction table sensitivity --tasks open_drawer move_slider_left --tolerance 1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from envs.episodes import LAST_SEED
from envs.playtable.env import PlayTableEnv
from envs.playtable.generate import near_miss_episode
from envs.playtable.stress import stressed
from envs.tasks import EIGHT, get_task
from worldaction.config import Count, NonNegative, StressConfig, check_ranges, check_stress
from worldaction.errors import UserError
from worldaction.spec import ACTION, METRES_PER_UNIT

FIRST_SEED: Final = LAST_SEED
"""Of the attempts: from here on no seed has a use, so no study's play has them."""
SPREAD: Final = 8
"""Control steps at the beginning over which the hand is displaced."""
DRAWS: Final = 2_000
"""Of an interval: how often the attempts are drawn anew."""


@dataclass(frozen=True)
class _Options:
    """The ranges of the options."""

    attempts: Count
    replays: Count


@dataclass(frozen=True)
class _Displaced:
    mm: NonNegative


class Attempt(NamedTuple):
    """A sloppy attempt at a task that was made once."""

    seed: int
    """Names its start state."""
    commands: np.ndarray
    """[T, 7] as a play store holds them, float32."""
    success: bool


class Rate(NamedTuple):
    """A share of replays that succeed, with its 95 % interval over attempts; NaN without an attempt."""

    value: float
    low: float
    high: float


def attempts_at(env: Any, task: str, count: int) -> list[Attempt]:
    """So many attempts as near misses are made.

    Args:
        env: a table, without cameras it is fastest.
        task: name of the task.
        count: how many.
    """
    made = [(seed, *near_miss_episode(env, task, seed)) for seed in range(FIRST_SEED, FIRST_SEED + count)]
    return [Attempt(seed, arrays[ACTION], success) for seed, arrays, success in made]


def replay(env: Any, task: str, attempt: Attempt, displaced: np.ndarray) -> bool:
    """Whether the task is done when the commands are given again.

    Args:
        env: the table on which the attempt was made.
        task: name of the task.
        attempt: its start state and commands.
        displaced: [3] from where the hand was to where it is, from the first control steps on (m).
    """
    env.reset(seed=attempt.seed, options={"task": task})
    more = np.zeros(attempt.commands.shape[1])
    more[:3] = displaced / METRES_PER_UNIT / SPREAD
    for step, command in enumerate(attempt.commands.astype(np.float64)):
        _, _, _, _, info = env.step(np.clip(command + more * (step < SPREAD), -1, 1))
        if info["is_success"]:
            return True
    return False


def foreseen(
    env: Any, task: str, attempts: Sequence[Attempt], *, mm: float, replays: int, seed: int
) -> tuple[Rate, Rate]:
    """Shares of the replays that succeed, of attempts that did and of attempts that did not.

    Args:
        env: the table on which they were made.
        task: name of the task.
        attempts: N of them.
        mm: root mean square of how far the hand is displaced, in a random direction (mm).
        replays: of each attempt; one where nothing is displaced.
        seed: of the directions, and of the intervals.
    """
    rng = np.random.default_rng(seed)
    shares = np.zeros(len(attempts))
    for n, attempt in enumerate(attempts):
        directions = rng.normal(0, mm / 1000 / np.sqrt(3), (replays if mm else 1, 3))
        shares[n] = np.mean([replay(env, task, attempt, direction) for direction in directions])
    done = np.array([attempt.success for attempt in attempts])
    return _rate(shares[done], rng), _rate(shares[~done], rng)


def _rate(shares: np.ndarray, rng: np.random.Generator) -> Rate:
    if not len(shares):
        return Rate(float("nan"), float("nan"), float("nan"))
    drawn = shares[rng.integers(len(shares), size=(DRAWS, len(shares)))].mean(1)
    return Rate(float(shares.mean()), *(float(edge) for edge in np.quantile(drawn, (0.025, 0.975))))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="worldaction table sensitivity", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(EIGHT), help="by default the eight of the table")
    parser.add_argument("--attempts", type=int, default=200, help="attempts at each task")
    parser.add_argument("--replays", type=int, default=4, help="of each attempt and displacement")
    parser.add_argument("--mm", type=float, nargs="+", default=[0, 1, 2, 4, 8], help="how far the hand is displaced")
    parser.add_argument("--tolerance", type=float, default=0.0, help="of success, from 0 (CALVIN's oracle) to 1")
    parser.add_argument("--seed", type=int, default=0, help="of the displacements")
    options = parser.parse_args(arguments)
    tasks = [get_task(task).name for task in options.tasks]
    check_ranges(_Options(options.attempts, options.replays), "--")
    for mm in options.mm:
        check_ranges(_Displaced(mm), "--")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: give a whole number from 0 on")
    check_stress(stress := StressConfig(tolerance=options.tolerance))
    env: Any = stressed(PlayTableEnv(cameras=False), stress, playing=True)
    print(f"{'task':<22}{'hand displaced':>16}{'successes again':>22}{'failures a success':>22}")
    for task in tasks:
        attempts = attempts_at(env, task, options.attempts)
        count = sum(attempt.success for attempt in attempts)
        print(f"{task:<22}{'':>16}{f'of {count}':>22}{f'of {len(attempts) - count}':>22}")
        for mm in options.mm:
            rates = foreseen(env, task, attempts, mm=mm, replays=options.replays, seed=options.seed)
            print(f"{'':<22}{f'{mm:g} mm':>16}" + "".join(f"{_text(rate):>22}" for rate in rates), flush=True)


def _text(rate: Rate) -> str:
    if np.isnan(rate.value):
        return "-"
    return f"{100 * rate.value:.0f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"

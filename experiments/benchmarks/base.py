"""What a benchmark is, and its fixed list of start states."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.calvin.client import SimulatorCrashed
from envs.episodes import SEEDS, Job
from experiments.presets import Study
from worldaction.config import PlayConfig, switched_on
from worldaction.errors import UserError
from worldaction.spec import Layout

LOGGER = logging.getLogger("worldaction")
Observation = dict[str, np.ndarray]
Result = TypeVar("Result")
CRASHES: Final = 3
"""So often a simulator may fail to survive the same work."""
START_STATES: Final = 1_000
"""Start states per task in a fixed list of seeds."""


class Start(NamedTuple):
    """What an episode begins from: arguments of `reset`."""

    seed: int
    options: dict[str, Any] | None = None


class Benchmark(Protocol):
    """Tasks in a simulator. It travels to other processes, so it holds settings and no simulator."""

    @property
    def layout(self) -> Layout:
        """What a frame holds."""
        ...

    def check(self, task: str) -> None:
        """Refuse a task that does not exist.

        Raises:
            UserError: says which there are.
        """
        ...

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """A simulator as it is used to test policies: observations with the keys of the layout, `info["is_success"]`.

        Args:
            task: what is to be done.
            film: whether `render` is to give pictures for people.
        """
        ...

    def label(self, task: str, scene_obs: ArrayLike) -> NDArray[np.bool_]:
        """Whether a task is done in scenes [..., P'], judged by each alone."""
        ...

    def shows(self, task: str, scene: str) -> bool:
        """Whether frames of a scene can show that a task is done, or not done; `label` says nothing of others."""
        ...

    def starts(self, task: str) -> Sequence[Start]:
        """The fixed list of start states of evaluations."""
        ...

    def first_frames(self, task: str, count: int) -> list[Observation]:
        """What is seen in so many start states, from which dreams begin: none of those that are evaluated."""
        ...

    def jobs(self, data: PlayConfig, tasks: Sequence[str]) -> list[Job]:
        """The play data and demonstrations of a study.

        Raises:
            UserError: they cannot be made here; says what the user can do.
        """
        ...

    def ready(self, folder: Path, tasks: Sequence[str]) -> Benchmark:
        """Itself with all done that has to be done once, before processes share the work.

        Args:
            folder: where something may be kept for them.
            tasks: those of the study.
        """
        ...

    def generate(self, path: Path, jobs: Sequence[Job], *, data: PlayConfig) -> None:
        """Make a play store of some of the jobs."""
        ...


def start_seed(index: int, task: int = 0) -> int:
    """Seed of a start state of the fixed list.

    Args:
        index: its place in the list.
        task: number of the task, where each has a list of its own.
    """
    return SEEDS["evaluation"] + START_STATES * task + index


def surviving(work: Callable[[], Result]) -> Result:
    """The result of work with simulators, begun again when one crashes: episodes are functions of their starts.

    Args:
        work: leaves nothing behind when it fails.

    Raises:
        SimulatorCrashed: a simulator did not survive `CRASHES` attempts.
    """
    for left in reversed(range(CRASHES)):
        try:
            return work()
        except SimulatorCrashed as error:
            LOGGER.warning("begun again: %s", error)
            if not left:
                raise
    raise AssertionError("unreachable")


def refuse_stress(study: Study) -> None:
    """Refuse switches that only the play table has; what is hidden is hidden in any data.

    Raises:
        UserError: names the switch.
    """
    if on := switched_on(replace(study.stress, hidden_actions=0.0)):
        option = next(iter(on)).replace("_", "-")
        raise UserError(f"--stress.{option} works at the embedded play table only; leave out --env {study.env}")


def reset_all(env: gym.Env[Any, Any], seeds: Sequence[int]) -> list[Observation]:
    """First observations of so many episodes; the environment is closed."""
    try:
        return [env.reset(seed=seed)[0] for seed in seeds]
    finally:
        env.close()

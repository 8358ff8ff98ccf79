"""What the play table and CALVIN's own simulator share as benchmarks: their tasks, their oracle, their starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.benchmark import START_STATES, Benchmark, Start, start_seed
from envs.episodes import plan
from envs.tasks import BLOCK_TASKS, TASKS, Task, extra_skills, get_task
from worldaction.config import EnvConfig, GymConfig, Renderer, StressConfig, TableConfig
from worldaction.errors import UserError, unknown

if TYPE_CHECKING:
    from envs.episodes import Job
    from worldaction.config import PlayConfig
    from worldaction.spec import Layout

OFF = StressConfig()


@dataclass(frozen=True)
class Tables(Benchmark):
    """What both tables share."""

    table: TableConfig
    stress: StressConfig = OFF

    program = "calvin"
    needs_cameras = True
    knows_itself = True
    takes_stress = True
    limits_play = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """See `Benchmark.tasks`: all that the oracle knows."""
        return tuple(TASKS)

    @property
    def layout(self) -> Layout:
        """See `Benchmark.layout`."""
        from envs.playtable.stress import layout_of

        return layout_of(self.stress)

    def check(self, task: str) -> None:
        """See `Benchmark.check`."""
        get_task(task)

    @classmethod
    def labels_recordings(cls, task: str) -> bool:
        """See `Benchmark.labels_recordings`: every scene has its blocks in an order of its own."""
        return task not in BLOCK_TASKS

    def label(self, task: str, scene_obs: ArrayLike, start: ArrayLike) -> NDArray[np.bool_]:
        """See `Benchmark.label`: the oracle's own answer."""
        return self._judge(task).achieved(start, scene_obs)

    def possible(self, task: str, scene_obs: ArrayLike) -> NDArray[np.bool_]:
        """See `Benchmark.possible`."""
        return self._judge(task).possible(scene_obs)

    def _judge(self, task: str) -> Task:
        return get_task(task, self.table.scene, tolerance=self.stress.tolerance)

    def shows(self, task: str, scene: str) -> bool:
        """See `Benchmark.shows`: every task is judged in every scene."""
        return True

    def starts(self, task: str) -> Sequence[Start]:
        """See `Benchmark.starts`: seeds, of which every task has its own."""
        number = list(TASKS).index(task)
        return [Start(start_seed(index, number)) for index in range(START_STATES)]

    def jobs(self, data: PlayConfig, tasks: Sequence[str]) -> list[Job]:
        """See `Benchmark.jobs`."""
        return plan(data, [get_task(task).name for task in tasks], extra_skills(tasks))


def refuse_gym(config: EnvConfig) -> None:
    """Refuse options of other environments.

    Raises:
        UserError: one was given.
    """
    if config.gym != GymConfig():
        raise UserError(f"--gym.* are options of other environments; leave them out with --env {config.env}")


def drawn_by(table: TableConfig, renderer: str) -> TableConfig:
    """A table with another renderer; what only a simulator of its own has is left to that one."""
    known = ("auto", "egl", "osmesa", "rays")
    if renderer == "tiny":
        return replace(table, renderer="auto")
    if renderer not in known:
        raise unknown("renderer", renderer, known)
    return replace(table, renderer=cast(Renderer, renderer))

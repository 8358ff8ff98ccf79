"""CALVIN's eight tasks, at the embedded play table and in CALVIN's own simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

import envs
from envs.calvin.env import calvin_renderer, calvin_table
from envs.calvin.starts import validation_starts
from envs.episodes import SEEDS, Job
from envs.playtable.generate import embedded_table, generate_shard, plan
from envs.playtable.render import choose
from envs.playtable.stress import layout_of, stressed
from envs.tasks import TASKS, get_task
from experiments.benchmarks.base import (
    START_STATES,
    Observation,
    Start,
    refuse_stress,
    reset_all,
    start_seed,
    surviving,
)
from experiments.presets import Study
from worldaction.config import PlayConfig, Renderer, StressConfig, TableConfig, stress_of_play
from worldaction.errors import unknown
from worldaction.spec import Layout

OFF = StressConfig()


@dataclass(frozen=True)
class Tables:
    """What both tables share."""

    table: TableConfig
    stress: StressConfig = OFF

    @property
    def layout(self) -> Layout:
        """See `Benchmark.layout`."""
        return layout_of(self.stress)

    def check(self, task: str) -> None:
        """See `Benchmark.check`."""
        get_task(task)

    def label(self, task: str, scene_obs: ArrayLike) -> NDArray[np.bool_]:
        """See `Benchmark.label`."""
        return get_task(task, self.table.scene, tolerance=self.stress.tolerance).satisfied(scene_obs)

    def shows(self, task: str, scene: str) -> bool:
        """See `Benchmark.shows`: every task is judged in every scene."""
        return True

    def starts(self, task: str) -> Sequence[Start]:
        """See `Benchmark.starts`: seeds, of which every task has its own."""
        number = list(TASKS).index(task)
        return [Start(start_seed(index, number)) for index in range(START_STATES)]

    def jobs(self, data: PlayConfig, tasks: Sequence[str]) -> list[Job]:
        """See `Benchmark.jobs`."""
        return plan(data, tasks)


@dataclass(frozen=True)
class PlayTable(Tables):
    """The embedded play table, with the study's stress switches."""

    @classmethod
    def of(cls, study: Study, renderer: str | None = None) -> PlayTable:
        """The one that a study asks for."""
        found = cls(study.table, study.stress)
        return found if renderer is None else replace(found, table=_drawn_by(study.table, renderer))

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """See `Benchmark.make`."""
        return stressed(self._bare(task, film=film), self.stress)

    def first_frames(self, task: str, count: int) -> list[Observation]:
        """See `Benchmark.first_frames`."""
        table = stressed(self._bare(task), stress_of_play(self.stress))
        return reset_all(table, [SEEDS["dream_starts"] + n for n in range(count)])

    def ready(self, folder: Path, tasks: Sequence[str]) -> PlayTable:
        """See `Benchmark.ready`."""
        return replace(self, table=_drawn_by(self.table, choose(self.table.renderer)))

    def generate(self, path: Path, jobs: Sequence[Job], *, data: PlayConfig) -> None:
        """See `Benchmark.generate`."""
        make = partial(embedded_table, stress=self.stress)
        generate_shard(path, jobs, self.table, seed=data.seed, config=data, make=make, layout=self.layout)

    def _bare(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        return gym.make(
            envs.PLAY_TABLE_ID,
            task=task,
            image_size=self.table.image_size,
            supersample=self.table.supersample,
            renderer=self.table.renderer,
            max_steps=self.table.max_steps,
            scene=self.table.scene,
            render_mode="rgb_array" if film else None,
        )


@dataclass(frozen=True)
class Calvin(Tables):
    """CALVIN's own simulator, as the user has installed it; see docs/calvin.md."""

    recorded: str | None = None
    """A data set whose annotated validation windows give the start states, as in DiWA; None: the same as PlayTable."""

    @classmethod
    def of(cls, study: Study, renderer: str | None = None) -> Calvin:
        """The one that a study asks for.

        Raises:
            UserError: a stress switch that needs the embedded table.
        """
        refuse_stress(study)
        return cls(_drawn_by(study.table, renderer or study.table.renderer), study.stress, recorded=study.starts)

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """See `Benchmark.make`."""
        return gym.make(
            envs.CALVIN_ID,
            task=task,
            image_size=self.table.image_size,
            renderer=calvin_renderer(self.table.renderer),
            max_steps=self.table.max_steps,
            scene=self.table.scene,
            render_mode="rgb_array" if film else None,
        )

    def starts(self, task: str) -> Sequence[Start]:
        """See `Benchmark.starts`: first frames of annotated windows, where a data set of them is given."""
        if self.recorded is None:
            return super().starts(task)
        found = validation_starts(self.recorded, [task])
        return [Start(index, start._asdict()) for index, start in enumerate(found)]

    def first_frames(self, task: str, count: int) -> list[Observation]:
        """See `Benchmark.first_frames`."""
        seeds = [SEEDS["dream_starts"] + n for n in range(count)]
        return surviving(lambda: reset_all(self.make(task), seeds))

    def ready(self, folder: Path, tasks: Sequence[str]) -> Calvin:
        """See `Benchmark.ready`."""
        return self

    def generate(self, path: Path, jobs: Sequence[Job], *, data: PlayConfig) -> None:
        """See `Benchmark.generate`."""
        make = partial(
            generate_shard,
            path,
            jobs,
            self.table,
            seed=data.seed,
            config=data,
            source="calvin simulator",
            make=calvin_table,
        )
        surviving(make)


def _drawn_by(table: TableConfig, renderer: str) -> TableConfig:
    """A table with another renderer; what only a simulator of its own has is left to that one."""
    known = ("auto", "egl", "osmesa", "rays")
    if renderer == "tiny":
        return replace(table, renderer="auto")
    if renderer not in known:
        raise unknown("renderer", renderer, known)
    return replace(table, renderer=cast(Renderer, renderer))

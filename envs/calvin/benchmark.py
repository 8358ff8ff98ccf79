"""CALVIN's tasks in CALVIN's own simulator, as the user has installed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym

import envs
from envs.benchmark import Observation, Start, refuse_stress, reset_all, retry_on_crash
from envs.episodes import SEEDS
from envs.tables import Tables, drawn_by, refuse_gym
from worldaction.config import EnvConfig, StressConfig, TableConfig, stress_of_play
from worldaction.errors import UserError

if TYPE_CHECKING:
    from envs.episodes import Job
    from envs.table import Table
    from worldaction.config import PlayConfig


@dataclass(frozen=True)
class Calvin(Tables):
    """CALVIN's own simulator, as the user has installed it; see docs/calvin.md."""

    recorded: str | None = None
    """A data set whose annotated validation windows give the start states, as in DiWA; None: the same as PlayTable."""

    name = "worldaction/Calvin-v0"
    takes_recordings = True

    @classmethod
    def open(cls, config: EnvConfig, *, renderer: str | None = None) -> Calvin:
        """See `Benchmark.open`: all stress switches but these two need the embedded table."""
        refuse_gym(config)
        refuse_stress(replace(config, stress=replace(config.stress, tolerance=0.0, positions=0.0)))
        if config.starts is not None and config.stress.positions:
            raise UserError("--stress.positions draws starts, --starts gives them; leave one out")
        return cls(drawn_by(config.table, renderer or config.table.renderer), config.stress, recorded=config.starts)

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """See `Benchmark.make`."""
        return self._judged(task, self.stress, film=film)

    def _judged(self, task: str, stress: StressConfig, *, film: bool = False) -> gym.Env[Any, Any]:
        from envs.calvin.env import calvin_renderer
        from envs.playtable.stress import stressed

        table = gym.make(
            envs.CALVIN_ID,
            task=task,
            image_size=self.table.image_size,
            renderer=calvin_renderer(self.table.renderer),
            max_steps=self.table.max_steps,
            scene=self.table.scene,
            render_mode="rgb_array" if film else None,
        )
        return stressed(table, stress)

    def starts(self, task: str) -> Sequence[Start]:
        """See `Benchmark.starts`: first frames of annotated windows, where a data set of them is given."""
        if self.recorded is None:
            return super().starts(task)
        from envs.calvin.starts import validation_starts

        found = validation_starts(self.recorded, [task])
        return [Start(index, start._asdict()) for index, start in enumerate(found)]

    def first_frames(self, task: str, count: int) -> list[Observation]:
        """See `Benchmark.first_frames`."""
        seeds = [SEEDS["dream_starts"] + n for n in range(count)]
        playing = stress_of_play(self.stress)
        return retry_on_crash(lambda: reset_all(self._judged(task, playing), seeds))

    def generate(self, path: Path, jobs: Sequence[Job], *, data: PlayConfig) -> None:
        """See `Benchmark.generate`."""
        from envs.calvin.env import calvin_table
        from envs.playtable.generate import generate_shard
        from envs.playtable.stress import stressed

        def harder(config: TableConfig) -> Table:
            table: Any = stressed(calvin_table(config), self.stress, playing=True)
            return cast("Table", table)

        make = partial(
            generate_shard,
            path,
            jobs,
            self.table,
            seed=data.seed,
            config=data,
            source="calvin simulator",
            make=harder,
        )
        retry_on_crash(make)

"""CALVIN's tasks at the embedded play table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

import envs
from envs.benchmark import Observation, refuse_starts, reset_all
from envs.episodes import SEEDS
from envs.tables import Tables, drawn_by, refuse_gym
from worldaction.config import EnvConfig, stress_of_play

if TYPE_CHECKING:
    from envs.episodes import Job
    from worldaction.config import PlayConfig


@dataclass(frozen=True)
class PlayTable(Tables):
    """The embedded play table, with the study's stress switches."""

    name = "worldaction/PlayTable-v0"

    @classmethod
    def open(cls, config: EnvConfig, *, renderer: str | None = None) -> PlayTable:
        """See `Benchmark.open`."""
        refuse_gym(config)
        refuse_starts(config)
        found = cls(config.table, config.stress)
        return found if renderer is None else replace(found, table=drawn_by(config.table, renderer))

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """See `Benchmark.make`."""
        from envs.playtable.stress import stressed

        return stressed(self._bare(task, film=film), self.stress)

    def first_frames(self, task: str, count: int) -> list[Observation]:
        """See `Benchmark.first_frames`."""
        from envs.playtable.stress import stressed

        table = stressed(self._bare(task), stress_of_play(self.stress))
        return reset_all(table, [SEEDS["dream_starts"] + n for n in range(count)])

    def ready(self, folder: Path, tasks: Sequence[str]) -> PlayTable:
        """See `Benchmark.ready`."""
        from envs.drawing import choose

        return replace(self, table=drawn_by(self.table, choose(self.table.renderer)))

    def generate(self, path: Path, jobs: Sequence[Job], *, data: PlayConfig) -> None:
        """See `Benchmark.generate`."""
        from envs.playtable.generate import embedded_table, generate_shard

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

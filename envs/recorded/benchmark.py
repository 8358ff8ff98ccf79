"""Tasks of a recorded data set, of which there is no simulator: a study learns from the recording alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.benchmark import Benchmark, EnvDefaults, Observation, Start, refuse_starts, refuse_stress
from envs.tasks import SENTENCES
from worldaction.config import EnvConfig, RecordedConfig
from worldaction.errors import UserError, unknown
from worldaction.play.action_scaling import scale_to_range
from worldaction.play.attempts import Attempts
from worldaction.play.readers.joined import joined
from worldaction.play.readers.source import Source, open_source

if TYPE_CHECKING:
    from envs.episodes import Job
    from worldaction.config import PlayConfig
    from worldaction.spec import Layout

ROOM = 1.25
"""The time limit, in lengths of the longest successful attempt."""


def attempts_of(
    source: Source, number: int, config: RecordedConfig, *, share: float, layout: Layout | None = None, only: str = ""
) -> Attempts:
    """The attempts of one of several sets.

    How success is known is said of the first; the others say it themselves. These may be few, and those that were held
    out of the first are there already, so no more than their share is held out.

    Args:
        source: the set.
        number: which one it is, from 0.
        config: what the first one means.
        share, layout, only: see `Attempts`.
    """
    if number == 0:
        return Attempts(source, layout=layout, config=config, share=share, only=only)
    told = replace(config, success=RecordedConfig().success)
    return Attempts(source, layout=layout, config=told, share=share, only=only, least=0)


@dataclass(frozen=True)
class Recorded(Benchmark):
    """A recorded set. Dreams begin at its first frames, and no policy is evaluated but in world models."""

    name = "recorded"
    program = "recorded"
    takes_recordings = True
    labels_scenes = False
    simulates = False

    play: str
    config: RecordedConfig
    held_out: float
    more: tuple[str, ...] = ()

    @classmethod
    def open(cls, config: EnvConfig, *, renderer: str | None = None) -> Recorded:
        """See `Benchmark.open`."""
        refuse_starts(config)
        refuse_stress(config)
        if config.play is None:
            raise UserError(f"--env {cls.name} is for recorded data; add --play with a data set")
        return cls(config.play, config.recorded, config.held_out, config.more_play)

    @classmethod
    def defaults(cls, config: EnvConfig, *, chunk: int, asked: Collection[str]) -> EnvDefaults:
        """See `Benchmark.defaults`: all tasks with a success, and time for the longest of them."""
        found = cls.open(config)
        lengths = [s.length for e in found.source.episodes for s in e.segments if s.success and s.task in found.tasks]
        return EnvDefaults(
            tasks=found.tasks,
            max_steps=math.ceil(ROOM * max(lengths) / chunk) * chunk,
            cameras=found.layout.cameras,
            can_film=bool(found.layout.cameras),
        )

    @cached_property
    def source(self) -> Source:
        """The set, or all of them, as their tasks see them. Each holds out attempts of its own."""
        paths = (self.play, *self.more)
        for path in paths:
            if not Path(path).exists():
                raise UserError(f"--play: there is nothing at {path}; give the folder or the file of a data set")
        opened = [open_source(path, names=SENTENCES) for path in paths]
        return joined([attempts_of(s, n, self.config, share=self.held_out) for n, s in enumerate(opened)])

    def __getstate__(self) -> dict[str, Any]:
        # other processes have the play store
        return {name: self.__dict__[name] for name in ("play", "config", "held_out", "more")}

    @property
    def tasks(self) -> tuple[str, ...]:
        """See `Benchmark.tasks`: those that succeed at least once where policies learn, and where jurors do.

        None if there is no such task, and then a world model is all that can be learned.
        """
        shown = {"training": dict[str, None](), "validation": dict[str, None]()}
        for episode in self.source.episodes:
            shown[episode.split] |= dict.fromkeys(s.task for s in episode.segments if s.success)
        return tuple(task for task in shown["training"] if task in shown["validation"])

    @property
    def layout(self) -> Layout:
        """See `Benchmark.layout`."""
        return self.source.layout

    def scaled(self, source: Source) -> Source:
        """See `Benchmark.scaled`: in [-1, 1], if that is asked for."""
        return scale_to_range(source) if self.config.scale == "minmax" else source

    def check(self, task: str) -> None:
        """See `Benchmark.check`."""
        if task not in self.tasks:
            raise unknown(f"task in {self.play}", task, self.tasks)

    def label(self, task: str, scene_obs: ArrayLike, start: ArrayLike) -> NDArray[np.bool_]:
        """No scene is judged: the recording says how its attempts ended, see `worldaction.play.attempts`."""
        return self._refuse()

    def shows(self, task: str, scene: str) -> bool:
        """See `Benchmark.shows`."""
        return False

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """There is none."""
        return self._refuse()

    def starts(self, task: str) -> Sequence[Start]:
        """There are none."""
        return ()

    def first_frames(self, task: str, count: int) -> list[Observation]:
        """They are read from the play store."""
        return self._refuse()

    def jobs(self, data: PlayConfig, tasks: Sequence[str]) -> list[Job]:
        """Nothing is made here."""
        return self._refuse()

    def generate(self, path: Path, jobs: Sequence[Job], *, data: PlayConfig) -> None:
        """Nothing is made here."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(f"{self.play} is a recording and no simulator; give --env for one of the same robot")

"""Any Gymnasium environment with continuous actions, named by its id."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from numpy.typing import ArrayLike, NDArray

import envs  # noqa: F401 - registers the project's own
from envs.benchmark import (
    BENCHMARKS,
    GENERAL,
    START_STATES,
    Benchmark,
    EnvDefaults,
    Observation,
    Start,
    refuse_starts,
    refuse_stress,
    reset_all,
    start_seed,
)
from envs.episodes import SEEDS, Job, plan
from envs.general.standard import Standard, safe_name
from worldaction.config import EnvConfig, GymConfig, PlayConfig, TableConfig
from worldaction.errors import UserError, unknown
from worldaction.extension import bring, load
from worldaction.spec import Layout, Split

if TYPE_CHECKING:
    from envs.general.generate import DemonstratorFactory
    from worldaction.play.readers.source import Source

LEARNED = "sac"
"""The demonstrator that is learned from the environment's own reward."""
LOGGER = logging.getLogger("worldaction")
DONE = 0.5


@dataclass(frozen=True)
class General(Benchmark):
    """An environment and how to look at it. Success is what `info` says, or the study's own judge."""

    name = "gymnasium"
    takes_recordings = True
    labels_scenes = False

    env: str
    config: GymConfig
    table: TableConfig
    experts: Path | None = None
    """Where learned demonstrators are kept."""

    @classmethod
    def open(cls, config: EnvConfig, *, renderer: str | None = None) -> General:
        """See `Benchmark.open`: switches and scenes need a table."""
        # a name that does not exist is the first thing that is wrong
        find(config.env)
        refuse_starts(config)
        refuse_stress(config)
        if config.table.scene != TableConfig().scene:
            raise UserError(f"--table.scene {config.table.scene} is CALVIN's; leave it out with --env {config.env}")
        return cls(config.env, config.gym, config.table)

    @classmethod
    def defaults(cls, config: EnvConfig, *, chunk: int, asked: Collection[str]) -> EnvDefaults:
        """See `Benchmark.defaults`."""
        found = cls.open(config)
        limit = spec_of(found.env).max_episode_steps
        return EnvDefaults(
            tasks=found.tasks,
            max_steps=max(chunk, limit // chunk * chunk) if limit else None,
            cameras=found.layout.cameras if "--world-model.cameras" not in asked else (),
            can_film="--evaluation.videos" in asked or found.can_film(),
        )

    @cached_property
    def layout(self) -> Layout:
        """See `Benchmark.layout`."""
        env = self._standard(self.tasks[0])
        env.close()
        return env.layout

    @property
    def tasks(self) -> tuple[str, ...]:
        """The environment's own, if its class has `tasks`; else one, named after it."""
        return tasks_of(self.env)

    def check(self, task: str) -> None:
        """See `Benchmark.check`: an environment may know more tasks than it lists."""
        if not hasattr(find(self.env), "tasks") and task not in self.tasks:
            raise unknown("task", task, self.tasks)
        if not task or task.startswith(".") or "/" in task:
            raise UserError(f"task {task!r} cannot be the name of a folder; name it otherwise")
        self._standard(task).close()

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """See `Benchmark.make`."""
        return self._standard(task, film=film, max_steps=self.table.max_steps)

    def label(self, task: str, scene_obs: ArrayLike, start: ArrayLike) -> NDArray[np.bool_]:
        """See `Benchmark.label`: the success that was seen in a step, [..., 1], whatever the start."""
        return np.asarray(scene_obs)[..., 0] > DONE

    def shows(self, task: str, scene: str) -> bool:
        """See `Benchmark.shows`: an environment judges its own task alone."""
        return scene == task

    def starts(self, task: str) -> Sequence[Start]:
        """See `Benchmark.starts`."""
        number = list(self.tasks).index(task) if task in self.tasks else 0
        return [Start(start_seed(index, number)) for index in range(START_STATES)]

    def first_frames(self, task: str, count: int) -> list[Observation]:
        """See `Benchmark.first_frames`."""
        return reset_all(self.make(task), [SEEDS["dream_starts"] + n for n in range(count)])

    def jobs(self, data: PlayConfig, tasks: Sequence[str]) -> list[Job]:
        """See `Benchmark.jobs`: play is made at every task, in equal parts."""
        if not self._expert:
            raise UserError(
                f"nobody demonstrates {self.env}, and a policy begins as a clone: give --gym.expert module:Class, "
                "or --gym.expert sac to learn one from the environment's reward"
            )
        if self._expert != LEARNED:
            load(self._expert, "--gym.expert")
        jobs = plan(data, tasks)
        # in turns, for training and for validation each
        turns = {split: cycle(tasks) for split in get_args(Split)}
        shared = [replace(job, task=job.task or next(turns[job.split])) for job in jobs]
        return sorted(shared, key=lambda job: tasks.index(job.task))

    def scaled(self, source: Source) -> Source:
        """See `Benchmark.scaled`: actions that the environment takes become those that a policy gives it."""
        from worldaction.play.action_scaling import Scaled
        from worldaction.play.readers.store import StoreSource

        if isinstance(source, StoreSource) and "format" not in source.origin.config:
            # made here and not converted, so its actions are those of policies
            return source
        env = self._standard(self.tasks[0])
        env.close()
        low, high = env.bounds
        return source if (low == -1).all() and (high == 1).all() else Scaled(source, low, high)

    def ready(self, folder: Path, tasks: Sequence[str]) -> General:
        """See `Benchmark.ready`: what a demonstrator has to learn, it learns here."""
        if self._expert != LEARNED:
            return self
        for task in tasks:
            path = folder / f"{task}.expert.safetensors"
            if not path.exists():
                LOGGER.info("a demonstrator of %s learns for %d steps", task, self.config.expert_steps)
                from envs.general.sac import learn

                learn(partial(self._standard, task), self.config.expert_steps, path)
        return replace(self, experts=folder)

    def generate(self, path: Path, jobs: Sequence[Job], *, data: PlayConfig) -> None:
        """See `Benchmark.generate`: the jobs of one task."""
        from envs.general.generate import generate

        (task,) = {job.task for job in jobs}
        generate(
            path, jobs, partial(self._standard, task), self._demonstrator(task), table=self.table, data=data, scene=task
        )

    def can_film(self) -> bool:
        """Whether it can be filmed here."""
        env = self._standard(self.tasks[0], film=True)
        try:
            env.reset(seed=0)
            env.picture()
        except UserError:
            return False
        finally:
            env.close()
        return True

    # ---- who demonstrates

    @property
    def _expert(self) -> str:
        """What is asked for, else what the environment's class offers."""
        return self.config.expert or str(getattr(find(self.env), "demonstrator", ""))

    def _demonstrator(self, task: str) -> DemonstratorFactory:
        if self.experts is not None:
            from envs.general.sac import recall

            return recall(partial(self._standard, task), self.experts / f"{task}.expert.safetensors")
        found: DemonstratorFactory = load(self._expert, "--gym.expert")
        return found

    # ---- the environment

    def _standard(self, task: str, *, film: bool = False, max_steps: int | None = None) -> Standard:
        maker, rendered = find(self.env), self.config.camera == "render"
        options: dict[str, Any] = {"task": task} if hasattr(maker, "tasks") else {}
        if "pixels" in inspect.signature(maker).parameters:
            options["pixels"] = rendered
        if (film or rendered) and "rgb_array" in getattr(maker, "metadata", {}).get("render_modes", ()):
            options["render_mode"] = "rgb_array"
        try:
            env = gym.make(self.env, **options)
        except UserError:
            raise
        except Exception as error:
            # of others' code: whatever it raises, this environment cannot be had
            said = f"{type(error).__name__}: {error}" if str(error) else f"{type(error).__name__} without a message"
            raise UserError(f"--env {self.env} cannot be made ({said}); try gymnasium.make on its own") from error
        return Standard(env, self.config, image_size=self.table.image_size, max_steps=max_steps)


def find(name: str) -> Any:
    """What makes an environment: its class, or a function.

    Raises:
        UserError: there is none of that name.
    """
    try:
        spec = spec_of(name)
        return load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    except (gym.error.Error, ImportError, AttributeError) as error:
        if near := _near(name):
            raise UserError(f"unknown environment {name!r}; did you mean {near!r}?") from error
        raise UserError(
            f"--env {name}: {error}; give the id of an environment that is registered with Gymnasium, "
            "as module:ID if a module has to be imported first"
        ) from error


def _near(name: str) -> str:
    """The id that a name was meant for, if it resembles one, with its namespace and version or without; else empty."""
    plain = {one.rpartition("/")[2].lower(): one for one in [*gym.registry, *BENCHMARKS.available()] if one != GENERAL}
    found = difflib.get_close_matches(name.rpartition("/")[2].lower(), plain, n=1, cutoff=0.7)
    return plain[found[0]] if found and ":" not in name else ""


def spec_of(name: str) -> EnvSpec:
    """The registration of an id, after the import of the module before its colon."""
    module, _, registered = name.rpartition(":")
    if module:
        brought = getattr(bring(module, f"--env {name}"), registered, None)
        # a class is as good as an id
        if isinstance(brought, type) and issubclass(brought, gym.Env):
            _register_class(registered, f"{module}:{registered}", getattr(brought, "max_episode_steps", None))
    return gym.spec(registered)


def _register_class(name: str, entry_point: str, max_steps: int | None) -> None:
    """Give a class an id, in the place of a class of that name from elsewhere."""
    if name in gym.registry and gym.registry[name].entry_point == entry_point:
        return
    gym.registry.pop(name, None)
    gym.register(name, entry_point=entry_point, max_episode_steps=max_steps)


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of an environment: of its class attribute `tasks`, or one that is named after it."""
    own = getattr(find(name), "tasks", None)
    return tuple(own) if own else (safe_name(name.rpartition("/")[2].rpartition(":")[2]),)

"""What a study asks of the place where its agents live: tasks, simulator, play data, and how success is judged.

A new one is one new file: ``envs/<name>/benchmark.py``, an entry point in the group ``envs``, or ``module:Class``. Any
other Gymnasium environment is one already, by `envs.general.benchmark.General`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, Self, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.calvin.client import SimulatorCrashed
from envs.episodes import RECORDED_SEEDS, SEEDS
from worldaction.config import EnvConfig, GymConfig, StressConfig, TableConfig, check_ranges, switched_on
from worldaction.errors import UserError, unknown
from worldaction.extension import Family, bring
from worldaction.registration import ENVIRONMENTS

if TYPE_CHECKING:
    from envs.episodes import Job
    from worldaction.config import PlayConfig
    from worldaction.play.readers.source import Source
    from worldaction.spec import Layout

LOGGER = logging.getLogger("worldaction")
Observation = dict[str, np.ndarray]
Result = TypeVar("Result")
CRASHES: Final = 3
"""So often a simulator may fail to survive the same work."""
START_STATES: Final = 1_000
"""Start states per task in a fixed list of seeds."""
GENERAL: Final = "gymnasium"
"""The benchmark of environments that have none of their own."""
BENCHMARKS: Final = Family(
    "environment", "--env", "envs", "envs.benchmark:Benchmark", "worldaction/PlayTable-v0", files="*/benchmark.py"
)


class EnvDefaults(NamedTuple):
    """What suits an environment where the user said nothing."""

    tasks: tuple[str, ...]
    max_steps: int | None
    """Its own time limit, a multiple of the chunk."""
    cameras: tuple[str, ...]
    can_film: bool
    """Whether it can be filmed here."""


class Start(NamedTuple):
    """What an episode begins from: arguments of `reset`."""

    seed: int
    options: dict[str, Any] | None = None


class Benchmark(ABC):
    """Tasks in a simulator. It travels to other processes, so it holds settings and no simulator."""

    name: ClassVar[str]
    """What `--env` calls it."""
    program: ClassVar[str] = "train"
    """The folder below runs/ for its studies."""
    needs_cameras: ClassVar[bool] = False
    """Whether nothing can be learned here without pictures."""
    knows_itself: ClassVar[bool] = False
    """Whether tasks, start states and jobs can be looked up without a simulator, when a command line is read."""
    limits_play: ClassVar[bool] = True
    """Whether the time limit ends what is recorded, too, and so is a part of what made it."""
    takes_stress: ClassVar[bool] = False
    """Whether there are stress switches."""
    takes_recordings: ClassVar[bool] = False
    """Whether policies can be learned from play that was recorded elsewhere."""
    labels_scenes: ClassVar[bool] = True
    """Whether the scene of a recorded frame says if a task is done; else the recording itself has to."""
    simulates: ClassVar[bool] = True
    """Whether policies can be evaluated here; else other world models judge them."""

    @classmethod
    @abstractmethod
    def open(cls, config: EnvConfig, *, renderer: str | None = None) -> Self:
        """The one that a study asks for.

        Args:
            config: the settings.
            renderer: what drew the play data, if it is known: the evaluation must be drawn alike.

        Raises:
            UserError: it cannot do what the study asks.
        """

    @classmethod
    def defaults(cls, config: EnvConfig, *, chunk: int, asked: Collection[str]) -> EnvDefaults | None:
        """What suits this environment, for settings that were made for another; None if it needs no fitting.

        Args:
            config: the settings.
            chunk: actions of a decision.
            asked: the options that the user gave, such as "--tasks".
        """
        return None

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """All of them."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """What a frame holds."""

    @abstractmethod
    def check(self, task: str) -> None:
        """Refuse a task that does not exist.

        Raises:
            UserError: says which there are.
        """

    @classmethod
    def labels_recordings(cls, task: str) -> bool:
        """Whether frames of play that was recorded elsewhere say if the task is done in them."""
        return True

    @abstractmethod
    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """A simulator as it is used to test policies: observations with the keys of the layout, `info["is_success"]`.

        Args:
            task: what is to be done.
            film: whether `render` is to give pictures for people.
        """

    @abstractmethod
    def label(self, task: str, scene_obs: ArrayLike, start: ArrayLike) -> NDArray[np.bool_]:
        """Whether a task is done in scenes, as the simulator says of episodes that began in `start`.

        Args:
            task: the task.
            scene_obs: [..., P'] the scenes.
            start: [..., P'] where the episodes of these scenes began, broadcast against them. Where the simulator
                judges every step by itself, it is not looked at.

        Returns:
            [...] bool. What was done already at the start cannot be done any more.
        """

    def possible(self, task: str, scene_obs: ArrayLike) -> NDArray[np.bool_]:
        """Whether a task can be done from scenes [..., P'] on: play from elsewhere says nothing of it. [...] bool."""
        return np.ones(np.shape(scene_obs)[:-1], dtype=np.bool_)

    @abstractmethod
    def shows(self, task: str, scene: str) -> bool:
        """Whether frames of a scene can show that a task is done, or not done; `label` says nothing of others."""

    @abstractmethod
    def starts(self, task: str) -> Sequence[Start]:
        """The fixed list of start states of evaluations."""

    @abstractmethod
    def first_frames(self, task: str, count: int) -> list[Observation]:
        """What is seen in so many start states, from which dreams begin: none of those that are evaluated."""

    @abstractmethod
    def jobs(self, data: PlayConfig, tasks: Sequence[str]) -> list[Job]:
        """The play data and demonstrations of a study.

        Raises:
            UserError: they cannot be made here; says what the user can do.
        """

    def scaled(self, source: Source) -> Source:
        """A recorded set of the same robot, its actions in [-1, 1] as they are here."""
        return source

    def ready(self, folder: Path, tasks: Sequence[str]) -> Self:
        """Itself with all done that has to be done once, before processes share the work.

        Args:
            folder: where something may be kept for them.
            tasks: those of the study.
        """
        return self

    @abstractmethod
    def generate(self, path: Path, jobs: Sequence[Job], *, data: PlayConfig) -> None:
        """Make a play store of some of the jobs."""


def benchmark_class(env: str) -> type[Benchmark]:
    """The benchmark that `--env` names; any Gymnasium environment that has none of its own is a `General`."""
    found: type[Benchmark] = _brought(env) or BENCHMARKS.find(env if env in BENCHMARKS.available() else GENERAL)
    return found


def _brought(env: str) -> type[Benchmark] | None:
    """The benchmark of `module:Class`, where that is one and no environment's id."""
    module, colon, cls = env.partition(":")
    if not (module and colon) or "/" in cls:
        return None
    found = getattr(bring(module, f"--env {env}"), cls, None)
    return found if isinstance(found, type) and issubclass(found, Benchmark) else None


def open_benchmark(config: EnvConfig, *, renderer: str | None = None) -> Benchmark:
    """The benchmark of a study.

    Args:
        config: the settings.
        renderer: as for `Benchmark.open`.

    Raises:
        UserError: there is no such environment, or it cannot do what the study asks.
    """
    return benchmark_class(config.env).open(config, renderer=renderer)


class Evaluated(Protocol):
    """A policy that knows where it was evaluated, such as `agents.policy.Policy`."""

    @property
    def task(self) -> str:
        """What it does."""
        ...

    @property
    def env(self) -> Mapping[str, Any] | None:
        """Plain values of `EnvConfig`; None of a policy that was saved before they were kept."""
        ...


def env_of(policy: Evaluated, *, env: str | None = None, film: bool = False, **changes: Any) -> gym.Env[Any, Any]:
    """The environment in which a study evaluated a policy: its pictures, time limit, success and stress switches.

    It takes the policy's actions, in whatever units they are.

    Args:
        policy: as it was loaded, or anything with its `task` and `env`.
        env: see `benchmark_of`.
        film: whether `render` is to give pictures for people.
        changes: see `benchmark_of`.

    Raises:
        UserError: as `benchmark_of`.
    """
    made = benchmark_of(policy, env=env, **changes).make(policy.task, film=film)
    scaled = getattr(getattr(policy, "interface", None), "scale", None) is not None
    if not (scaled and made.has_wrapper_attr("to_unit")):
        return made
    from envs.general.standard import OwnRange

    return OwnRange(made)


def benchmark_of(policy: Evaluated, *, env: str | None = None, **changes: Any) -> Benchmark:
    """The benchmark of which a policy's environment is one.

    Args:
        policy: as it was loaded, or anything with its `env`.
        env: the environment, as `--env` names it; has to be given where it is none of this project's, because nothing
            is imported that a file names.
        changes: options of `TableConfig`, `GymConfig` and `StressConfig` that are to be others, such as
            ``tolerance=0.0`` and ``max_steps=72`` for the papers' protocol.

    Raises:
        UserError: the policy does not say where it was evaluated, or an option does not exist or has to be given.
    """
    if policy.env is None:
        raise UserError(
            "this policy does not say where it was evaluated: it has learned from a recording, which has no simulator,"
            " or was saved before policies said so; step it in an environment of your own, or on the robot"
        )
    named, success = str(policy.env["env"]), policy.env["gym"].get("success")
    why = "which is not imported because a file names it"
    if env is None and named not in ENVIRONMENTS:
        raise UserError(f"the policy was evaluated in {named}, {why}; give env=")
    if success and "success" not in changes:
        raise UserError(f"its success is judged by {success}, {why}; give success=")
    sections: dict[str, Any] = {"table": TableConfig, "gym": GymConfig, "stress": StressConfig}
    # who demonstrates, and which recorded set starts were read from, is nothing that an environment needs
    kept = {name: dict(policy.env[name]) for name in sections}
    kept["gym"].pop("expert", None)
    for option, value in changes.items():
        kept[_section_of(option, sections)][option] = value
    config = EnvConfig(env or named, **{name: _built(kind, kept[name]) for name, kind in sections.items()})
    check_ranges(config)
    return open_benchmark(config)


def _section_of(option: str, sections: Mapping[str, Any]) -> str:
    """The section of the settings that has an option."""
    names = {field.name: name for name, kind in sections.items() for field in fields(kind)}
    if option not in names:
        raise unknown("option of an environment", option, names)
    return names[option]


def _built(kind: Any, values: Mapping[str, Any]) -> Any:
    """A section of the settings from plain values."""
    if strange := [name for name in values if name not in {field.name for field in fields(kind)}]:
        raise UserError(
            f"this version knows no setting {strange[0]!r} of an environment; use the one that saved the policy"
        )
    return kind(**values)


def start_seed(index: int, task: int = 0) -> int:
    """Seed of a start state of the fixed list.

    Args:
        index: its place in the list.
        task: number of the task, where each has a list of its own.
    """
    return SEEDS["evaluation"] + START_STATES * task + index


def recorded_start(index: int) -> Start:
    """A start state of episodes of policies that are recorded to be learned from: one of no other use.

    Args:
        index: its number, from 0.
    """
    return Start(RECORDED_SEEDS + index)


def retry_on_crash(work: Callable[[], Result]) -> Result:
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


def refuse_stress(config: EnvConfig) -> None:
    """Refuse switches that only the play table has; what is hidden is hidden in any data.

    Raises:
        UserError: names the switch.
    """
    if on := switched_on(replace(config.stress, hidden_actions=0.0)):
        option = next(iter(on)).replace("_", "-")
        off = getattr(StressConfig(), next(iter(on)))
        remedy = "leave it out" if isinstance(off, bool) else f"set it to {off:g}"
        raise UserError(f"--stress.{option} works at the embedded play table only; {remedy}, or leave out {config.env}")


def refuse_starts(config: EnvConfig) -> None:
    """Refuse recorded start states, which only CALVIN's simulator can be set to.

    Raises:
        UserError: some were given.
    """
    if config.starts is not None:
        from envs import CALVIN_ID

        raise UserError(f"--starts {config.starts} are states of CALVIN's simulator; add --env {CALVIN_ID}")


def reset_all(env: gym.Env[Any, Any], seeds: Sequence[int]) -> list[Observation]:
    """First observations of so many episodes; the environment is closed."""
    try:
        return [env.reset(seed=seed)[0] for seed in seeds]
    finally:
        env.close()

"""What a study asks of an environment, checked: `worldaction check env`.

Whatever `--env` takes can be checked: a Gymnasium id, ``module:Class`` of a `gymnasium.Env` or of a `Benchmark`.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from envs.benchmark import Benchmark, Start, benchmark_class, open_benchmark
from envs.general.benchmark import General, spec_of
from worldaction.config import EnvConfig, GymConfig, PlayConfig, TableConfig
from worldaction.errors import UserError
from worldaction.spec import ACTION

STEPS: Final = 20
"""Random steps of a trial episode."""
SEED: Final = 0
"""Of the random actions."""


@dataclass(frozen=True)
class Trial:
    """An environment, as a study opens it, and one of its tasks."""

    benchmark: Benchmark
    task: str
    start: Start
    other: Start

    def make(self) -> gym.Env[Any, Any]:
        """A simulator."""
        return self.benchmark.make(self.task)


def open_trial(env: str, config: GymConfig) -> Trial:
    """Open an environment and its first task.

    Args:
        env: as for `--env`.
        config: as for `--gym.*`, such as who demonstrates.

    Raises:
        UserError: it cannot be had.
    """
    asked = EnvConfig(env=env, gym=config)
    if chosen := benchmark_class(env).defaults(asked, chunk=1, asked=()):
        asked = replace(asked, table=TableConfig(max_steps=chosen.max_steps or TableConfig().max_steps))
    benchmark = open_benchmark(asked)
    task = benchmark.tasks[0]
    benchmark.check(task)
    first, second, *_ = benchmark.starts(task)
    return Trial(benchmark, task, first, second)


@dataclass(frozen=True)
class Episode:
    """A short episode of random actions."""

    observations: list[dict[str, np.ndarray]]
    infos: list[dict[str, Any]]


def episode(env: gym.Env[Any, Any], start: Start) -> Episode:
    """Random actions, the same ones each time, from a start; it may end early."""
    rng = np.random.default_rng(SEED)
    observation, info = env.reset(seed=start.seed, options=start.options)
    seen, infos = [observation], [info]
    for _ in range(STEPS):
        assert env.action_space.shape is not None
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, _, terminated, truncated, info = env.step(action)
        seen.append(observation)
        infos.append(info)
        if terminated or truncated:
            break
    return Episode(seen, infos)


# The checks: each gives what is wrong, and may raise whatever the environment raises --------------------------------


def check_gymnasium(one: Trial) -> list[str]:
    """Gymnasium's own checker has nothing against it."""
    with closing(one.make()) as env, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env.unwrapped, skip_render_check=True)
    return []


def check_success(one: Trial) -> list[str]:
    """Every step says whether the task is done, and no episode begins with success."""
    with closing(one.make()) as env:
        infos = episode(env, one.start).infos
    found = [] if all("is_success" in info for info in infos) else ["info lacks is_success"]
    if infos[0].get("is_success"):
        found.append("the task is done at the start, so there is nothing to learn")
    return found


def check_spaces(one: Trial) -> list[str]:
    """Every observation lies in the space that was promised, and holds what the layout says."""
    with closing(one.make()) as env:
        seen, space = episode(env, one.start).observations, env.observation_space
    layout = one.benchmark.layout
    missing = {*layout.cameras, *layout.vectors} - {ACTION, *seen[0]}
    found = [f"{sorted(missing)} of the layout is not observed"] if missing else []
    if not all(space.contains(observation) for observation in seen):
        found.append("an observation is not in observation_space; mind its dtype, its shape and its bounds")
    return found


def check_starts(one: Trial) -> list[str]:
    """A start is a function of its seed: equal for the same one, different for another."""
    with closing(one.make()) as env:
        first, other, again = (episode(env, start).observations[0] for start in (one.start, one.other, one.start))
    found = [] if _equal(first, again) else ["one seed gave two starts; draw from self.np_random in reset"]
    if _equal(first, other):
        found.append("two seeds gave the same start; call super().reset(seed=seed), and draw from self.np_random")
    return found


def check_repeats(one: Trial) -> list[str]:
    """The same actions from the same start lead to the same observations, in another copy as well."""
    episodes = []
    for _ in range(2):
        with closing(one.make()) as env:
            episodes.append(episode(env, one.start).observations)
    same = len(episodes[0]) == len(episodes[1]) and all(map(_equal, *episodes))
    return [] if same else ["two copies went different ways; keep no state outside of the object"]


def check_time_limit(one: Trial) -> list[str]:
    """It has a time limit."""
    if not isinstance(one.benchmark, General) or spec_of(one.benchmark.env).max_episode_steps:
        return []
    return ["there is none; give its class max_episode_steps, or give gymnasium.register one"]


def check_demonstrator(one: Trial) -> list[str]:
    """Somebody demonstrates the task, and succeeds."""
    data = PlayConfig(frames=1, episode_frames=1, near_misses=0, demos=1)
    with tempfile.TemporaryDirectory() as folder:
        ready = one.benchmark.ready(Path(folder), [one.task])
        jobs = [job for job in ready.jobs(data, [one.task]) if job.kind == "demo"]
        # refuses where no attempt succeeds
        ready.generate(Path(folder) / "store", jobs, data=data)
    return []


CHECKS: Final[tuple[Callable[[Trial], list[str]], ...]] = (
    check_gymnasium,
    check_success,
    check_spaces,
    check_starts,
    check_repeats,
    check_time_limit,
    check_demonstrator,
)


def examine(env: str, config: GymConfig | None = None) -> Iterator[tuple[str, list[str]]]:
    """Every check in its turn: what it demands, in words, and what is wrong, one sentence each.

    Where the environment cannot be had, or does not say what success is, the others are not tried.

    Args:
        env: as for `--env`.
        config: as for `--gym.*`.
    """
    demand = "It can be made: actions are a bounded Box, observations are pictures and numbers."
    try:
        one = open_trial(env, config or GymConfig())
    except UserError as error:
        yield demand, [f"made: {error}"]
        return
    yield demand, []
    for check_one in CHECKS:
        found = _found(check_one, one)
        yield (check_one.__doc__ or "").partition("\n")[0], found
        if found and check_one is check_success:
            return


def check(env: str, config: GymConfig | None = None) -> list[str]:
    """What is wrong with an environment, one sentence each; see `examine`."""
    return [sentence for _, found in examine(env, config) for sentence in found]


def _found(check_one: Callable[[Trial], list[str]], one: Trial) -> list[str]:
    """What a check found; what the environment raises is a finding as well."""
    name = check_one.__name__.removeprefix("check_").replace("_", " ")
    try:
        with _naming_exceptions():
            return [f"{name}: {sentence}" for sentence in check_one(one)]
    except UserError as error:
        return [f"{name}: {error}"]


@contextmanager
def _naming_exceptions() -> Iterator[None]:
    """Whatever others' code raises becomes one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)

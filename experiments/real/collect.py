"""Policy --> play store: its episodes in its own environment, as attempts of which it is known how they ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import gymnasium as gym
import numpy as np

from agents.policy import Policy
from envs.benchmark import Benchmark, Observation, Start, recorded_start
from envs.episodes import Arrays, Recorder
from envs.tables import Tables
from envs.tasks import TASKS
from experiments.stages.rollout import WIDTH, evaluate
from worldaction.config import digest
from worldaction.errors import UserError
from worldaction.interface import ActionScale, as_config
from worldaction.io.atomic import plain
from worldaction.play.layout import Segment, StoreMeta
from worldaction.play.store import PlayStore, StoreWriter
from worldaction.play.writers.store import begun_as
from worldaction.spec import ACTION

TAIL: Final = 4
"""Frames that follow the first one in which the task is done, where the environment lets them."""


class Collected(NamedTuple):
    """What was recorded."""

    episodes: int
    successes: int
    steps: int
    """Control steps of the simulator or the robot."""


def collect(
    policy: Policy,
    benchmark: Benchmark,
    path: Path,
    *,
    numbers: range,
    parallel: int = WIDTH,
    about: dict[str, Any] | None = None,
    like: StoreMeta | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Collected:
    """Record episodes of a policy; a recording that is killed goes on from the last ones that ended, to any number.

    Every episode is a near miss: an attempt that may have succeeded. It is recorded until the environment or its time
    limit ends it; a success goes on for `TAIL` frames, which show it.

    Args:
        policy: acts on its own task.
        benchmark: where.
        path: of the play store to create.
        numbers: of the start states; see `experiments.real.starts`.
        parallel: simulators stepped side by side, which changes nothing.
        about: what the store is to say of who made it; what somebody else has begun is then refused, not overwritten.
        like: of a store that it is to be joined with, of whose keys it has no others; by default it has all that is
            observed.
        progress: called with the number of episodes that are done.

    Raises:
        UserError: the store exists, or cannot be written; something else was begun there, or more episodes.
    """
    arena = _Arena(benchmark, numbers, policy.interface.scale)
    drawn_by, scene = _drawn(benchmark, policy.task)
    config = {"policy": about or {}, "env": dict(policy.env or {}), "starts": [_seed(n) for n in numbers]}
    own = policy.model.config.layout
    # null action and gripper are the policy's, which may act in units of its own
    layout = like.layout if like else replace(own, cameras=benchmark.layout.cameras, scene=benchmark.layout.scene)
    name = _name(policy, benchmark, drawn_by, about, numbers.start)
    # the folder of a run's stage is nobody else's, and what is damaged there is made again
    if about is not None and begun_as(path) not in (None, name):
        raise UserError(
            f"{path}.partial is of another policy, environment or --seed; repeat the command that began it,"
            " give another --to, or delete it"
        )
    writer = StoreWriter(
        path,
        image_size=policy.model.config.image_size,
        source=like.source if like else policy.interface.source or benchmark.name,
        renderer=like.renderer if like else drawn_by,
        seed=policy.seed,
        config=config | as_config(policy.interface),
        layout=layout,
        resume=name,
    )
    left = iter(numbers[writer.whole :])

    def write(count: int) -> None:
        for number in islice(left, count):
            arrays, success = arena.taken(number)
            kept = {key: arrays[key] for key in (*layout.cameras, *layout.vectors)}
            _write(writer, policy.task, kept, success, scene=scene)
        writer.checkpoint()
        progress(count)

    with writer:
        if writer.whole > len(numbers):
            raise UserError(
                f"{path}.partial has {writer.whole} episodes already; give --episodes {writer.whole} or more"
            )
        progress(writer.whole)
        # an episode is a function of its number, so what was recorded before is as it would be now
        if rest := numbers[writer.whole :]:
            evaluate(policy, arena, indices=rest, parallel=parallel, progress=write)
    return collected(PlayStore.open(path))


def _name(policy: Policy, benchmark: Benchmark, drawn_by: str, about: dict[str, Any] | None, first: int) -> str:
    """A name for all that decides what episodes are like, but how many: equal names go on with each other's."""
    acts = [about, policy.task, policy.seed, policy.sampler, policy.env, as_config(policy.interface)]
    # a plug-in may keep its settings as it likes
    where: Any = benchmark if is_dataclass(type(benchmark)) else None
    return digest(plain([*acts, benchmark.name, where, drawn_by, first]))


def collected(store: PlayStore) -> Collected:
    """What a store of recorded episodes holds."""
    return Collected(len(store.episodes), sum(s.success is True for s in store.segments), len(store))


def _write(writer: StoreWriter, task: str, arrays: Arrays, success: bool, *, scene: str) -> None:
    sentence = TASKS[task].description if task in TASKS else ""
    segment = Segment(task, 0, len(arrays[ACTION]), success, sentence)
    writer.add_episode(arrays, kind="near_miss", segments=[segment], scene=scene)


def _drawn(benchmark: Benchmark, task: str) -> tuple[str, str]:
    """What draws a benchmark's pictures, and which of its scenes it is."""
    with closing(benchmark.make(task)) as env:
        if isinstance(benchmark, Tables):
            return env.get_wrapper_attr("renderer"), env.get_wrapper_attr("scene").name
        return env.get_wrapper_attr("name"), task


def _seed(number: int) -> int:
    return recorded_start(number).seed


class _Arena:
    """A benchmark whose episodes are recorded; see `experiments.stages.rollout.Arena`."""

    def __init__(self, benchmark: Benchmark, numbers: range, scale: ActionScale | None) -> None:
        self._benchmark, self._numbers, self._scale = benchmark, numbers, scale
        self._done: dict[int, tuple[Arrays, bool]] = {}

    def starts(self, task: str) -> Mapping[int, Start]:
        """Those that are asked for."""
        return {number: recorded_start(number) for number in self._numbers}

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """A simulator that keeps what happens in it."""
        return Keeping(self._benchmark.make(task, film=film), self._keep, scale=self._scale)

    def _keep(self, seed: int, arrays: Arrays, success: bool) -> None:
        self._done[seed] = arrays, success

    def taken(self, number: int) -> tuple[Arrays, bool]:
        """What was recorded from a start state, and whether it succeeded; it is kept no longer."""
        return self._done.pop(_seed(number))


class Keeping(gym.Wrapper[Observation, Any, Observation, Any]):
    """An environment that keeps every episode, and lets a success go on for `TAIL` frames.

    Args:
        env: the environment.
        keep: called at the end of an episode with its seed, its arrays [T, ...] and whether the task was done.
        scale: of the policy, whose actions are kept in [-1, 1] as it gives them; None if the environment's are these.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        keep: Callable[[int, Arrays, bool], None],
        *,
        scale: ActionScale | None = None,
    ) -> None:
        super().__init__(env)
        self._keep, self._scale = keep, scale

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """See `gymnasium.Env.reset`; an episode is known by its seed."""
        assert seed is not None
        observation, info = self.env.reset(seed=seed, options=options)
        self._seed, self._recorder = seed, Recorder(self.env, observation)
        return observation, info

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`; what was done once stays done."""
        recorder = self._recorder
        recorder.step(action)
        done = recorder.first_success is not None
        over = recorder.ended(limit=len(recorder) if recorder.late else len(recorder) + 1, tail=TAIL)
        if over:
            arrays = recorder.arrays()
            self._keep(self._seed, arrays | {ACTION: self._as_given(arrays[ACTION])}, done)
        return dict(recorder.observation), float(done), over and done, over and not done, {"is_success": done}

    def _as_given(self, actions: np.ndarray) -> np.ndarray:
        """Actions [T, A] of the environment as the policy gave them."""
        if self._scale is None:
            return actions
        own = self.env.get_wrapper_attr("from_unit")(actions) if self.env.has_wrapper_attr("from_unit") else actions
        return self._scale.to_unit(own)

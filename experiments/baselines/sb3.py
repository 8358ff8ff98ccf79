"""What the baselines of Stable-Baselines3 share: the simulator as it likes it, figures for plots, and its policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from agents.observation_encoder import ObservationConfig, ObservationEncoder
from experiments.baselines.base import Greedy, Learned, Record, start_seeds
from experiments.stages.task_run import TaskRun
from worldaction.errors import UserError
from worldaction.kernels.dream.reference import executed
from worldaction.spec import ROBOT, SCENE

EPISODES: Final = 100
"""At least so many are behind a point of a plot."""


class Numbers(gym.Wrapper[NDArray[np.float32], Any, Any, Any]):
    """A simulator whose observation is what an encoder makes of it, begun at the start states of learning.

    Args:
        env: a simulator of a benchmark.
        encoder: without cameras.
        task_run: says which start states.
        rng: draws them.
    """

    def __init__(
        self, env: gym.Env[Any, Any], encoder: ObservationEncoder, task_run: TaskRun, rng: np.random.Generator
    ) -> None:
        super().__init__(env)
        self.encoder, self.task_run, self.rng = encoder, task_run, rng
        self.observation_space = Box(-np.inf, np.inf, (encoder.feature_size,), np.float32)

    def reset(self, **_: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A new episode; its start is drawn here, whatever is asked for."""
        (seed,) = start_seeds(self.task_run, 1, self.rng)
        observation, info = self.env.reset(seed=seed)
        return self._numbers(observation), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], Any, bool, bool, dict[str, Any]]:
        """As the simulator's; the reward is 1 for success and 0 otherwise."""
        observation, _, terminated, truncated, info = self.env.step(action)
        return self._numbers(observation), float(info["is_success"]), terminated, truncated, info

    def _numbers(self, observation: Any) -> NDArray[np.float32]:
        seen = {key: torch.from_numpy(observation[key]) for key in self.encoder.seen}
        numbers: NDArray[np.float32] = self.encoder.embed(seen).numpy()
        return numbers


def state_encoder(task_run: TaskRun) -> ObservationEncoder:
    """The whole state as numbers, privileged ones too, in the scale that they have in the run's play."""
    layout = task_run.store.meta.layout
    vectors = tuple(key for key in (ROBOT, SCENE) if key in layout.vectors)
    if not vectors:
        raise UserError(
            f"{task_run.store.path} holds no state; a baseline on states cannot learn, leave it out of --methods"
        )
    encoder = ObservationEncoder(ObservationConfig(layout, vectors=vectors)).requires_grad_(False)
    encoder.standardise({key: task_run.store.frames[key][:] for key in vectors})
    return encoder


@contextmanager
def simulators(task_run: TaskRun, encoder: ObservationEncoder, count: int) -> Iterator[Any]:
    """A VecEnv of simulators on numbers, closed in the end."""
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    def make(number: int) -> gym.Env[Any, Any]:
        rng = np.random.default_rng([task_run.seed, number])
        return Monitor(Numbers(task_run.benchmark.make(task_run.task), encoder, task_run, rng))

    tables = DummyVecEnv([partial(make, number) for number in range(count)])
    try:
        yield tables
    finally:
        tables.close()


class Watch(BaseCallback):
    """Keeps the success of episodes, as they explored.

    Args:
        record: what keeps it.
        kind: of the steps: real or imagined.
    """

    def __init__(self, record: Record, kind: str) -> None:
        super().__init__()
        self.record, self.kind = record, kind
        self.ended: list[bool] = []

    def _on_step(self) -> bool:
        infos, dones = self.locals["infos"], self.locals["dones"]
        self.ended += [info["is_success"] for info, done in zip(infos, dones, strict=True) if done]
        # of episodes side by side the short ones, which are the successful ones, end first
        if len(self.ended) >= max(EPISODES, 2 * self.training_env.num_envs):
            self.record(self.num_timesteps, {f"{self.kind}/success": float(np.mean(self.ended))})
            self.ended = []
        return True


def greedy(algorithm: BaseAlgorithm, binary: Sequence[int]) -> Greedy:
    """The policy of an algorithm without its exploration, as the simulator carries it out.

    Args:
        algorithm: trained, on actions [A].
        binary: which numbers of an action are grippers.
    """
    policy = algorithm.policy.eval()

    def act(feature: Tensor) -> Tensor:
        action = policy._predict(feature.to(policy.device), deterministic=True)
        return executed(action[:, None], binary).to(feature.device)

    return Greedy(act, chunk=1)


def updates(optimiser: torch.optim.Optimizer, layer: Any) -> int:
    """How many gradient steps a linear layer has had."""
    state = optimiser.state.get(layer.weight, {})
    return int(state.get("step", 0))


def minibatch(batch: int, most: int) -> int:
    """The largest size up to `most` that divides a batch, so that no small remainder has a gradient of noise."""
    return next(size for size in range(min(most, batch), 0, -1) if batch % size == 0)


def whole(budget: int, batch: int, name: str) -> int:
    """The most steps in whole batches that a budget allows."""
    if budget < batch:
        raise UserError(f"--steps {budget} is less than one batch of {name}, {batch} steps; give more")
    return budget // batch * batch


def in_simulator(
    task_run: TaskRun, encoder: ObservationEncoder, algorithm: BaseAlgorithm, optimiser: Any, layer: Any
) -> Learned:
    """What an algorithm has learned there.

    Args:
        task_run: the run's task and seed.
        encoder: what it saw.
        algorithm: trained.
        optimiser: of its policy.
        layer: the last one of its policy.
    """
    return Learned(
        encoder,
        greedy(algorithm, task_run.store.meta.layout.binary),
        real_steps=algorithm.num_timesteps,
        gradient_steps=updates(optimiser, layer),
    )

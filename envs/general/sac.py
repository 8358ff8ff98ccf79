"""A demonstrator that is learned: soft actor-critic (Haarnoja et al. 2018) of Stable-Baselines3, from dense reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from envs.general.standard import Standard
from worldaction.errors import UserError
from worldaction.io.atomic import load_tensors, save_tensors

SEED: Final = 0


class _Numbers(gym.Wrapper[Any, Any, Any, Any]):
    """The numbers of an observation alone. Success ends no episode: an expert shall stay where the reward is."""

    def __init__(self, env: Standard) -> None:
        super().__init__(env)
        self._standard = env
        if not env.layout.robot:
            raise UserError(f"{env.name} observes images alone, from which --gym.expert sac cannot learn; give a class")
        self.observation_space = Box(-np.inf, np.inf, (env.layout.robot,), np.float32)

    def reset(self, **kwargs: Any) -> Any:
        info = self.env.reset(**kwargs)[1]
        return self._standard.numbers(), info

    def step(self, action: Any) -> Any:
        _, reward, terminated, truncated, info = self.env.step(action)
        ended = terminated and info["ended"] and not truncated
        return self._standard.numbers(), reward, ended, truncated, info


@dataclass(frozen=True)
class Learned:
    """What was learned, in one environment."""

    policy: Any
    env: Standard

    def act(self, observation: Any) -> NDArray[Any]:
        """The action in the environment's own range for its present state."""
        action, _ = self.policy.predict(self.env.numbers(), deterministic=True)
        return self.env.from_unit(action)


def learn(make: Callable[[], Standard], steps: int, path: Path) -> None:
    """Learn a policy with Stable-Baselines3's default settings and keep its weights.

    Args:
        make: builds the environment.
        steps: environment steps to learn in.
        path: the file of weights to write.
    """
    algorithm = _algorithm(make())
    try:
        algorithm.learn(steps)
    finally:
        algorithm.get_env().close()
    save_tensors(path, algorithm.policy.state_dict())


def recall(make: Callable[[], Standard], path: Path) -> Callable[[Standard, Any], Learned]:
    """The demonstrator whose weights `learn` kept.

    Args:
        make: as for `learn`.
        path: the file of weights.
    """
    algorithm = _algorithm(make())
    algorithm.get_env().close()
    algorithm.policy.load_state_dict(load_tensors(path))
    return lambda env, rng: Learned(algorithm.policy, env)


def _algorithm(env: Standard) -> Any:
    from stable_baselines3 import SAC

    return SAC("MlpPolicy", _Numbers(env), seed=SEED, device="cpu", verbose=0)

"""A new environment from nothing: one file that works, and the tests that hold it to what a study asks."""

from __future__ import annotations

from pathlib import Path

from envs.benchmark import BENCHMARKS
from worldaction.scaffold import write_plugin

ENV = '''"""{title}: a point is to be brought to a mark. An example to be replaced by your task."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict

SIDE, SPEED, REACHED = 64, 0.1, 0.15


class {title}(gym.Env[Any, Any]):
    """Point and mark are anywhere in [-1, 1] x [-1, 1]. Both are drawn; the place of the point is told as well."""

    metadata: ClassVar[dict[str, Any]] = {{"render_modes": ["rgb_array"], "render_fps": 10}}
    demonstrator = "{name}:{title}Expert"
    max_episode_steps = 40

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        # pictures [H, W, 3] uint8 become cameras, all other numbers become robot_obs
        image, place = Box(0, 255, (SIDE, SIDE, 3), np.uint8), Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = Dict({{"image": image, "place": place}})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        # every start comes from this generator, so that it is a function of the seed
        super().reset(seed=seed)
        self.place, self.mark = self.np_random.uniform(-1, 1, (2, 2))
        while self.distance() < 2 * REACHED:
            self.mark = self.np_random.uniform(-1, 1, 2)
        return self.observe(), {{"is_success": False}}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + SPEED * np.clip(action, -1, 1), -1, 1)
        done = self.distance() < REACHED
        return self.observe(), float(done), done, False, {{"is_success": done}}

    def render(self) -> Any:
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        for channel, (x, y) in enumerate((self.place, self.mark)):
            column, row = (int((v + 1) / 2 * (SIDE - 8)) for v in (x, y))
            image[row : row + 8, column : column + 8, channel] = 255
        return image

    def distance(self) -> float:
        """Between the point and the mark, along the farther axis."""
        return float(np.abs(self.place - self.mark).max())

    def observe(self) -> dict[str, Any]:
        """What an agent sees."""
        return {{"image": self.render(), "place": self.place.astype(np.float32)}}


class {title}Expert:
    """Demonstrates: goes straight to the mark, which it may look up in the environment."""

    def __init__(self, env: gym.Env[Any, Any], rng: np.random.Generator) -> None:
        self.env: Any = env.unwrapped

    def act(self, observation: Any) -> Any:
        """An action in the environment's own range."""
        return np.clip((self.env.mark - self.env.place) / SPEED, -1, 1)
'''

TEST = '''"""{title} gives a study what it asks, and its task can be done and be missed."""

from __future__ import annotations

import numpy as np
from envs.general.tools.contract import check

from {name} import {title}, {title}Expert


def test_it_gives_a_study_what_it_asks() -> None:
    assert check("{name}:{title}") == []


def test_the_expert_arrives_from_every_start() -> None:
    env = {title}()
    for seed in range(20):
        env.reset(seed=seed)
        expert = {title}Expert(env, np.random.default_rng(seed))
        assert any(env.step(expert.act(None))[4]["is_success"] for _ in range(env.max_episode_steps))


def test_whoever_stays_does_not_arrive() -> None:
    env = {title}()
    env.reset(seed=0)
    assert not any(env.step(np.zeros(2))[4]["is_success"] for _ in range(env.max_episode_steps))
'''


def new_env(name: str, folder: Path) -> tuple[Path, Path]:
    """Write an environment that works and its tests; see `worldaction.scaffold.write_plugin`."""
    return write_plugin(BENCHMARKS, name, folder, code=ENV, test=TEST)

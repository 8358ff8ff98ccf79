"""A tiny environment that is none of ours: a point is to be brought to a mark, seen as pixels, numbers, or both."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict

SIDE, REACHED, LONGEST = 16, 0.15, 40
ID = "Reach-v0"
# what the action is multiplied with, and the range it has: none of them is [-1, 1]
LOW, HIGH = np.array([-2.0, -1.0]), np.array([2.0, 3.0])
CENTRE, GAIN = (LOW + HIGH) / 2, 0.1


class Reach(gym.Env[Any, Any]):
    """Observes the point's place and the mark's."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, *, sees: str = "both", tells: bool = True, ends: bool = False, render_mode: str | None = None
    ) -> None:
        self.tells, self.ends, self.render_mode = tells, ends, render_mode
        self.action_space = Box(LOW.astype(np.float32), HIGH.astype(np.float32))
        parts: dict[str, Any] = {
            "image": Box(0, 255, (SIDE, SIDE + 4, 3), np.uint8),
            "place": Box(-np.inf, np.inf, (2,), np.float64),
            "mark": Box(-np.inf, np.inf, (2,), np.float64),
        }
        kept = {"both": parts, "pixels": {"image": parts["image"]}, "numbers": {k: parts[k] for k in ("mark", "place")}}
        self.observation_space = Dict(kept[sees])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.mark = self.np_random.uniform(-1, 1, (2, 2))
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        assert (action >= LOW - 1e-6).all()
        assert (action <= HIGH + 1e-6).all()
        self.place = np.clip(self.place + GAIN * (np.asarray(action) - CENTRE), -1, 1)
        distance = float(np.abs(self.place - self.mark).max())
        info = {"success": float(distance < REACHED)} if self.tells else {}
        return self._observe(), -distance, self.ends and distance < REACHED, False, info

    def render(self) -> Any:
        image = np.zeros((SIDE, SIDE + 4, 3), np.uint8)
        for channel, (x, y) in enumerate((self.place, self.mark)):
            row, column = (int((v + 1) / 2 * (SIDE - 3)) for v in (y, x))
            image[row : row + 3, column + 2 : column + 5, channel] = 255
        return image

    def _observe(self) -> dict[str, Any]:
        everything = {"image": self.render(), "place": self.place.copy(), "mark": self.mark.copy()}
        return {key: everything[key] for key in self.observation_space}


class Straight:
    """Goes straight to the mark."""

    def __init__(self, env: Any, rng: np.random.Generator) -> None:
        self.env = env.unwrapped

    def act(self, observation: Any) -> Any:
        """In the environment's own range."""
        return np.clip(CENTRE + (self.env.mark - self.env.place) / GAIN, LOW, HIGH)


class Lost(Straight):
    """Stays where it is."""

    def act(self, observation: Any) -> Any:
        """In the environment's own range."""
        return CENTRE


if ID not in gym.registry:
    gym.register(ID, "reach_env:Reach", max_episode_steps=LONGEST)

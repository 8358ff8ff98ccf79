"""A set of recorded attempts, written by Minari's own collector: Gymnasium's reacher, driven by a hasty hand.

    pip install "minari[create,hdf5]" "gymnasium[mujoco]"
    MINARI_DATASETS_PATH=sets python docs/examples/reacher_set.py
    worldaction train quick --play sets/reacher/hasty-v0

Minari needs no worldaction, and worldaction no Minari to read it. What makes a set of it from which policies can be
learned: pictures, and an `info` that says whether the task was done.
"""

import sys
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from gymnasium.wrappers import AddRenderObservation

NAME = "reacher/hasty-v0"
NEAR, STEPS = 0.025, 3
"""Done when the tip has been within so many metres of the target for so many steps in a row."""


class Reach(gym.Wrapper[Any, Any, Any, Any]):
    """The reacher as a task that can be done, where Gymnasium's gives a distance."""

    near = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.near = 0
        observation, _ = self.env.reset(**options)
        return observation, {"success": False}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, _, truncated, _ = self.env.step(action)
        tip, target = (self.unwrapped.get_body_com(name) for name in ("fingertip", "target"))  # type: ignore[attr-defined]
        self.near = self.near + 1 if np.linalg.norm(tip - target) < NEAR else 0
        done = self.near >= STEPS
        return observation, reward, done, truncated, {"success": done}


def torques(env: Any, draws: np.random.Generator, gain: float, aim: np.ndarray) -> np.ndarray:
    """Towards the place that is aimed at, by the transposed Jacobian of the tip: haste swings over it."""
    arm = env.unwrapped
    angle, speed = arm.data.qpos[:2], arm.data.qvel[:2]
    shoulder, elbow = angle[0], angle[0] + angle[1]
    jacobian = np.array(
        [
            [-0.1 * np.sin(shoulder) - 0.11 * np.sin(elbow), -0.11 * np.sin(elbow)],
            [0.1 * np.cos(shoulder) + 0.11 * np.cos(elbow), 0.11 * np.cos(elbow)],
        ]
    )
    away = arm.get_body_com("target")[:2] + aim - arm.get_body_com("fingertip")[:2]
    found = jacobian.T @ away * gain - 0.04 * speed * (gain / 40) ** 0.5 + draws.normal(0, 0.03, 2)
    return np.clip(found, -1, 1).astype(np.float32)


def main(episodes: int = 150) -> None:
    drawn = gym.make("Reacher-v5", render_mode="rgb_array", width=64, height=64)
    env = minari.DataCollector(AddRenderObservation(Reach(drawn), render_only=False), record_infos=True)
    draws, done = np.random.default_rng(0), 0
    for episode in range(episodes):
        env.reset(seed=episode)
        gain, aim = draws.uniform(15, 60), draws.normal(0, 0.014, 2)
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, info = env.step(torques(env, draws, gain, aim))
        done += info["success"]
    about = {"algorithm_name": "a hasty hand", "author": "nobody", "author_email": "nobody@example.com"}
    env.create_dataset(dataset_id=NAME, code_permalink="docs/examples/reacher_set.py", **about)
    print(f"{NAME}: {done} of {episodes} attempts succeeded")  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Meta-World's tasks (Yu et al. 2019; McLean et al. 2025, version 3) as Gymnasium environments with seeded starts.

Needs the extra `metaworld`, which pins an old MuJoCo: install it into an environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from worldaction.errors import UserError, unknown

TASKS: Final = ("drawer-open-v3", "drawer-close-v3", "button-press-v3")
"""Those that are studied by default; any other of Meta-World's works, too."""
HAND: Final = 4
"""Numbers of Meta-World's observation that are the robot's own: the hand's position (m) and the gripper's opening."""
CAMERA: Final = "corner2"
NEARER: Final = (0.75, 0.075, 0.7)
"""Where that camera stands here (m): the field has moved it nearer, for in small pictures the task is a few pixels."""
PIXELS: Final = 128


class MetaWorldEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """One of Meta-World's tasks, whose start is drawn anew from the seed of every episode.

    Args:
        task: name of the task with its version, such as "drawer-open-v3".
        pixels: observe the hand alone, for pictures show the rest; otherwise all of Meta-World's 39 numbers.
        plain: draw without shadows, reflections and antialiasing: 5 ms a picture instead of 79 without a GPU.
        render_mode: None or "rgb_array", the view of Meta-World's camera "corner2" the right way up, [128, 128, 3].

    Raises:
        UserError: Meta-World is not installed, or has no such task.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012
    tasks: Final = TASKS
    demonstrator: Final = "envs.metaworld.env:ScriptedExpert"

    def __init__(
        self, task: str = TASKS[0], *, pixels: bool = False, plain: bool = True, render_mode: str | None = None
    ) -> None:
        classes, self._policies = _metaworld()
        if task not in classes:
            raise unknown("Meta-World task", task, classes)
        self.task, self.render_mode, self._pixels = task, render_mode, pixels
        self._inner = classes[task](render_mode="rgb_array", camera_name=CAMERA, width=PIXELS, height=PIXELS)
        # Meta-World draws starts from a list that is set beforehand, unless it is told to draw them itself
        self._inner._freeze_rand_vec, self._inner._set_task_called, self._inner.seeded_rand_vec = False, True, True
        model = self._inner.model
        model.cam_pos[model.camera(CAMERA).id] = NEARER
        if plain:
            model.light_castshadow[:], model.mat_reflectance[:], model.vis.quality.offsamples = False, 0.0, 0
        self.action_space = self._inner.action_space
        size = HAND if pixels else len(self._inner.observation_space.low)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.state: NDArray[np.float64] = np.zeros(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self._inner.seed(int(self.np_random.integers(2**31)))
        self.state, info = self._inner.reset()
        return self._observe(), {**info, "success": False}

    def step(self, action: Any) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """One control step of 1/80 s with an action [4] in [-1, 1]."""
        self.state, reward, terminated, truncated, info = self._inner.step(np.asarray(action, np.float32))
        return self._observe(), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> NDArray[np.uint8] | None:
        """The picture [128, 128, 3], if `render_mode` is "rgb_array"."""
        if self.render_mode is None:
            return None
        # corner2 hangs upside down
        picture: NDArray[np.uint8] = self._inner.render()[::-1, ::-1].copy()
        return picture

    def close(self) -> None:
        """Frees the renderer."""
        self._inner.close()

    def expert(self) -> Callable[[], NDArray[np.float64]]:
        """Meta-World's scripted policy of this task: every call gives the action for the present state."""
        policy = self._policies[self.task]()
        return lambda: np.clip(policy.get_action(self.state), -1, 1)

    def _observe(self) -> NDArray[np.float64]:
        return self.state[:HAND] if self._pixels else self.state


class ScriptedExpert:
    """Demonstrator for `envs.general.generate`.

    Args:
        env: wraps a `MetaWorldEnv`.
        rng: not needed, the policy is deterministic.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> None:
        self._advice = env.unwrapped.expert()  # type: ignore[attr-defined]

    def act(self, observation: Any) -> NDArray[np.float64]:
        """The action for the present state; the observation may hold less."""
        action: NDArray[np.float64] = self._advice()
        return action


def _metaworld() -> tuple[dict[str, Any], dict[str, Any]]:
    """Meta-World's environments and scripted policies, by task."""
    try:
        from metaworld import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP
    except ImportError as error:
        raise UserError(
            f'Meta-World is not there ({error}); in an environment of its own: pip install "worldaction[metaworld]"'
        ) from error
    return dict(ALL_V3_ENVIRONMENTS), dict(ENV_POLICY_MAP)

"""What scripted experts and the generator need of a table: the embedded one and CALVIN's own both have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import ArrayLike, NDArray

from envs.playtable.scenes import Scene
from worldaction.errors import UserError, unknown
from worldaction.spec import CAMERAS, ROBOT, ROBOT_SIZE, SCENE, SCENE_SIZE

Array = NDArray[np.float64]
Observation = dict[str, Any]

START_JOINTS: Final = ("slider", "drawer", "switch", "led")
"""What `reset` can be told of a start, as its option "scene"."""


class Table(Protocol):
    """A Gymnasium environment with the observations of `worldaction.spec`, and what a scripted expert looks at."""

    max_steps: int
    """Time limit of an episode (control steps)."""
    renderer: str
    """What draws its images."""
    scene: Scene
    """Which table it is."""
    about: Mapping[str, Any]
    """Versions of what simulates it, for the record."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode; options are "task" and "scene"."""
        ...

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step with an action [7]."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...

    def scene_obs(self) -> Array:
        """[24] in CALVIN's layout."""
        ...

    def robot_obs(self) -> Array:
        """[15] in CALVIN's layout."""
        ...

    def site(self, name: str) -> Array:
        """[3] where drawer_handle, slider_handle, switch_lever or button is (m)."""
        ...

    @property
    def tcp_position(self) -> Array:
        """[3] where the point between the fingertips is (m)."""
        ...

    @property
    def tcp_euler(self) -> Array:
        """[3] how the hand is turned (rad)."""
        ...

    @property
    def target_position(self) -> Array:
        """[3] the target that actions move (m)."""
        ...

    @property
    def target_euler(self) -> Array:
        """[3] the same for the hand's angles (rad)."""
        ...

    @property
    def gripper_action(self) -> float:
        """The last gripper command, -1 or 1."""
        ...


def observation_space(image_size: int | None) -> Dict:
    """What both tables observe.

    Args:
        image_size: side of the images (pixels); None if there are no cameras.
    """
    spaces: dict[str, Space[Any]] = {}
    if image_size is not None:
        spaces |= {camera: Box(0, 255, (image_size, image_size, 3), np.uint8) for camera in CAMERAS}
    for name, size in ((ROBOT, ROBOT_SIZE), (SCENE, SCENE_SIZE)):
        spaces[name] = Box(-np.inf, np.inf, (size,), np.float32)
    return Dict(spaces)


def checked_start(values: Mapping[str, float], scene: Scene) -> Mapping[str, float]:
    """The option "scene" of `reset`: values (m, rad; lights 0 or 1) of the parts of a table.

    Raises:
        UserError: there is no such part, or it cannot stand there.
    """
    for name, value in values.items():
        if name not in START_JOINTS:
            raise unknown("scene entry", name, START_JOINTS)
        if not 0 <= value <= scene.ranges[name]:
            raise UserError(f"scene entry {name} = {value} is outside 0..{scene.ranges[name]}")
    return values

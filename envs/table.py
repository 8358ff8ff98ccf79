"""What scripted experts and the generator need of a table: the embedded one and CALVIN's own both have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.playtable.scenes import Scene

Array = NDArray[np.float64]
Observation = dict[str, Any]


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

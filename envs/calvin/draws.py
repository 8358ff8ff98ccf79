"""What the simulator is told and asked in numbers: the state of an episode's start, and where handles are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.playtable.blocks import draw_blocks
from envs.playtable.env import draw_arm, draw_scene
from envs.playtable.ik import kinematics
from envs.playtable.rotation import to_euler
from envs.playtable.scenes import Scene, get_scene
from envs.tasks import LYING, RANGES, TASKS, Task
from worldaction.errors import UserError, unknown
from worldaction.spec import ROBOT_SIZE, SCENE_FIELDS, SCENE_SIZE

Array = NDArray[np.float64]

OPEN_WIDTH = 0.08


class Start(NamedTuple):
    """The state in which an episode begins."""

    task: str
    robot_obs: Array
    """[15]; the joints, the width and the last gripper command decide."""
    scene_obs: Array
    """[24]."""


def draw_start(task: Task, seed: int, values: Mapping[str, float] | None = None, *, scene: str = "D") -> Start:
    """The start of a seed: the embedded table's, number by number, so that both can be compared start by start.

    Args:
        task: what has to be left to do.
        seed: names the start, together with the task.
        values: slider, drawer, switch (m) or led (0 or 1) instead of drawn ones.
        scene: which of CALVIN's tables.
    """
    place = get_scene(scene)
    rng = np.random.default_rng([seed, list(TASKS).index(task.name)])
    parts = {**draw_scene(task, rng, place), **(values or {})}
    joints = draw_arm(rng)
    scene_obs = np.zeros(SCENE_SIZE)
    for name, value in parts.items():
        scene_obs[SCENE_FIELDS[name]] = value
    scene_obs[SCENE_FIELDS["lightbulb"]] = parts["switch"] > RANGES["switch"] / 2
    for number, (x, y, yaw) in enumerate(draw_blocks(rng, place, task)):
        scene_obs[6 + 6 * number : 12 + 6 * number] = x, y, LYING, 0, 0, yaw
    return Start(task.name, _robot_obs(joints), scene_obs)


def site(name: str, scene: Scene, scene_obs: Array) -> Array:
    """[3] where a handle of the table is (m).

    Args:
        name: drawer_handle, slider_handle, switch_lever or button.
        scene: which table.
        scene_obs: [24], whose joint values move it.

    Raises:
        UserError: there is no such site.
    """
    sites = {
        "drawer_handle": ((scene.drawer, -0.25, 0.36), "drawer", (0, -1, 0)),
        "slider_handle": ((scene.door, 0.01524, 0.56976), "slider", (-1, 0, 0)),
        "switch_lever": ((scene.switch, 0.01903, 0.52832), "switch", (0, 0.5, 0.866)),
        "button": ((scene.button, -0.12, 0.484), "button", (0, 0, -1)),
    }
    if name not in sites:
        raise unknown("site", name, sites)
    origin, joint, direction = sites[name]
    return np.array(origin) + scene_obs[SCENE_FIELDS[joint]] * np.array(direction)


def _robot_obs(joints: Array) -> Array:
    position, rotation = kinematics().forward(joints)
    robot_obs = np.concatenate([position, to_euler(rotation), [OPEN_WIDTH], joints, [1.0]])
    assert robot_obs.shape == (ROBOT_SIZE,)
    return robot_obs


def check_states(robot_obs: Array, scene_obs: Array, label: str) -> None:
    """Refuses what the simulator would only choke on.

    Args:
        robot_obs: should be [15].
        scene_obs: should be [24].
        label: whose they are, for the message.

    Raises:
        UserError: another shape, numbers that are not finite, or lights that are neither 0 nor 1.
    """
    for name, array, size in (("robot_obs", robot_obs, ROBOT_SIZE), ("scene_obs", scene_obs, SCENE_SIZE)):
        if array.shape != (size,) or not np.isfinite(array).all():
            raise UserError(f"{label}: {name} must be {size} finite numbers, not {array.tolist()!r:.80}")
    lights = scene_obs[[SCENE_FIELDS["lightbulb"], SCENE_FIELDS["led"]]]
    if not np.isin(lights, (0, 1)).all():
        raise UserError(f"{label}: the lights in scene_obs are {lights.tolist()}; each must be 0 or 1")

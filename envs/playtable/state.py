"""The state that an episode starts from: drawn, or taken from recorded robot_obs and scene_obs as CALVIN takes it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from envs.playtable.robot import FINGER_OPEN, LINKS
from envs.playtable.rotation import Array, to_matrix, to_quaternion
from envs.tasks import RANGES
from worldaction.errors import UserError
from worldaction.spec import ROBOT_FIELDS, ROBOT_SIZE, SCENE_FIELDS, SCENE_SIZE

PARTS: Final = ("slider", "drawer", "button", "switch")
# recorded joints overshoot their limits: CALVIN's slider by 27 mm
SLACK: Final = {"part": 0.03, "arm": 0.05, "width": 0.01}
FARTHEST: Final = 10.0
"""How far from the origin a block may lie (m)."""


class Start(NamedTuple):
    """Everything that a reset sets."""

    joints: Array
    """[7] of the arm (rad)."""
    width: float
    """Between the fingers (m)."""
    gripper_action: float
    """The last command: -1 closed, +1 open."""
    parts: dict[str, float]
    """Joint values of `PARTS` (m)."""
    lightbulb: bool
    led: bool
    blocks: Array
    """[3, 7] position (m) and quaternion of each block, in the order of the scene."""


def with_robot(start: Start, robot_obs: ArrayLike) -> Start:
    """`start` with a recorded robot: joints, width and last command decide; the TCP pose follows from the joints.

    Args:
        start: whose table is kept.
        robot_obs: [15] in CALVIN's layout.

    Raises:
        UserError: another shape, a number that is not finite, or outside the robot's range.
    """
    values = _finite(robot_obs, "robot_obs", ROBOT_SIZE)
    joints, width = values[ROBOT_FIELDS["joints"]], float(values[ROBOT_FIELDS["gripper_width"]].item())
    gripper = float(values[ROBOT_FIELDS["gripper_action"]].item())
    low, high = np.array([link.limits for link in LINKS]).T
    for number, joint in enumerate(joints):
        _between(f"robot_obs[{7 + number}]", joint, low[number], high[number], SLACK["arm"])
    _between("robot_obs[6]", width, 0, 2 * FINGER_OPEN, SLACK["width"])
    if gripper not in (-1.0, 1.0):
        raise UserError(f"robot_obs[14] = {gripper} is the last gripper command; give -1 or 1")
    return start._replace(joints=np.clip(joints, low, high), width=width, gripper_action=gripper)


def with_scene(start: Start, scene_obs: ArrayLike, *, slider: float = RANGES["slider"]) -> Start:
    """`start` with a recorded table.

    Args:
        start: whose robot is kept.
        scene_obs: [24] in CALVIN's layout, blocks in the order of the scene.
        slider: the scene's travel of the door (m).

    Raises:
        UserError: another shape, a number that is not finite or outside its range, or a light that is not 0 or 1.
    """
    values = _finite(scene_obs, "scene_obs", SCENE_SIZE)
    parts = {name: float(values[SCENE_FIELDS[name]]) for name in PARTS}
    for name, value in parts.items():
        farthest = slider if name == "slider" else RANGES[name]
        _between(f"scene_obs[{SCENE_FIELDS[name]}] ({name})", value, 0, farthest, SLACK["part"])
    bulb, led = (_light(name, float(values[SCENE_FIELDS[name]])) for name in ("lightbulb", "led"))
    poses = values[6:].reshape(3, 6)
    if (distance := np.abs(poses[:, :3]).max()) > FARTHEST:
        raise UserError(f"scene_obs has a block {distance:.1f} m away; give metres in the world's frame")
    # [3, 7]
    blocks = np.array([[*pose[:3], *to_quaternion(to_matrix(pose[3:]))] for pose in poses])
    return start._replace(parts=parts, blocks=blocks, lightbulb=bulb, led=led)


def _light(name: str, value: float) -> bool:
    if value not in (0.0, 1.0):
        raise UserError(f"scene_obs[{SCENE_FIELDS[name]}] ({name}) = {value}; give exactly 0 or 1, as CALVIN asks")
    return bool(value)


def _finite(values: ArrayLike, name: str, size: int) -> Array:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is not an array of {size} numbers ({error})") from error
    if array.shape != (size,) or not np.isfinite(array).all():
        raise UserError(f"{name} with shape {array.shape} must be {size} finite numbers in CALVIN's layout")
    return array


def _between(name: str, value: float, low: float, high: float, slack: float) -> None:
    if not low - slack <= value <= high + slack:
        raise UserError(f"{name} = {value:.4f} is outside {low:g}..{high:g}; is it in CALVIN's layout and units?")

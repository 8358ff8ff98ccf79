"""The arm: its model, its joints in the units in which a SO-100 has them, and its inverse kinematics."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

JOINTS: Final = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
ARM: Final = len(JOINTS) - 1
LOWEST: Final = np.array([-100.0] * ARM + [0.0])
HIGHEST: Final = np.array([100.0] * len(JOINTS))
"""Ends of travel in the robot's units: -100 and 100 of a joint, 0 (closed) and 100 of the gripper."""
DAMPING: Final = 1e-4
"""Of the least squares (m^2)."""
METRES_PER_RADIAN: Final = 0.1
"""What a radian of error weighs beside a metre."""
ITERATIONS: Final = 20
CLOSE_ENOUGH: Final = 1e-4
"""Error at which the iterations end (m)."""


@lru_cache(maxsize=1)
def model() -> Any:
    """The compiled mujoco.MjModel of arm, table and blocks, one per process; nobody changes it."""
    return mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("arm.xml")))


def to_units(joints: ArrayLike) -> Array:
    """Joints [6] (rad) in the robot's units."""
    low, high = _travel()
    units: Array = LOWEST + (np.asarray(joints) - low) / (high - low) * (HIGHEST - LOWEST)
    return units


def to_radians(units: ArrayLike) -> Array:
    """Joints [6] in the robot's units as angles (rad); the inverse of `to_units`."""
    low, high = _travel()
    joints: Array = low + (np.asarray(units) - LOWEST) / (HIGHEST - LOWEST) * (high - low)
    return joints


def _travel() -> tuple[Array, Array]:
    """Lowest and highest angle [6] (rad)."""
    low, high = model().jnt_range[: len(JOINTS)].T
    return low, high


class Kinematics:
    """Inverse kinematics for a hand that points down. Holds scratch memory, no state.

    Damped least squares: dq = J^T (J J^T + damping)^-1 e (Buss 2004, Introduction to inverse kinematics, section 6).
    """

    def __init__(self) -> None:
        self._data = mujoco.MjData(model())
        self._site = model().site("tcp").id
        # [6, nv]: linear part above angular part
        self._jacobian = np.zeros((6, model().nv))
        self._low, self._high = (end[:ARM] for end in _travel())

    def inverse(self, joints: Array, position: Array, yaw: float) -> Array:
        """Joints [5] (rad) that bring the point between the jaws to a place.

        Args:
            joints: [5] where to start (rad).
            position: [3] (m).
            yaw: of the axis along which the jaws open, about the vertical, 0 where that is y (rad).
        """
        for _ in range(ITERATIONS):
            error = self._error(joints, position, pointing_down(yaw))
            if np.linalg.norm(error) < CLOSE_ENOUGH:
                break
            jacobian = self._jacobian[:, :ARM].copy()
            jacobian[3:] *= METRES_PER_RADIAN
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + DAMPING * np.eye(6), error)
            joints = np.clip(joints + step, self._low, self._high)
        return joints

    def _error(self, joints: Array, position: Array, orientation: Array) -> Array:
        """Pose error [6] (m) at `joints`; leaves the Jacobian there in `_jacobian`."""
        data = self._data
        data.qpos[:ARM] = joints
        mujoco.mj_kinematics(model(), data)
        mujoco.mj_comPos(model(), data)
        mujoco.mj_jacSite(model(), data, self._jacobian[:3], self._jacobian[3:], self._site)
        quaternion, turn = np.zeros(4), np.zeros(3)
        now = data.site_xmat[self._site].reshape(3, 3)
        mujoco.mju_mat2Quat(quaternion, (orientation @ now.T).ravel())
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        return np.concatenate([position - data.site_xpos[self._site], METRES_PER_RADIAN * turn])


def pointing_down(yaw: float) -> Array:
    """Orientation [3, 3] of a hand that points down: ahead, along the opening of the jaws, and across."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[0, -sin, cos], [0, cos, sin], [-1, 0, 0]])


@lru_cache(maxsize=1)
def kinematics() -> Kinematics:
    """The one instance of this process."""
    return Kinematics()

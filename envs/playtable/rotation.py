"""Euler angles in CALVIN's order: R = Rz(yaw) Ry(pitch) Rx(roll), each angle in (-pi, pi]."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def to_matrix(euler: Array) -> Array:
    """[3] roll, pitch, yaw (rad) -> [3, 3]."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(euler), np.sin(euler)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def to_euler(matrix: Array) -> Array:
    """[3, 3] -> [3] roll, pitch, yaw (rad)."""
    roll = math.atan2(matrix[2, 1], matrix[2, 2])
    pitch = math.asin(min(max(-matrix[2, 0], -1.0), 1.0))
    return np.array([roll, pitch, math.atan2(matrix[1, 0], matrix[0, 0])])


def to_quaternion(matrix: Array) -> Array:
    """[3, 3] -> [4] w, x, y, z, of length one."""
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, matrix.ravel())
    return quaternion


def wrap(angle: Array) -> Array:
    """Angles (rad) brought into [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi

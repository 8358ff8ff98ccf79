"""Inverse kinematics of the arm, to the same joints as Bullet's, which CALVIN asks in every control step.

Bullet iterates damped least squares with a pull towards the home pose in what it takes for the null space. Because the
damping leaks, its solutions miss by millimetres far from home, which is part of how CALVIN's robot behaves. One
iteration of these formulas gives Bullet's joints to nine digits; here the Jacobian is kept over ten iterations, which
are then summed in closed form: a tenth of the time, 0.2 mm apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import mujoco
import numpy as np

from envs.playtable.robot import HOME, add_panda
from envs.playtable.rotation import Array

# Bullet's constants: damping squared, gain towards the rest pose, and how near the position must be to stop (m)
DAMPING: Final = 0.36
REST_GAIN: Final = 0.001
CLOSE_ENOUGH: Final = 1e-4
ITERATIONS: Final = 20
FROZEN: Final = 10
"""Iterations with the same Jacobian."""


class Kinematics:
    """Forward and inverse kinematics on a model of the bare arm. Holds scratch memory, no state."""

    def __init__(self) -> None:
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        add_panda(spec, solid=False)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site("tcp").id
        self._limits = self._model.jnt_range[:7].T
        # [6, nv]: linear part above angular part
        self._jacobian = np.zeros((6, self._model.nv))

    def forward(self, joints: Array) -> tuple[Array, Array]:
        """TCP position [3] (m) and orientation [3, 3] in the world, for joints [7] (rad)."""
        self._data.qpos[:7] = joints
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()

    def inverse(
        self, joints: Array, position: Array, orientation: Array, *, iterations: int = ITERATIONS, frozen: int = FROZEN
    ) -> Array:
        """Joints [7] (rad) that bring the TCP towards a pose, starting from `joints`.

        Args:
            joints: [7] where to start (rad).
            position: [3] of the TCP in the world (m).
            orientation: [3, 3] of the TCP in the world.
            iterations: how many at most; Bullet's default is 20. Fewer if the position is right before.
            frozen: how many share a Jacobian. With 1 the result is Bullet's.
        """
        done = 0
        while done < iterations:
            joints, stopped = self._iterate(joints, self._error(joints, position, orientation), frozen)
            done = iterations if stopped else done + frozen
        return np.clip(joints, *self._limits)

    def _iterate(self, joints: Array, error: Array, count: int) -> tuple[Array, bool]:
        """`count` iterations with the present Jacobian J, and whether the position was right before the last of them.

        With w = 1 / (s^2 + damping) for the singular values s of J, an iteration is dq = V w V^T J^T e + (1 - s^2 w)
        gain V V^T (home - q), in the basis V of J^T J: seven geometric series.
        """
        jacobian = self._jacobian[:, :7]
        squares, basis = np.linalg.eigh(jacobian.T @ jacobian)
        weight = 1 / (squares + DAMPING)
        free = 1 - squares * weight
        first = weight * (basis.T @ (jacobian.T @ error)) + free * REST_GAIN * (basis.T @ (HOME - joints))
        decay = 1 - squares * weight - free * REST_GAIN
        # [7, count] moves after 1, 2, .. iterations
        moves = basis @ (first[:, None] * np.cumsum(decay[:, None] ** np.arange(count), 1))
        # [count] how far off the position is before each of them
        ahead = np.concatenate([np.zeros((7, 1)), moves[:, :-1]], 1)
        off = np.linalg.norm(error[:3, None] - jacobian[:3] @ ahead, axis=0)
        right = np.flatnonzero(off < CLOSE_ENOUGH)
        last = int(right[0]) if len(right) else count - 1
        return joints + moves[:, last], bool(len(right))

    def _error(self, joints: Array, position: Array, orientation: Array) -> Array:
        """Pose error [6] at `joints`; leaves the Jacobian there in `_jacobian`."""
        model, data, site = self._model, self._data, self._site
        now, rotation = self.forward(joints)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], site)
        quaternion, turn = np.zeros(4), np.zeros(3)
        mujoco.mju_mat2Quat(quaternion, (orientation @ rotation.T).ravel())
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        return np.concatenate([position - now, turn])


@lru_cache(maxsize=1)
def kinematics() -> Kinematics:
    """The one instance of this process."""
    return Kinematics()

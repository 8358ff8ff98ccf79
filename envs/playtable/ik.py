"""Inverse kinematics of the arm: damped least squares with a pull towards the home pose in the null space.

CALVIN asks Bullet for the same (null space, rest pose = home joints); two iterations per control step suffice because
the target moves by 2 cm at most.
"""

from __future__ import annotations

from functools import lru_cache

import mujoco
import numpy as np

from envs.playtable.robot import HOME, add_panda
from envs.playtable.rotation import Array

DAMPING = 0.05
REST_PULL = 0.02
LARGEST_STEP = 0.3
LIMIT_MARGIN = 0.02


class Kinematics:
    """Forward and inverse kinematics on a model of the bare arm. Holds scratch memory, no state."""

    def __init__(self) -> None:
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        add_panda(spec, solid=False)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site("tcp").id
        self._limits = self._model.jnt_range[:7].T + np.array([[LIMIT_MARGIN], [-LIMIT_MARGIN]])
        # [6, nv]: linear part above angular part
        self._jacobian = np.zeros((6, self._model.nv))

    def forward(self, joints: Array) -> tuple[Array, Array]:
        """TCP position [3] (m) and orientation [3, 3] in the world, for joints [7] (rad)."""
        self._data.qpos[:7] = joints
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()

    def inverse(self, joints: Array, position: Array, orientation: Array, *, iterations: int = 2) -> Array:
        """Joints [7] (rad) that bring the TCP towards a pose, starting from `joints`.

        Args:
            joints: [7] where to start (rad).
            position: [3] of the TCP in the world (m).
            orientation: [3, 3] of the TCP in the world.
            iterations: damped Gauss-Newton steps.
        """
        for _ in range(iterations):
            error = self._error(joints, position, orientation)
            jacobian = self._jacobian[:, :7]
            pull = HOME - joints
            right = np.stack([error, jacobian @ pull], 1)
            solved = np.linalg.solve(jacobian @ jacobian.T + DAMPING**2 * np.eye(6), right)
            change = jacobian.T @ solved[:, 0] + REST_PULL * (pull - jacobian.T @ solved[:, 1])
            joints = np.clip(joints + np.clip(change, -LARGEST_STEP, LARGEST_STEP), *self._limits)
        return joints

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

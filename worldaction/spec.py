"""Names that every part of the project shares: axis letters, tensordict keys, and the shape of the robot's numbers.

Axis letters, used in every shape comment and nowhere redefined:

    B batch          T time (real frames)      H imagined horizon     A action
    K action chunk   N denoising steps         S latent groups        C classes per group
    D deterministic  E embedding               F feature = D + S * C

Time: frame o_t is seen, action a_t is executed at t and leads to o_{t+1}. The recurrent model at t is fed a_{t-1},
which is the null action at the first frame of an episode (``is_init``).

This module imports nothing heavy, so that command lines can be parsed in a blink.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

# What the play store and every batch hold, one row per frame.
STATIC: Final = "rgb_static"  # [H, W, 3] uint8, the camera that sees the table
GRIPPER: Final = "rgb_gripper"  # [H, W, 3] uint8, the camera in the hand
ROBOT: Final = "robot_obs"  # [P] float32, proprioception; CALVIN's 15 numbers are ROBOT_FIELDS
SCENE: Final = "scene_obs"  # [P'] float32, privileged: judges success, never an input of a network
ACTION: Final = "action"  # [A] float32, a_t, executed at t
PREVIOUS_ACTION: Final = "previous_action"  # [A] float32, a_{t-1}, the null action where is_init
ACTION_MASK: Final = "action_mask"  # [] bool, true where a_t is known; a hidden one is the null action. May be left out
IS_INIT: Final = "is_init"  # [] bool, true at the first frame of an episode
TARGET_GAP: Final = (
    "target_gap"  # [P] float32, how far the robot's target is ahead of it; not stored, see world_model.pose
)
EPISODE: Final = "episode"  # [] int64, which episode the frame belongs to

# What the world model adds. TorchRL's names; the Dreamer papers' names in brackets.
EMBED: Final = "embed"  # [E] float32, e_t, the encoder's output
BELIEF: Final = "belief"  # [D] float32, the deterministic state (deter, h)
STATE: Final = "state"  # [S * C] float32, the stochastic state as one-hots (stoch, z), derived from CODE
CODE: Final = "code"  # [S] uint8, the stochastic state as class indices: how latents are stored
FEATURE: Final = "feature"  # [F] float32, [h; z]

CAMERAS: Final = (STATIC, GRIPPER)

ACTION_SIZE: Final = 7
ROBOT_SIZE: Final = 15
SCENE_SIZE: Final = 24

# CALVIN's relative action: 3 translations, 3 Euler angles, gripper (-1 closed, +1 open).
METRES_PER_UNIT: Final = 0.02
RADIANS_PER_UNIT: Final = 0.05
NULL_ACTION: Final = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
CONTROL_HZ: Final = 30

# robot_obs: TCP position (m), TCP Euler xyz (rad), opening width (m), seven joints (rad), last gripper command.
ROBOT_FIELDS: Final = {
    "tcp_position": slice(0, 3),
    "tcp_euler": slice(3, 6),
    "gripper_width": slice(6, 7),
    "joints": slice(7, 14),
    "gripper_action": slice(14, 15),
}

# scene_obs: four joint values (m), two lights (0 or 1), then three blocks of position and Euler angles.
SCENE_FIELDS: Final = {"slider": 0, "drawer": 1, "button": 2, "switch": 3, "lightbulb": 4, "led": 5}


@dataclass(frozen=True)
class Layout:
    """What one frame of a robot's data holds: which cameras, and how many numbers of each kind."""

    cameras: tuple[str, ...]
    """Names of the cameras; their images are square, and of one size."""
    robot: int
    """Numbers of proprioception, `robot_obs`; 0 if there are none."""
    scene: int
    """Numbers of privileged state, `scene_obs`; 0 if there are none."""
    action: int
    """Numbers of an action, each in [-1, 1]."""
    null_action: tuple[float, ...]
    """What stands for the action before the first frame."""
    binary: tuple[int, ...] = ()
    """Which numbers of an action are read as -1 or +1 by their sign alone, as a gripper's command."""
    euler: int | None = None
    """Where in `robot_obs` three Euler angles (rad, R = Rz Ry Rx) begin, if it has any: networks see a rotation."""
    absolute: bool = False
    """Whether actions say where the robot is to be (poses, joint positions), not how it is to move: told the last one
    again it stays, where the null action would send it elsewhere."""

    @property
    def proprio(self) -> int:
        """Numbers of proprioception as networks see them: six for three angles."""
        return self.robot + (0 if self.euler is None else 3)

    @property
    def vectors(self) -> dict[str, int]:
        """The vectors that are recorded with every frame, and their sizes."""
        sizes = {ROBOT: self.robot, SCENE: self.scene, ACTION: self.action}
        return {key: size for key, size in sizes.items() if size}


CALVIN: Final = Layout(CAMERAS, ROBOT_SIZE, SCENE_SIZE, ACTION_SIZE, NULL_ACTION, binary=(6,), euler=3)
"""CALVIN's data set, its simulator, and the embedded play table."""

Kind = Literal["play", "near_miss", "demo"]
"""What an episode was made for."""
Split = Literal["training", "validation"]

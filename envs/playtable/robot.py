"""The Franka Panda as CALVIN mounts and drives it: public kinematics, position servos, and a skin of primitives.

Numbers: Franka's published DH parameters; base, home pose, hand, fingers and motors as measured in CALVIN. The skin is
for the eye only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import mujoco
import numpy as np

from envs.drawing import VISIBLE
from envs.playtable.rotation import to_matrix

HOME: Final = np.array([-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866])
BASE: Final = (-0.34, -0.46, 0.24)
TCP_IN_HAND: Final = 0.14
FINGER_OPEN, FINGER_CLOSED = 0.04, 0.0

# Bullet's motors, which drive CALVIN's robot, take a tenth of the error off in each substep of 1/240 s, with at most
# 2 rad/s and 200 N m, whatever they carry. A servo whose damping outweighs what it moves does the same; so the arm is
# light here; what a blocked joint pushes with is damping times the greatest speed. Fingers: 1 m/s, 200 N, and 2 N on
# each tenth of a kilogram when they open (20 m/s^2, of which an implicit step makes 1 / 1.12).
RATE: Final = 24.0
FASTEST: Final = np.array([2.0] * 7 + [1.0] * 2)
OPENING_ACCELERATION: Final = 22.4
MOTORS: Final = len(FASTEST)
DAMPING, FINGER_DAMPING = 200.0, 200.0
LINK_MASS, LINK_INERTIA, ARMATURE, FINGER_MASS = 0.1, 1e-3, 0.1, 0.1

# as hard as an end of travel can be at this timestep: the arm presses with far more than fingers weigh
STIFF_END: Final = [0.0085, 1.0], [0.95, 0.99]

WHITE: Final = (0.87, 0.87, 0.87, 1.0)
GREY: Final = (0.70, 0.70, 0.70, 1.0)
FINGER: Final = (1.0, 1.0, 1.0, 1.0)

# who meets whom: robot with table and blocks, blocks with everything, table parts never with each other
ROBOT_CONTACT: Final = {"contype": 2, "conaffinity": 5}
NO_CONTACT: Final = {"contype": 0, "conaffinity": 0}
HIDDEN: Final = 3

_H = 2**-0.5


@dataclass(frozen=True)
class Link:
    """A link and the revolute joint about its z axis that carries it."""

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    limits: tuple[float, float]


LINKS: Final = (
    Link((0, 0, 0.333), (1, 0, 0, 0), (-2.8973, 2.8973)),
    Link((0, 0, 0), (_H, -_H, 0, 0), (-1.7628, 1.7628)),
    Link((0, -0.316, 0), (_H, _H, 0, 0), (-2.8973, 2.8973)),
    Link((0.0825, 0, 0), (_H, _H, 0, 0), (-3.0718, -0.0698)),
    Link((-0.0825, 0.384, 0), (_H, -_H, 0, 0), (-2.8973, 2.8973)),
    Link((0, 0, 0), (_H, _H, 0, 0), (-0.0175, 3.7525)),
    Link((0.088, 0, 0), (_H, _H, 0, 0), (-2.8973, 2.8973)),
)

# capsules of every link: both ends (m, in the link's frame), radius, colour
Capsule = tuple[tuple[float, float, float, float, float, float], float, tuple[float, float, float, float]]
SKIN: Final[dict[str, tuple[Capsule, ...]]] = {
    "link0": (((-0.06, 0, 0.05, 0.02, 0, 0.05), 0.075, GREY), ((0, 0, 0.07, 0, 0, 0.14), 0.065, GREY)),
    "link1": (((0, 0, -0.19, 0, 0, -0.06), 0.062, WHITE), ((0, -0.055, 0, 0, 0.055, 0), 0.062, WHITE)),
    "link2": (((0, 0, 0.055, 0, 0, -0.055), 0.063, GREY), ((0, 0, 0, 0, -0.12, 0), 0.060, WHITE)),
    "link3": (
        ((0, 0, -0.16, 0, 0, -0.08), 0.060, WHITE),
        ((0.0825, 0.03, 0, 0.0825, -0.03, 0), 0.058, WHITE),
        ((0, 0, -0.07, 0.0825, 0, 0), 0.050, WHITE),
    ),
    "link4": (
        ((0, 0, 0.05, 0, 0, -0.05), 0.059, GREY),
        ((-0.0825, 0.11, 0, -0.0825, 0.06, 0), 0.056, WHITE),
        ((0, 0, 0, -0.0825, 0.08, 0), 0.050, WHITE),
    ),
    "link5": (
        ((0, 0, -0.26, 0, 0, -0.20), 0.058, WHITE),
        ((0, 0.06, -0.20, 0, 0.085, -0.08), 0.030, WHITE),
        ((0, 0.07, -0.06, 0, 0.02, 0), 0.050, WHITE),
    ),
    "link6": (((0, 0, -0.03, 0, 0, 0.04), 0.052, GREY), ((0.03, 0, 0, 0.088, 0, 0), 0.050, GREY)),
    "link7": (((0, 0, -0.02, 0, 0, 0.06), 0.050, WHITE), ((0, 0, 0.08, 0, 0, 0.095), 0.040, GREY)),
}  # fmt: skip


# boxes of each finger in its frame (m): half width along x, near and far side along y, bottom and top along z
FINGER_BOXES: Final = {
    "root": (0.0104, 0.0060, 0.0220, 0.0, 0.034),
    "pad": (0.0104, 0.0039, 0.0175, 0.034, 0.065),
    "tip": (0.0095, 0.0039, 0.0105, 0.065, 0.0964),
}
# what is seen of a finger: slanted boxes between two points (y, z) of its profile, and their thickness (m)
FINGER_SKIN: Final = (
    ((0.0184, 0.0), (0.0184, 0.012), 0.0305),
    ((0.0218, 0.0084), (0.0149, 0.038), 0.0110),
    ((0.0086, 0.036), (0.0086, 0.056), 0.0100),
    ((0.0062, 0.054), (0.0039, 0.0964), 0.0040),
)
FINGER_WIDTH: Final = 0.0100
"""Half of a finger's width along x (m)."""
# Bullet multiplies the friction of the two, MuJoCo takes the larger: these are the products with the table's 0.5
FINGER_FRICTION: Final = (0.5, 0.005, 0.0001)
ROBOT_FRICTION: Final = (0.25, 0.005, 0.0001)


def add_panda(spec: Any, *, solid: bool = True) -> None:
    """Adds the arm, the hand, its camera, the TCP site and the eight actuators to a model.

    Args:
        spec: the mujoco.MjSpec to add to.
        solid: with skin and contact shapes. Inverse kinematics needs neither.
    """
    base = spec.worldbody.add_body(name="link0", pos=BASE)
    _set_inertia(base, LINK_MASS, LINK_INERTIA)
    parents = [base]
    for number, link in enumerate(LINKS, 1):
        body = parents[-1].add_body(name=f"link{number}", pos=link.position, quat=link.quaternion, gravcomp=1)
        _set_inertia(body, LINK_MASS, LINK_INERTIA)
        body.add_joint(name=f"joint{number}", axis=[0, 0, 1], range=link.limits, armature=ARMATURE)
        parents.append(body)
    hand = _add_hand(parents[-1])
    _add_fingers(hand, solid=solid)
    _add_actuators(spec)
    if solid:
        _add_skin(parents)
        _add_contact_shapes(spec, hand)


def _set_inertia(body: Any, mass: float, inertia: float) -> None:
    body.explicitinertial = True
    body.mass, body.inertia = mass, [inertia] * 3


def _add_hand(flange: Any) -> Any:
    hand = flange.add_body(name="hand", pos=[0, 0, 0.107], quat=[np.cos(np.pi / 8), 0, 0, -np.sin(np.pi / 8)])
    hand.gravcomp = 1
    _set_inertia(hand, LINK_MASS, LINK_INERTIA)
    hand.add_site(name="tcp", pos=[0, 0, TCP_IN_HAND], group=4)
    mount = to_matrix(np.array([1.3, 0.0, -1.57]))
    forward, up = mount[:, 1], -mount[:, 2]
    camera = hand.add_camera(name="gripper", pos=[-0.1, 0, 0], fovy=75)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = np.concatenate([np.cross(forward, up), up])
    return hand


def _add_fingers(hand: Any, *, solid: bool) -> None:
    for side, sign in (("left", 1), ("right", -1)):
        finger = hand.add_body(name=f"finger_{side}", pos=[0, 0, 0.0584], gravcomp=1)
        _set_inertia(finger, FINGER_MASS, 5e-5)
        slide = mujoco.mjtJoint.mjJNT_SLIDE
        joint = finger.add_joint(name=f"finger_{side}", type=slide, axis=[0, sign, 0], range=[0, FINGER_OPEN])
        joint.solref_limit, joint.solimp_limit[:2] = STIFF_END
        if solid:
            _add_finger_shapes(finger, sign)


def _add_finger_shapes(finger: Any, sign: int) -> None:
    """CALVIN's long finger is a wedge: 21 mm thick at its root, 3 mm at the tip, which lies 15 mm past the TCP."""
    box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "mass": 0}
    solid = {**box, **ROBOT_CONTACT, "group": HIDDEN, "friction": FINGER_FRICTION}
    for part, (width, near, far, low, high) in FINGER_BOXES.items():
        middle = [0, sign * (near + far) / 2, (low + high) / 2]
        size = [width, (far - near) / 2, (high - low) / 2]
        finger.add_geom(name=f"{finger.name}_{part}", pos=middle, size=size, **solid)
    for (near, low), (far, high), thickness in FINGER_SKIN:
        length, half = np.hypot(far - near, high - low), np.arctan2(sign * (near - far), high - low) / 2
        size, turn = [FINGER_WIDTH, thickness / 2, length / 2], [np.cos(half), np.sin(half), 0, 0]
        middle = [0, sign * (near + far) / 2, (low + high) / 2]
        finger.add_geom(pos=middle, quat=turn, size=size, rgba=FINGER, group=VISIBLE, **box, **NO_CONTACT)


def _add_actuators(spec: Any) -> None:
    for number, link in enumerate(LINKS, 1):
        add_servo(spec, f"joint{number}", DAMPING, link.limits)
    for side in ("left", "right"):
        add_servo(spec, f"finger_{side}", FINGER_DAMPING, (FINGER_CLOSED, FINGER_OPEN))


def add_servo(spec: Any, joint: str, damping: float, limits: tuple[float, float]) -> None:
    """Adds a position servo that approaches its target at `RATE`, named after its joint."""
    servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=RATE * damping, kv=damping)
    servo.ctrlrange = limits


def _add_skin(links: list[Any]) -> None:
    capsule = {"type": mujoco.mjtGeom.mjGEOM_CAPSULE, "mass": 0, "group": VISIBLE, **NO_CONTACT}
    for link in links:
        for ends, radius, colour in SKIN[link.name]:
            link.add_geom(fromto=ends, size=[radius, 0, 0], rgba=colour, **capsule)


def _add_contact_shapes(spec: Any, hand: Any) -> None:
    solid = {"mass": 0, "friction": ROBOT_FRICTION, **ROBOT_CONTACT}
    box = {"type": mujoco.mjtGeom.mjGEOM_BOX}
    hand.add_geom(pos=[0, 0, 0.005], size=[0.0316, 0.104, 0.015], rgba=WHITE, group=VISIBLE, **solid, **box)
    hand.add_geom(pos=[0, 0, 0.043], size=[0.021, 0.100, 0.023], group=HIDDEN, **solid, **box)
    seen = {"mass": 0, "group": VISIBLE, **NO_CONTACT}
    hand.add_geom(pos=[0, 0, 0.040], size=[0.0185, 0.100, 0.020], rgba=WHITE, **seen, **box)
    wrist = {"type": mujoco.mjtGeom.mjGEOM_CAPSULE, "group": HIDDEN, **solid}
    spec.body("link7").add_geom(fromto=[0, 0, 0, 0, 0, 0.08], size=[0.05, 0, 0], **wrist)
    spec.body("link5").add_geom(fromto=[0, 0.06, -0.20, 0, 0.07, -0.03], size=[0.05, 0, 0], **wrist)

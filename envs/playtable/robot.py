"""The Franka Panda as CALVIN mounts it: public kinematics and inertias, position servos, and a skin of primitives.

Numbers: Franka's published DH parameters and identified inertias (Gaz et al. 2019, "Dynamic identification of the
Franka Emika Panda"); base, home pose, hand and fingers as measured in CALVIN. The skin is for the eye only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import mujoco
import numpy as np

from envs.playtable.rotation import to_matrix

HOME: Final = np.array([-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866])
BASE: Final = (-0.34, -0.46, 0.24)
TCP_IN_HAND: Final = 0.14
FINGER_OPEN: Final = 0.04
# a closing target beyond zero makes the fingers press what they hold
FINGER_CLOSED: Final = -0.005

# the arm follows its target like CALVIN's: half of a small step after one control step
STIFFNESS: Final = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
LAG: Final = 1 / 20
TORQUE: Final = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)

WHITE: Final = (0.93, 0.93, 0.93, 1.0)
GREY: Final = (0.72, 0.73, 0.76, 1.0)
DARK: Final = (0.20, 0.20, 0.22, 1.0)
RUBBER: Final = (0.12, 0.12, 0.14, 1.0)

# who meets whom: robot with table and blocks, blocks with everything, table parts never with each other
ROBOT_CONTACT: Final = {"contype": 2, "conaffinity": 5}
NO_CONTACT: Final = {"contype": 0, "conaffinity": 0}
VISIBLE, HIDDEN = 2, 3

_H = 2**-0.5


@dataclass(frozen=True)
class Link:
    """A link and the revolute joint about its z axis that carries it."""

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    limits: tuple[float, float]
    mass: float
    centre: tuple[float, float, float]
    inertia: tuple[float, float, float, float, float, float]


LINKS: Final = (
    Link(
        (0, 0, 0.333), (1, 0, 0, 0), (-2.8973, 2.8973),
        4.970684, (0.003875, 0.002081, -0.04762), (0.70337, 0.70661, 0.009117, -0.000139, 0.006772, 0.019169),
    ),
    Link(
        (0, 0, 0), (_H, -_H, 0, 0), (-1.7628, 1.7628),
        0.646926, (-0.003141, -0.02872, 0.003495), (0.007962, 0.02811, 0.025995, -0.003925, 0.010254, 0.000704),
    ),
    Link(
        (0, -0.316, 0), (_H, _H, 0, 0), (-2.8973, 2.8973),
        3.228604, (0.027518, 0.039252, -0.066502), (0.037242, 0.036155, 0.01083, -0.004761, -0.011396, -0.012805),
    ),
    Link(
        (0.0825, 0, 0), (_H, _H, 0, 0), (-3.0718, -0.0698),
        3.587895, (-0.05317, 0.104419, 0.027454), (0.025853, 0.019552, 0.028323, 0.007796, -0.001332, 0.008641),
    ),
    Link(
        (-0.0825, 0.384, 0), (_H, -_H, 0, 0), (-2.8973, 2.8973),
        1.225946, (-0.011953, 0.041065, -0.038437), (0.035549, 0.029474, 0.008627, -0.002117, -0.004037, 0.000229),
    ),
    Link(
        (0, 0, 0), (_H, _H, 0, 0), (-0.0175, 3.7525),
        1.666555, (0.060149, -0.014117, -0.010517), (0.001964, 0.004354, 0.005433, 0.000109, -0.001158, 0.000341),
    ),
    Link(
        (0.088, 0, 0), (_H, _H, 0, 0), (-2.8973, 2.8973),
        0.735522, (0.010517, -0.004252, 0.061597), (0.012516, 0.010027, 0.004815, -0.000428, -0.001196, -0.000741),
    ),
)  # fmt: skip

# capsules of every link: both ends (m, in the link's frame), radius, colour
Capsule = tuple[tuple[float, float, float, float, float, float], float, tuple[float, float, float, float]]
SKIN: Final[dict[str, tuple[Capsule, ...]]] = {
    "link0": (((-0.06, 0, 0.05, 0.02, 0, 0.05), 0.075, WHITE), ((0, 0, 0.07, 0, 0, 0.14), 0.065, GREY)),
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
    "link6": (((0, 0, -0.03, 0, 0, 0.04), 0.052, GREY), ((0.03, 0, 0, 0.088, 0, 0), 0.050, WHITE)),
    "link7": (((0, 0, -0.02, 0, 0, 0.06), 0.050, WHITE), ((0, 0, 0.08, 0, 0, 0.095), 0.040, DARK)),
}  # fmt: skip


def add_panda(spec: Any, *, solid: bool = True) -> None:
    """Adds the arm, the hand, its camera, the TCP site and the eight actuators to a model.

    Args:
        spec: the mujoco.MjSpec to add to.
        solid: with skin and contact shapes. Inverse kinematics needs neither.
    """
    base = spec.worldbody.add_body(name="link0", pos=BASE)
    _set_inertia(base, 0.63, (0, 0, 0.05), (0.003, 0.004, 0.004, 0, 0, 0))
    parents = [base]
    for number, link in enumerate(LINKS, 1):
        body = parents[-1].add_body(name=f"link{number}", pos=link.position, quat=link.quaternion, gravcomp=1)
        _set_inertia(body, link.mass, link.centre, link.inertia)
        body.add_joint(name=f"joint{number}", axis=[0, 0, 1], range=link.limits, armature=0.1, damping=[1, 0, 0])
        parents.append(body)
    hand = _add_hand(parents[-1])
    _add_fingers(spec, hand, solid=solid)
    _add_actuators(spec)
    if solid:
        _add_skin(parents)
        _add_contact_shapes(spec, hand)


def _set_inertia(body: Any, mass: float, centre: tuple[float, ...], inertia: tuple[float, ...]) -> None:
    body.explicitinertial = True
    body.mass, body.ipos, body.fullinertia = mass, centre, inertia


def _add_hand(flange: Any) -> Any:
    hand = flange.add_body(name="hand", pos=[0, 0, 0.107], quat=[np.cos(np.pi / 8), 0, 0, -np.sin(np.pi / 8)])
    hand.gravcomp = 1
    _set_inertia(hand, 0.81, (0, 0, 0.03), (0.0025, 0.001, 0.0017, 0, 0, 0))
    hand.add_site(name="tcp", pos=[0, 0, TCP_IN_HAND], group=4)
    mount = to_matrix(np.array([1.3, 0.0, -1.57]))
    forward, up = mount[:, 1], -mount[:, 2]
    camera = hand.add_camera(name="gripper", pos=[-0.1, 0, 0], fovy=75)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = np.concatenate([np.cross(forward, up), up])
    return hand


def _add_fingers(spec: Any, hand: Any, *, solid: bool) -> None:
    for side, sign in (("left", 1), ("right", -1)):
        finger = hand.add_body(name=f"finger_{side}", pos=[0, 0, 0.0584], gravcomp=1)
        _set_inertia(finger, 0.1, (0, 0, 0.03), (5e-5, 5e-5, 5e-5, 0, 0, 0))
        slide = mujoco.mjtJoint.mjJNT_SLIDE
        joint = finger.add_joint(name=f"finger_{side}", type=slide, axis=[0, sign, 0], range=[0, FINGER_OPEN])
        joint.armature, joint.damping = 0.1, [5, 0, 0]
        if solid:
            _add_finger_shapes(finger, sign)
    pair = spec.add_equality(name="fingers", type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT)
    pair.name1, pair.name2 = "finger_right", "finger_left"
    pair.data[:2], pair.solref[:], pair.solimp[:3] = [0, 1], [0.005, 1], [0.95, 0.99, 0.001]


def _add_finger_shapes(finger: Any, sign: int) -> None:
    box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "mass": 0, "group": VISIBLE, **ROBOT_CONTACT}
    finger.add_geom(pos=[0, sign * 0.014, 0.020], size=[0.010, 0.010, 0.020], rgba=DARK, **box)
    # the tip is 15 mm past the TCP, as in CALVIN
    pad = finger.add_geom(pos=[0, sign * 0.008, 0.066], size=[0.010, 0.007, 0.030], rgba=RUBBER, **box)
    pad.condim, pad.friction, pad.priority = 4, [1.5, 0.02, 0.0001], 1


def _add_actuators(spec: Any) -> None:
    for number, link in enumerate(LINKS):
        kp, torque = STIFFNESS[number], TORQUE[number]
        _add_servo(spec, f"joint{number + 1}", kp, kp * LAG, torque, link.limits)
    _add_servo(spec, "finger_left", 800.0, 30.0, 40.0, (FINGER_CLOSED, FINGER_OPEN))


def _add_servo(spec: Any, joint: str, kp: float, kv: float, force: float, limits: tuple[float, float]) -> None:
    servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=kp, kv=kv)
    servo.forcerange, servo.forcelimited, servo.ctrlrange = [-force, force], 1, limits


def _add_skin(links: list[Any]) -> None:
    capsule = {"type": mujoco.mjtGeom.mjGEOM_CAPSULE, "mass": 0, "group": VISIBLE, **NO_CONTACT}
    for link in links:
        for ends, radius, colour in SKIN[link.name]:
            link.add_geom(fromto=ends, size=[radius, 0, 0], rgba=colour, **capsule)


def _add_contact_shapes(spec: Any, hand: Any) -> None:
    box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "mass": 0}
    hand.add_geom(pos=[0, 0, 0.034], size=[0.024, 0.102, 0.030], rgba=WHITE, group=VISIBLE, **ROBOT_CONTACT, **box)
    hand.add_geom(pos=[0, 0, 0.062], size=[0.018, 0.088, 0.006], rgba=DARK, group=VISIBLE, **NO_CONTACT, **box)
    wrist = {"type": mujoco.mjtGeom.mjGEOM_CAPSULE, "mass": 0, "group": HIDDEN, **ROBOT_CONTACT}
    spec.body("link7").add_geom(fromto=[0, 0, 0, 0, 0, 0.08], size=[0.05, 0, 0], **wrist)
    spec.body("link5").add_geom(fromto=[0, 0.06, -0.20, 0, 0.07, -0.03], size=[0.05, 0, 0], **wrist)

"""How a table answers commands, pushes and resets: the same measurements on the embedded table and on CALVIN's own.

Every function takes a table without cameras and with a time limit of 1,000 steps or more, and returns values by the
names under which docs/playtable.md lists them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from envs.playtable.expert import CLOSED, DOWN, FROM_ABOVE, FROM_BELOW, OPEN, RIGHT, UP_THE_PANEL, steer
from envs.playtable.robot import HOME
from envs.playtable.rotation import Array, wrap
from envs.table import Table
from worldaction.spec import METRES_PER_UNIT, NULL_ACTION, RADIANS_PER_UNIT, ROBOT, ROBOT_FIELDS, SCENE, SCENE_FIELDS

Values = dict[str, list[float]]

STILL: Final = np.array(NULL_ACTION)
AT_HOME: Final = np.array([*np.zeros(6), 0.08, *HOME, 1.0])
BLOCKS: Final = ((0.05, -0.12, 0.46), (0.23, -0.12, 0.46), (0.0703, 0.0924, 0.46))
"""Where CALVIN's own evaluation puts them (m)."""
REPORTED: Final = (1, 2, 3, 4, 5, 8)
"""After how many control steps the response to a step is listed."""
MILLIMETRES: Final = 1000.0
SLOWLY, PUSH_STEPS = 0.06, 110
"""The command of a push, and how many steps of it."""


def table_at_rest(**values: float) -> Array:
    """scene_obs [24] with all parts at zero but those named, and the blocks out of the way."""
    scene = np.zeros(24)
    for name, value in values.items():
        scene[SCENE_FIELDS[name]] = value
    scene[6:] = np.concatenate([[*place, 0, 0, 0] for place in BLOCKS])
    return scene


def measure(env: Table) -> Values:
    """All measurements of this file, one after the other."""
    parts = (home, responses, speeds, steady_errors, gripper, contacts, triggers, button_release, lights_after_reset)
    return {name: values for part in parts for name, values in part(env).items()}


def _at_home(env: Table, settle: int = 0, **values: float) -> None:
    env.reset(seed=0, options={ROBOT: AT_HOME, SCENE: table_at_rest(**values)})
    for _ in range(settle):
        env.step(STILL)


def home(env: Table) -> Values:
    """Where CALVIN's home joints hold the TCP."""
    _at_home(env)
    robot = env.robot_obs()
    return {
        "TCP at home: x, y, z (mm)": list(MILLIMETRES * robot[:3]),
        "TCP at home: roll, pitch, yaw (rad)": list(robot[3:6]),
    }


def responses(env: Table) -> Values:
    """The share of a single command that is done after some control steps."""
    values: Values = {}
    for axis, name in enumerate(("x", "y", "z", "roll", "pitch", "yaw")):
        size = METRES_PER_UNIT if axis < 3 else RADIANS_PER_UNIT
        _at_home(env, settle=5)
        start = env.robot_obs()[:6]
        action = STILL.copy()
        action[axis] = 1
        done = []
        for _ in range(max(REPORTED)):
            env.step(action)
            action = STILL
            done.append(float(wrap(env.robot_obs()[:6] - start)[axis]) / size)
        what = "20 mm" if axis < 3 else "0.05 rad"
        steps = ", ".join(map(str, REPORTED))
        values[f"share of {what} in {name} done after {steps} steps"] = [done[step - 1] for step in REPORTED]
    return values


def speeds(env: Table) -> Values:
    """How fast the TCP is under constant commands, and how far behind the target after eight of them."""
    values: Values = {}
    for size in (0.5, 1.0):
        fastest, behind = [], []
        for axis in range(3):
            _at_home(env)
            action = STILL.copy()
            action[axis] = size
            places = [env.robot_obs()[axis]]
            for _ in range(8):
                env.step(action)
                places.append(env.robot_obs()[axis])
            fastest.append(MILLIMETRES * float(np.diff(places).max()))
            behind.append(MILLIMETRES * float(env.target_position[axis] - places[-1]))
        values[f"fastest step under a command of {size:g} in x, y, z (mm)"] = fastest
        values[f"lag after 8 such commands of {size:g} (mm)"] = behind
    return values


def steady_errors(env: Table) -> Values:
    """How far from its target the TCP comes to rest: inverse kinematics' pull towards home keeps it off."""
    values: Values = {}
    for name, place in {
        "before the drawer": (0.18, -0.30, 0.45),
        "at the slider's bar": (0.04, -0.03, 0.57),
        "to the right": (0.30, -0.10, 0.50),
    }.items():
        _at_home(env)
        _go(env, np.array(place), DOWN, OPEN, 100)
        error = float(np.linalg.norm(env.target_position - env.robot_obs()[:3]))
        values[f"distance from a target held {name} (mm)"] = [MILLIMETRES * error]
    return values


def gripper(env: Table) -> Values:
    """Width between the fingers, control step by control step."""
    values: Values = {}
    _at_home(env)
    for name, command in (("closing", CLOSED), ("opening", OPEN)):
        action = STILL.copy()
        action[6] = command
        widths = []
        for _ in range(12):
            env.step(action)
            widths.append(MILLIMETRES * float(env.robot_obs()[ROBOT_FIELDS["gripper_width"]].item()))
        values[f"width while {name}, first 6 steps (mm)"] = widths[:6]
    return values


class _Push(NamedTuple):
    """How a part is pushed: from where, with what hand, which way."""

    part: str
    start: float
    """Joint value (m)."""
    way: tuple[tuple[float, float, float], ...]
    """Places on the way there (m)."""
    euler: Array
    gripper: float
    direction: tuple[float, float, float]


def _leaning(pitch: float) -> Array:
    return np.array([RIGHT[0], pitch, RIGHT[1]])


_UP: Final = (0.0, float(UP_THE_PANEL[1]), float(UP_THE_PANEL[2]))
_DOWN: Final = (0.0, -_UP[1], -_UP[2])
PUSHES: Final = {
    "the drawer is opened": _Push(
        "drawer", 0, ((0.18, -0.21, 0.50), (0.18, -0.21, 0.376)), DOWN, CLOSED, (0, -1, 0)
    ),
    "the drawer is closed": _Push(
        "drawer", 0.2, ((0.18, -0.50, 0.50), (0.18, -0.50, 0.376)), DOWN, CLOSED, (0, 1, 0)
    ),
    "the door goes left": _Push("slider", 0, ((0.04, -0.07, 0.575), (0.04, 0.015, 0.57)), DOWN, OPEN, (-1, 0, 0)),
    "the door goes right": _Push(
        "slider", 0.25, ((-0.21, -0.07, 0.575), (-0.21, 0.015, 0.57)), DOWN, OPEN, (1, 0, 0)
    ),
    "the button is pressed": _Push("button", 0, ((-0.12, -0.12, 0.53),), DOWN, CLOSED, (0, 0, -1)),
    "the lever is lifted": _Push(
        "switch", 0, ((0.30, -0.10, 0.50), (0.30, 0.02, 0.480)), _leaning(FROM_BELOW), CLOSED, _UP
    ),
    "the lever is pressed": _Push(
        "switch", 0.088, ((0.29, 0.02, 0.68), (0.30, 0.075, 0.66)), _leaning(FROM_ABOVE), CLOSED, _DOWN
    ),
}  # fmt: skip


def contacts(env: Table) -> Values:
    """Where the TCP is, along the way of a slow push, when the part has followed by a given distance."""
    values: Values = {}
    for name, push in PUSHES.items():
        reach = 0.012 if push.part == "button" else 0.020
        seen = _pushed(env, push)
        place = float(np.interp(reach, np.abs(seen.joint - push.start), seen.tcp))
        values[f"TCP along its way when {name} by {MILLIMETRES * reach:.0f} mm (mm)"] = [MILLIMETRES * place]
    return values


def triggers(env: Table) -> Values:
    """Half-way between the joint's last value with the old light and its first with the new one."""
    values: Values = {}
    for name, push, light in (
        ("the led changes at a button of (mm)", "the button is pressed", "led"),
        ("the bulb goes on at a switch of (mm)", "the lever is lifted", "lightbulb"),
        ("the bulb goes off at a switch of (mm)", "the lever is pressed", "lightbulb"),
    ):
        seen = _pushed(env, PUSHES[push])
        lit = getattr(seen, light)
        first = int(np.argmax(lit != lit[0]))
        values[name] = [MILLIMETRES * float(seen.joint[first - 1] + seen.joint[first]) / 2]
    return values


class _Seen(NamedTuple):
    """A push, step by step."""

    tcp: Array
    """[T] along the direction of the push (m)."""
    joint: Array
    """[T] (m)."""
    led: Array
    lightbulb: Array


def _pushed(env: Table, push: _Push) -> _Seen:
    """Goes there, comes to rest, and pushes slowly."""
    scene = table_at_rest(**{push.part: push.start, "lightbulb": float(push.part == "switch" and push.start > 0)})
    env.reset(seed=0, options={ROBOT: AT_HOME, SCENE: scene})
    for place in push.way:
        _go(env, np.array(place), push.euler, push.gripper, 60)
    _go(env, np.array(push.way[-1]), push.euler, push.gripper, 12, near=0)
    action = np.array([*np.multiply(SLOWLY, push.direction), 0, 0, 0, push.gripper])
    rows = []
    for _ in range(PUSH_STEPS):
        env.step(action)
        scene = env.scene_obs()
        at = [scene[SCENE_FIELDS[name]] for name in (push.part, "led", "lightbulb")]
        rows.append([env.robot_obs()[:3] @ np.array(push.direction), *at])
    return _Seen(*np.array(rows).T)


def _go(env: Table, place: Array, euler: Array, gripper: float, steps: int, near: float = 0.004) -> None:
    for _ in range(steps):
        env.step(steer(env, place, euler, gripper))
        if np.linalg.norm(env.tcp_position - place) < near:
            return


def button_release(env: Table) -> Values:
    """How a pressed button comes out again."""
    _at_home(env, button=0.02)
    values = []
    for _ in range(4):
        env.step(STILL)
        values.append(MILLIMETRES * float(env.scene_obs()[SCENE_FIELDS["button"]]))
    return {"button let go at 20 mm, next 4 steps (mm)": values}


def lights_after_reset(env: Table) -> Values:
    """What a step makes of a state whose switch and bulb contradict each other."""
    values: Values = {}
    for name, switch, bulb in (("up and the bulb off", 0.088, 0.0), ("down and the bulb on", 0.0, 1.0)):
        _at_home(env, switch=switch, lightbulb=bulb)
        env.step(STILL)
        values[f"bulb one step after a reset to the switch {name}"] = [
            float(env.scene_obs()[SCENE_FIELDS["lightbulb"]])
        ]
    return values

"""Scripted experts of all tasks: a few waypoints of the TCP each, followed with relative actions.

As in CALVIN's sample data the drawer is hooked behind its bar and pushed at its bar, the door is dragged by open
fingers astride its bar, the switch's lever is lifted from below and pressed from above, the button is pressed with the
tips; a block is pushed with closed fingers that are turned as it is, and gripped across its narrow sides. They make the
demonstrations and, spoilt on purpose, the play data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from envs.playtable.rotation import Array, wrap
from envs.table import Table
from envs.tasks import RANGES, BlockTask, Task, get_task
from worldaction.errors import UserError
from worldaction.spec import METRES_PER_UNIT, RADIANS_PER_UNIT

OPEN, CLOSED = 1.0, -1.0
# fingers down and opening along x; the switch is reached leaning forward, or the arm is too short
DOWN: Final = np.array([np.pi, 0.0, np.pi / 2])
# roll and yaw on the right of the arm, as in scenes A and D, and on its left
RIGHT, LEFT = (2.84, np.pi / 2), (3.44, 2.0)
FROM_BELOW, FROM_ABOVE = -0.90, -0.75
UP_THE_PANEL: Final = np.array([0.0, 0.5, np.sqrt(0.75)])
LONGEST_WAYPOINT: Final = 45
# how far back the hand is at door and switch, and nowhere else (m)
AT_THE_PANEL: Final = -0.08
# a block that has moved by so much has to be looked at again; fingers that are nearer to each other are empty (m)
MOVED, EMPTY, ATTEMPTS = 0.012, 0.018, 4
# half the width of the closed fingers, and where their tips' middle touches a block above its own (m)
FINGERS, PUSH_HEIGHT = 0.0125, 0.006
# how far a block is pushed and lifted, somewhat further than the tightest success asks, and where it is held (m)
PUSH, LIFT, GRIP_HEIGHT = 0.145, 0.12, 0.003
# a relative waypoint at which the hand only opens or closes
STAY: Final = np.zeros(3)


@dataclass(frozen=True)
class Waypoint:
    """Where the TCP shall go next."""

    position: Array
    """[3] in the world, or the offset from where the TCP is when the waypoint begins (m)."""
    euler: Array
    """[3] rad."""
    gripper: float
    tolerance: float
    """How near is there (m)."""
    speed: float
    """Largest step of the target per control step (units of 2 cm)."""
    dwell: int = 0
    """Control steps to stay there."""
    relative: bool = False
    longest: int = LONGEST_WAYPOINT
    """Control steps after which it is given up."""
    untouched: bool = False
    """Whether a block that has moved meanwhile is a mishap."""
    holding: bool = False
    """Whether empty fingers are a mishap."""


class Expert:
    """Solves one task from the state the environment is in.

    Args:
        env: the environment it acts in, just reset or in the middle of play.
        task: name of the task.
        rng: needed for `offset` and `haste` only.
        offset: standard deviation of a displacement of all waypoints (m).
        haste: 0 is careful, 1 multiplies tolerances by up to 5 and speeds by up to 1.6.
        pace: share of the full speed; scripts are twice as quick as the people whose play CALVIN recorded.
        clear: the hand first leaves what the last task was done with, and only then looks where things are. Needed
            where tasks follow each other the moment they are done, as in CALVIN's chains: the way straight to the first
            waypoint leads through the drawer's bar, which moves with the hand.

    Raises:
        UserError: unknown task, or randomness without a generator.
    """

    def __init__(
        self,
        env: Table,
        task: str,
        rng: np.random.Generator | None = None,
        *,
        offset: float = 0.0,
        haste: float = 0.0,
        pace: float = 1.0,
        clear: bool = False,
    ) -> None:
        if not 0 < pace <= 1:
            raise UserError(f"pace {pace} of an expert is outside (0, 1]; 1 is its full speed")
        if (offset or haste) and rng is None:
            raise UserError(f"an expert with offset {offset} and haste {haste} needs a generator: pass rng")
        self._env, self._task, self._rng = env, get_task(task, env.scene.name), rng
        self._offset, self._haste, self._pace = offset, haste, pace
        self._begun = env.scene_obs()
        self._attempts = 0
        self._succeeded = self.done = False
        self._plan()
        if clear:
            self._waypoints = [_leave(env)]
        self._attempts = 0 if clear else 1

    def _plan(self) -> None:
        """Waypoints from the state the environment is in."""
        self._waypoints = [replace(w, speed=self._pace * w.speed) for w in _waypoints(self._env, self._task)]
        if self._rng is not None and (self._offset or self._haste):
            self._waypoints = _spoil(self._waypoints, self._rng, self._offset, self._haste)
        if self._attempts:
            self._waypoints.insert(0, _retreat(self._env.target_euler, OPEN, y=0, z=0.08))
        self._planned = self._env.scene_obs()
        self._goal: Array | None = None
        self._start = self._env.target_position
        self._age = self._dwelt = 0

    def _look_again(self) -> bool:
        """Has the hand left what it held, or an attempt at a block gone wrong?"""
        task = self._task
        if not self._attempts:
            return not self._waypoints
        if not isinstance(task, BlockTask) or self._attempts == ATTEMPTS:
            return False
        scene = self._env.scene_obs()
        if not self._waypoints or not task.possible(scene):
            return not self._waypoints and not self._succeeded and bool(task.possible(scene))
        waypoint, place = self._waypoints[0], slice(task.entry("x"), task.entry("z"))
        moved = np.linalg.norm((scene - self._planned)[place]) > MOVED
        empty = self._env.robot_obs()[6] < EMPTY
        return bool((waypoint.untouched and moved) or (waypoint.holding and empty))

    def act(self) -> Array:
        """The next action [7]; once `done`, the null action with the gripper as it is."""
        self._succeeded = self._succeeded or bool(self._task.achieved(self._begun, self._env.scene_obs()))
        if self._look_again():
            self._plan()
            self._attempts += 1
        if self.done or not self._waypoints:
            self.done = True
            return np.array([0, 0, 0, 0, 0, 0, self._env.gripper_action])
        waypoint = self._waypoints[0]
        if self._goal is None:
            self._goal = waypoint.position + (self._env.tcp_position if waypoint.relative else 0)
            self._start = self._env.target_position
        action = steer(self._env, self._next_point(self._goal, waypoint.speed), waypoint.euler, waypoint.gripper)
        self._age += 1
        self._dwelt += bool(np.linalg.norm(self._goal - self._env.tcp_position) < waypoint.tolerance)
        if self._dwelt > waypoint.dwell or self._age > waypoint.longest:
            self._waypoints = self._waypoints[1:]
            self._goal, self._age, self._dwelt = None, 0, 0
        return action

    def _next_point(self, goal: Array, speed: float) -> Array:
        """[3] the point `speed` further on the line to the goal: what strays from the line is taken back at once."""
        line = goal - self._start
        length = max(float(np.linalg.norm(line)), 1e-9)
        done = float((self._env.target_position - self._start) @ line) / length
        point: Array = self._start + line * min(1.0, (done + speed * METRES_PER_UNIT) / length)
        return point


def steer(env: Table, position: Array, euler: Array, gripper: float, speed: float = 1.0) -> Array:
    """The action [7] that moves the target straight towards a pose.

    Args:
        env: whose target it is.
        position: [3] in the world (m).
        euler: [3] (rad).
        gripper: -1 closed, +1 open.
        speed: largest translation, in units of the action.
    """
    move = (position - env.target_position) / METRES_PER_UNIT
    move *= min(1.0, speed / max(float(np.linalg.norm(move)), 1e-9))
    turn = np.clip(wrap(euler - env.target_euler) / RADIANS_PER_UNIT, -1, 1)
    return np.clip(np.concatenate([move, turn, [gripper]]), -1, 1)


def _spoil(waypoints: list[Waypoint], rng: np.random.Generator, offset: float, haste: float) -> list[Waypoint]:
    shift = rng.normal(0, offset, 3)
    spoilt = []
    for waypoint in waypoints:
        tolerance = waypoint.tolerance * (1 + haste * rng.uniform(0, 4))
        speed = min(1.0, waypoint.speed * (1 + haste * rng.uniform(0, 0.6)))
        position = waypoint.position + (0 if waypoint.relative else shift)
        spoilt.append(replace(waypoint, position=position, tolerance=tolerance, speed=speed))
    return spoilt


def _waypoints(env: Table, judged: Task) -> list[Waypoint]:
    if isinstance(judged, BlockTask):
        return _push(env, judged) if judged.field == "x" else _lift(env, judged)
    task = judged.name
    if task.endswith("drawer"):
        return _drawer(env, opening=task == "open_drawer")
    if "slider" in task:
        return _slider(env, left=task == "move_slider_left")
    if "lightbulb" in task:
        return _switch(env, on=task == "turn_on_lightbulb")
    return _button(env)


def _retreat(euler: Array, gripper: float, x: float = 0, y: float = -0.03, z: float = 0.07) -> Waypoint:
    return Waypoint(_by(x, y, z), euler, gripper, 0.02, 0.8, relative=True)


def _leave(env: Table) -> Waypoint:
    """Back from the panel, up from anywhere else, with the hand as it is."""
    back, up = (-0.09, 0.01) if env.tcp_position[1] > AT_THE_PANEL else (0.0, 0.12)
    return _retreat(env.target_euler, env.gripper_action, y=back, z=up)


def _by(x: float, y: float, z: float) -> Array:
    return np.array([x, y, z])


def _drawer(env: Table, *, opening: bool) -> list[Waypoint]:
    handle = env.site("drawer_handle")
    drawer = env.scene_obs()[1]
    # the tips reach 15 mm below the TCP, the bar is 40 mm high
    side = handle + (_by(0, 0.038, 0.016) if opening else _by(0, -0.036, 0.016))
    travel = -(RANGES["drawer"] - drawer) - 0.015 if opening else drawer + 0.025
    return [
        Waypoint(_by(side[0], side[1], 0.50), DOWN, CLOSED, 0.02, 1.0),
        Waypoint(side, DOWN, CLOSED, 0.010, 1.0),
        Waypoint(side + _by(0, travel, 0), DOWN, CLOSED, 0.012, 0.7, dwell=2),
        _retreat(DOWN, CLOSED, y=0.02 if opening else -0.03),
    ]


def _slider(env: Table, *, left: bool) -> list[Waypoint]:
    handle = env.site("slider_handle")
    slider = env.scene_obs()[0]
    travel = -(env.scene.ranges["slider"] - slider + 0.03) if left else slider + 0.03
    return [
        Waypoint(handle + _by(0, -0.09, 0.005), DOWN, OPEN, 0.02, 1.0),
        Waypoint(handle, DOWN, OPEN, 0.010, 0.8),
        Waypoint(handle + _by(travel, 0, 0), DOWN, OPEN, 0.012, 0.7, dwell=2),
        _retreat(DOWN, OPEN, y=-0.08, z=0.01),
    ]


def _switch(env: Table, *, on: bool) -> list[Waypoint]:
    lever, switch = env.site("switch_lever"), env.scene_obs()[3]
    roll, yaw = RIGHT if lever[0] > 0 else LEFT
    lean = np.array([roll, FROM_BELOW if on else FROM_ABOVE, yaw])
    if on:
        under = lever + _by(0, 0.0, -0.038)
        return [
            Waypoint(under + _by(-0.01, -0.14, 0.06), lean, CLOSED, 0.03, 1.0),
            Waypoint(under + _by(0, -0.06, 0), lean, CLOSED, 0.015, 1.0),
            Waypoint(under, lean, CLOSED, 0.010, 0.8),
            Waypoint(under + UP_THE_PANEL * (RANGES["switch"] - switch + 0.012), lean, CLOSED, 0.012, 0.6, dwell=2),
            _retreat(lean, CLOSED, y=-0.07, z=0.01),
        ]
    above = lever + _by(0, 0.010, 0.048)
    return [
        Waypoint(above + _by(-0.01, -0.06, 0.03), lean, CLOSED, 0.03, 1.0),
        Waypoint(above, lean, CLOSED, 0.010, 0.8),
        Waypoint(above - UP_THE_PANEL * (switch + 0.02), lean, CLOSED, 0.012, 0.6, dwell=2),
        _retreat(lean, CLOSED),
    ]


def _button(env: Table) -> list[Waypoint]:
    cap = env.site("button")
    return [
        Waypoint(cap + _by(0, 0, 0.06), DOWN, CLOSED, 0.015, 1.0),
        # down to its end, which is further than where it switches
        Waypoint(cap + _by(0, 0, -0.012), DOWN, CLOSED, 0.008, 0.7, dwell=2),
        _retreat(DOWN, CLOSED),
    ]


def _block(env: Table, task: BlockTask) -> tuple[Array, float, Array]:
    """Position [3] (m) and yaw (rad) of a task's block, and its half sides [3] (m)."""
    first = task.entry("x")
    pose = env.scene_obs()[first : first + 6]
    sizes = dict(env.scene.blocks)
    return pose[:3], float(pose[5]), np.array(sizes[f"block_{task.block}"])


def _nearest(angle: float, period: float) -> float:
    """The angle (rad) without its whole periods: between plus and minus half of one."""
    return (angle + period / 2) % period - period / 2


def _push(env: Table, task: BlockTask) -> list[Waypoint]:
    middle, yaw, half = _block(env, task)
    turn = _nearest(yaw, np.pi / 2)
    face = task.sign * _by(np.cos(turn), np.sin(turn), 0)
    # which of its sides is struck: the ends of its length, or its flanks
    deep = half[0] if abs(np.cos(yaw - turn)) > 0.5 else half[1]
    touch = middle - face * (deep + FINGERS) + _by(0, 0, PUSH_HEIGHT)
    hand = DOWN + _by(0, 0, turn)
    behind = touch - face * 0.02
    # at right angles to that side, or it slips off
    far = face * PUSH / np.cos(turn)
    return [
        Waypoint(behind + _by(0, 0, 0.08), hand, CLOSED, 0.02, 1.0, longest=90, untouched=True),
        Waypoint(behind, hand, CLOSED, 0.010, 1.0, dwell=1, untouched=True),
        Waypoint(touch + far, hand, CLOSED, 0.012, 0.8, dwell=1),
        _retreat(hand, CLOSED, x=-0.02 * task.sign, y=0),
    ]


def _lift(env: Table, task: BlockTask) -> list[Waypoint]:
    middle, yaw, half = _block(env, task)
    cube = np.allclose(half, half[0])
    hand = DOWN + _by(0, 0, _nearest(yaw if cube else yaw + np.pi / 2, np.pi / 2 if cube else np.pi))
    grip = middle + _by(0, 0, GRIP_HEIGHT)
    return [
        Waypoint(grip + _by(0, 0, 0.08), hand, OPEN, 0.015, 1.0, dwell=1, longest=90, untouched=True),
        Waypoint(grip, hand, OPEN, 0.012, 1.0, untouched=True),
        Waypoint(STAY, hand, CLOSED, 0.05, 1.0, dwell=3, relative=True),
        Waypoint(_by(0, 0, LIFT), hand, CLOSED, 0.015, 1.0, relative=True, holding=True),
        # and back, so that play does not drop it
        Waypoint(_by(0, 0, -LIFT), hand, CLOSED, 0.015, 0.8, relative=True),
        Waypoint(STAY, hand, OPEN, 0.05, 1.0, dwell=3, relative=True),
        _retreat(hand, OPEN, y=0),
    ]

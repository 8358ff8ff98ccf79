"""What CALVIN's robot was told, computed from how it moved: for data sets that keep the motion and not the commands.

CALVIN stores achieved moves (`rel_actions`), which lag what was commanded. Its arm follows a command in known steps:
the command moves a target, inverse kinematics turns the target into joint angles, and every joint goes a fixed share of
its way there in a control step. Each of the three is undone here, in the opposite order. A joint that something holds
back, or that is as fast as it can be, hides how far ahead its target is; such commands come out too small.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from envs.playtable.ik import kinematics
from envs.playtable.robot import RATE
from envs.playtable.rotation import Array, to_euler, wrap
from envs.playtable.scene import SUBSTEPS, TIMESTEP
from envs.playtable.tools.replay import Recording, Window
from envs.tasks import EIGHT
from worldaction.errors import UserError
from worldaction.play.readers.calvin import CalvinSplit, find_calvin
from worldaction.play.readers.npz import open_npz
from worldaction.spec import METRES_PER_UNIT, RADIANS_PER_UNIT, ROBOT, ROBOT_FIELDS, ROBOT_SIZE, SCENE

SHARE: Final = 1 - (1 - RATE * TIMESTEP) ** SUBSTEPS
"""Of the way to its goal that a free joint covers in a control step."""
CORRECTIONS: Final = 4
"""Rounds in which the pose is sought that inverse kinematics leads to the joint angles."""
UNIT: Final = np.array([METRES_PER_UNIT] * 3 + [RADIANS_PER_UNIT] * 3)
"""How far an action of one moves the target (m, rad)."""
SENT: Final = "sent_actions.npz"
"""A file that some sets carry beside CALVIN's own: what was truly commanded, as `from_<first frame>` [T, 7]."""


def recover_targets(joints: Array) -> Array:
    """Poses [T - 1, 6] (m, rad) that the robot was told to reach while it went from each frame to the next.

    Args:
        joints: [T, 7] of the arm in consecutive frames (rad).
    """
    return np.array([_target(now, now + (after - now) / SHARE) for now, after in pairwise(joints)])


def _target(now: Array, goal: Array) -> Array:
    """The pose [6] that inverse kinematics, asked at the joints `now`, answers with the joints `goal`."""
    solver = kinematics()
    wanted, turned = solver.forward(goal)
    position, orientation = wanted, turned
    for _ in range(CORRECTIONS):
        reached, rotation = solver.forward(solver.inverse(now, position, orientation))
        position, orientation = position + wanted - reached, turned @ rotation.T @ orientation
    return np.concatenate([position, to_euler(orientation)])


def recover_commands(robot_obs: Array, gripper: Array) -> tuple[Array, Array]:
    """Commands of consecutive frames, and where the target was before each of them.

    Args:
        robot_obs: [T, 15] in CALVIN's layout.
        gripper: [T] command of each frame, -1 or 1.

    Returns:
        actions [T, 7] in [-1, 1], and targets [T, 6] (m, rad). The last frame's action only keeps the gripper; before
        the first command the target is taken to have been where a command of the same size would have brought it from.

    Raises:
        UserError: fewer than three frames, or another shape.
    """
    if robot_obs.ndim != 2 or robot_obs.shape[1] != ROBOT_SIZE or len(robot_obs) < 3 or len(gripper) != len(robot_obs):
        raise UserError(f"robot_obs {robot_obs.shape} and gripper {gripper.shape}: give [T, 15] and [T], T at least 3")
    told = recover_targets(robot_obs[:, ROBOT_FIELDS["joints"]])
    actions = np.zeros((len(robot_obs), 7))
    actions[:, 6] = gripper
    targets = np.empty((len(robot_obs), 6))
    targets[0] = told[0] - UNIT * np.clip(_apart(told[1], told[0]) / UNIT, -1, 1)
    for frame, goal in enumerate(told):
        # what a clipped command leaves over is made up for by the next
        actions[frame, :6] = np.clip(_apart(goal, targets[frame]) / UNIT, -1, 1)
        targets[frame + 1] = targets[frame] + UNIT * actions[frame, :6]
    targets[:, 3:] = wrap(targets[:, 3:])
    return actions, targets


def _apart(pose: Array, other: Array) -> Array:
    """Difference [6] of two poses, angles wrapped."""
    return np.concatenate([pose[:3] - other[:3], wrap(pose[3:] - other[3:])])


class _Frames(NamedTuple):
    robot_obs: Array
    scene_obs: Array
    gripper: Array


def from_calvin(path: Path | str) -> Recording:
    """The annotated windows of a CALVIN set with their commands: those in its `sent_actions.npz`, else recovered ones.

    Args:
        path: the folder that holds `training` and `validation`.

    Raises:
        UserError: no CALVIN set, no annotated window of the eight tasks, or a file that is missing or damaged.
    """
    found = find_calvin(path)
    sent = _sent(Path(path) / SENT)
    columns: list[tuple[Array, ...]] = []
    windows: list[Window] = []
    for split in found.splits:
        for first, last in split.episodes:
            inside = [s for s in split.segments if first <= s.start and s.stop <= last + 1 and s.task in EIGHT]
            if not inside:
                continue
            frames = _read(split, first, last)
            if sent:
                actions, targets = _follow(frames.robot_obs, sent, first)
            else:
                actions, targets = recover_commands(frames.robot_obs, frames.gripper)
            begin = sum(len(column[0]) for column in columns)
            windows += [Window(s.task, begin + s.start - first, begin + s.stop - first) for s in inside]
            columns.append((frames.robot_obs, frames.scene_obs, actions, targets))
    if not windows:
        raise UserError(f"{path} has no annotated window of the eight tasks; give a set with lang_annotations")
    robot, scene, action, target = (np.concatenate(parts).astype(np.float32) for parts in zip(*columns, strict=True))
    source = f"{Path(path).name}, {len(windows)} annotated windows, commands {'as sent' if sent else 'recovered'}"
    return Recording(robot, scene, action, target, tuple(windows), recovered=not sent, source=source)


def _read(split: CalvinSplit, first: int, last: int) -> _Frames:
    """Consecutive frames without their images."""
    rows: list[tuple[Array, Array, float]] = []
    for number in range(first, last + 1):
        with open_npz(split.path(number)) as arrays:
            rows.append((arrays[ROBOT], arrays[SCENE], float(arrays["actions"][6])))
    robot, scene, gripper = zip(*rows, strict=True)
    return _Frames(np.stack(robot), np.stack(scene), np.array(gripper))


def _sent(path: Path) -> dict[int, Array]:
    """First frame of each run and its commands [T, 7]; empty where the set has no such file."""
    if not path.exists():
        return {}
    with open_npz(path) as arrays:
        return {int(name.removeprefix("from_")): np.clip(arrays[name], -1, 1) for name in arrays.names}


def _follow(robot_obs: Array, sent: dict[int, Array], first: int) -> tuple[Array, Array]:
    """Commands [T, 7] as sent, and the targets [T, 6] on the way to where the first of them is seen to lead."""
    if first not in sent or len(sent[first]) < len(robot_obs):
        raise UserError(f"{SENT} lacks commands of the {len(robot_obs)} frames from {first} on; record the set anew")
    actions = sent[first][: len(robot_obs)]
    # [T, 6]: how far the target has moved after each command
    moved = np.cumsum(UNIT * actions[:, :6], 0)
    told = recover_targets(robot_obs[:2, ROBOT_FIELDS["joints"]])[0]
    targets = told - moved[0] + np.concatenate([np.zeros((1, 6)), moved[:-1]])
    targets[:, 3:] = wrap(targets[:, 3:])
    return actions, targets

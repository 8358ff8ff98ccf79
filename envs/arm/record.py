"""Recordings of the arm as a lab has them: a sloppy person's attempts, some of which fail, as a LeRobot set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np

from envs.arm.demonstrator import Demonstrator
from envs.arm.env import IMAGES, RATE, STATE, ArmEnv, Observation
from envs.arm.robot import JOINTS, Array
from envs.arm.tasks import TASKS
from worldaction.errors import UserError
from worldaction.play.layout import Segment
from worldaction.play.lerobot_layout import CAMERA
from worldaction.play.writers.lerobot_robot import Robot, RobotSetWriter
from worldaction.spec import ACTION, ROBOT, Layout

ROBOT_KIND: Final = Robot("so100_follower", tuple(f"{joint}.pos" for joint in JOINTS))
CAMERAS: Final = {name.removeprefix(CAMERA): name for name in IMAGES}
"""The observation that each of the set's cameras is."""
LAYOUT: Final = Layout(tuple(CAMERAS), len(JOINTS), 0, len(JOINTS), (0.0,) * len(JOINTS), absolute=True)
TAIL: Final = 4
"""Control steps until the person notices the success and ends the recording."""
TRIES: Final = 40
"""Attempts for each one that is kept, after which it is not to be had."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a task: what was seen before every action."""

    seen: list[Observation]
    actions: list[Array]
    success: bool


def record(
    path: Path,
    *,
    episodes: int,
    failures: int,
    seed: int,
    tells_success: bool = True,
    renderer: str = "auto",
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Record a LeRobot set of all tasks in turns, as often each as the numbers allow.

    Args:
        path: the folder to create; it must not exist.
        episodes: how many in all.
        failures: how many of them fail.
        seed: of starts and of the person.
        tells_success: whether the set has a column that says how each episode ended.
        renderer: as for `ArmEnv`.
        progress: called with 1 after every episode.

    Raises:
        UserError: more failures than episodes, numbers below 0, a path that exists, or a renderer that is missing.
    """
    if not 0 <= failures <= episodes or not episodes:
        raise UserError(f"{failures} failures among {episodes} episodes: give --failures from 0 to --episodes, above 0")
    envs = {task: ArmEnv(task, renderer=renderer) for task in TASKS}
    wanted = _quotas(episodes - failures, failures)
    with RobotSetWriter(path, ROBOT_KIND, layout=LAYOUT, rate=RATE, tells_success=tells_success) as writer:
        for task, start in _starts(wanted, seed):
            attempt = attempt_at(envs[task], *start)
            if not wanted[task, attempt.success]:
                continue
            wanted[task, attempt.success] -= 1
            _write(writer, attempt, task)
            progress(1)
    for env in envs.values():
        env.close()


def attempt_at(env: ArmEnv, start: int, person: np.random.Generator, *, sloppiness: float = 1.0) -> Attempt:
    """One attempt from its start until it has succeeded, or the person gives up.

    Args:
        env: what to do.
        start: seed of the start.
        person: draws what the demonstrator does.
        sloppiness: see `Demonstrator`.
    """
    observation, info = env.reset(seed=start)
    hand = Demonstrator(env, person, sloppiness=sloppiness)
    seen, actions, late = [], [], TAIL
    while late and not hand.finished:
        seen.append(observation)
        actions.append(hand.act(observation))
        observation, _, _, _, info = env.step(actions[-1])
        late -= bool(info["is_success"])
    return Attempt(seen, actions, late < TAIL)


def _quotas(successes: int, failures: int) -> dict[tuple[str, bool], int]:
    """How many attempts are wanted, by task and outcome."""
    return {
        (task, success): total // len(TASKS) + (place < total % len(TASKS))
        for success, total in ((True, successes), (False, failures))
        for place, task in enumerate(TASKS)
    }


def _starts(wanted: dict[tuple[str, bool], int], seed: int) -> Iterator[tuple[str, tuple[int, np.random.Generator]]]:
    """Tasks in turns as long as attempts at them are wanted, with a start and a person each.

    Raises:
        UserError: an outcome that is wanted does not come.
    """
    most = TRIES * sum(wanted.values())
    for number, task in enumerate(cycle(TASKS)):
        if not any(wanted.values()):
            return
        if number == most:
            raise UserError(f"after {most} attempts, {sum(wanted.values())} of those wanted are missing; ask for fewer")
        if wanted[task, True] or wanted[task, False]:
            rng = np.random.default_rng([seed, number])
            yield task, (int(rng.integers(2**31)), rng)


def _write(writer: RobotSetWriter, attempt: Attempt, task: str) -> None:
    frames = {camera: np.stack([one[name] for one in attempt.seen]) for camera, name in CAMERAS.items()}
    frames[ROBOT] = np.stack([one[STATE] for one in attempt.seen])
    frames[ACTION] = np.stack(attempt.actions).astype(np.float32)
    writer.begin_episode(kind="demo")
    writer.append(frames)
    writer.end_episode([Segment(task, 0, len(attempt.actions), attempt.success, TASKS[task].sentence)])

"""Who shows the arm what to do: a script that knows where the blocks are, as careful or as sloppy as people are.

A sloppy hand aims beside the place that it means, wanders, and takes its time or hurries; it does not look again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from envs.arm.env import HOME_GRIPPER, RATE, ArmEnv
from envs.arm.robot import ARM, HIGHEST, LOWEST, Array, kinematics, pointing_down, to_radians, to_units
from envs.arm.tasks import ABOVE, HALF, PUSHED

SPEED: Final = 0.15
"""Of the hand (m/s)."""
SLOW: Final = 0.10
"""The same near a block."""
GRIPPING: Final = 150.0
"""How fast the gripper opens and closes (units/s)."""
PACE: Final = (0.75, 1.3)
"""What these are multiplied with, drawn anew for every attempt of a sloppy hand."""
PAUSE: Final = 8
"""Control steps in which the arm catches up with its target, and the gripper closes."""
LINGER: Final = 12
"""Control steps that follow the end, in which it is seen how it went."""
AIM: Final = np.array([0.009, 0.009, 0.002])
"""Deviation of where a sloppy hand aims (m)."""
AIM_YAW: Final = 0.12
"""The same for how it is turned (rad)."""
TREMBLE: Final = np.array([0.003, 0.003, 0.0015])
"""Deviation of its wandering (m), an Ornstein-Uhlenbeck process."""
TREMBLE_SECONDS: Final = 0.4
"""After so long it wanders elsewhere."""
OVER: Final = np.array([0, 0, 0.055])
"""How far above a block the hand comes in (m)."""
LOW: Final = HALF - 0.002
"""Height of the point between the jaws where it acts on a block (m)."""
OPEN, CLOSED = 42.0, 0.0
CLEARANCE: Final = 0.008
"""Room on both sides of a block between open jaws (m)."""
JAW: Final = 0.022
"""How far the outside of the fixed jaw is from the point between the jaws (m)."""
RUN_UP: Final = 0.016
"""From the block, where a push begins (m)."""
FOLLOW_THROUGH: Final = 0.026
"""How much farther than it must a push goes (m)."""
LIFT: Final = np.array([0, 0, 0.08])
"""How high a block is lifted (m)."""


@dataclass(frozen=True)
class Goal:
    """Where the hand is to be."""

    position: Array
    """[3] of the point between the jaws (m)."""
    yaw: float
    """See `Kinematics.inverse` (rad)."""
    gripper: float
    """In the robot's units."""


class Demonstrator:
    """One attempt at the task of an arm that has been reset.

    Args:
        env: an `ArmEnv`, or what wraps one.
        rng: draws what a sloppy hand does.
        sloppiness: 0 is careful, and the task is nearly always done; with 1 about three in ten attempts fail.

    Attributes:
        finished: whether the script has come to its end; from then on the hand stays where it is.
    """

    def __init__(self, env: Any, rng: np.random.Generator, *, sloppiness: float = 0.0) -> None:
        self._arm: ArmEnv = env.unwrapped
        self._rng, self._sloppiness = rng, sloppiness
        self._aim = sloppiness * rng.normal(0, AIM)
        self._turn = sloppiness * rng.normal(0, AIM_YAW)
        self._pace = rng.uniform(*PACE) if sloppiness else 1.0
        self._wandered = np.zeros(3)
        self._joints = self._arm.data.ctrl[:ARM].copy()
        self._goal = Goal(self._arm.data.site("tcp").xpos.copy(), 0.0, HOME_GRIPPER)
        self._script = self._of_task()
        self.finished = False

    def act(self, observation: Any = None) -> Array:
        """Joint positions [6] to go to, in the robot's units; the observation is not looked at."""
        self._goal = next(self._script, self._goal)
        self._joints = kinematics().inverse(self._joints, self._goal.position + self._wander(), self._goal.yaw)
        units = to_units(np.append(self._joints, to_radians(LOWEST)[ARM]))
        units[ARM] = self._goal.gripper
        return np.clip(units, LOWEST, HIGHEST)

    def _wander(self) -> Array:
        keep = np.exp(-1 / (RATE * TREMBLE_SECONDS))
        fresh = self._sloppiness * self._rng.normal(0, TREMBLE)
        self._wandered = keep * self._wandered + np.sqrt(1 - keep**2) * fresh
        return self._wandered

    # ---- scripts: a goal for every control step

    def _of_task(self) -> Iterator[Goal]:
        block = self._arm.data.body(f"{self._arm.task.colour}_block")
        place = block.xpos + self._aim
        yaw = float(np.arctan2(block.xmat[3], block.xmat[0])) + self._turn
        scripts = {
            "reach_the_red_block": self._reach,
            "push_the_blue_block_to_the_left": self._push,
            "pick_up_the_green_block": self._pick,
        }
        yield from scripts[self._arm.task.name](place, yaw)
        yield from self._wait(LINGER)
        self.finished = True

    def _reach(self, block: Array, yaw: float) -> Iterator[Goal]:
        yield from self._go(Goal(block + OVER, yaw, HOME_GRIPPER), SPEED)
        yield from self._go(Goal(block + ABOVE, yaw, HOME_GRIPPER), SLOW)
        yield from self._wait(PAUSE)

    def _push(self, block: Array, yaw: float) -> Iterator[Goal]:
        begin = np.array([block[0], block[1] + HALF + JAW + RUN_UP, LOW + self._aim[2]])
        end = begin - np.array([0, RUN_UP + PUSHED + FOLLOW_THROUGH, 0])
        yield from self._go(Goal(begin + OVER, self._turn, CLOSED), SPEED)
        yield from self._go(Goal(begin, self._turn, CLOSED), SLOW)
        yield from self._go(Goal(end, self._turn, CLOSED), SLOW)
        yield from self._wait(PAUSE)

    def _pick(self, block: Array, yaw: float) -> Iterator[Goal]:
        held = np.array([*block[:2], LOW + self._aim[2]])
        # the jaw that moves is the one ahead, so the hand comes in behind
        around = held - CLEARANCE * pointing_down(yaw)[:, 1]
        yield from self._go(Goal(around + OVER, yaw, OPEN), SPEED)
        yield from self._go(Goal(around, yaw, OPEN), SLOW)
        yield from self._wait(PAUSE // 2)
        yield from self._go(Goal(held, yaw, CLOSED), SLOW)
        yield from self._wait(PAUSE)
        yield from self._go(Goal(held + LIFT, yaw, CLOSED), SLOW)

    def _go(self, to: Goal, speed: float) -> Iterator[Goal]:
        """A straight line that begins and ends softly."""
        start = self._goal
        moving = float(np.linalg.norm(to.position - start.position)) / speed
        gripping = abs(to.gripper - start.gripper) / GRIPPING
        steps = max(1, round(max(moving, gripping) / self._pace * RATE))
        for step in range(1, steps + 1):
            share = step / steps
            share = share * share * (3 - 2 * share)
            yield Goal(
                start.position + share * (to.position - start.position),
                start.yaw + share * (to.yaw - start.yaw),
                start.gripper + share * (to.gripper - start.gripper),
            )

    def _wait(self, steps: int) -> Iterator[Goal]:
        for _ in range(steps):
            yield self._goal

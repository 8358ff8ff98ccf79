"""What the arm is asked to do, in a sentence, and when that is done: judged by where things are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worldaction.errors import unknown

Array = NDArray[np.float64]

COLOURS: Final = ("red", "blue", "green")
HALF: Final = 0.014
"""Half of a block's side (m)."""
STEADY: Final = 5
"""Control steps for which a task has to stay done."""
UNTOUCHED: Final = 0.01
"""How far a block that is not to be moved may be from where it was (m)."""
ABOVE: Final = np.array([0, 0, HALF + 0.014])
"""Where a block is reached, from its middle (m)."""
NEAR: Final = 0.0135
"""How far from there is near enough (m)."""
PUSHED: Final = 0.05
"""How far a push has to bring the block (m)."""
ASTRAY: Final = 0.012
"""How far to the side a pushed block may stray (m)."""
LIFTED: Final = 0.04
"""How high a block has to be held (m)."""
HELD: Final = 0.03
"""How far a held block may be from the point between the jaws (m)."""


@dataclass(frozen=True)
class Moment:
    """Where things are (m)."""

    tcp: Array
    """[3], of the point between the jaws."""
    blocks: Mapping[str, Array]
    """[3], by colour."""
    before: Mapping[str, Array]
    """[3], by colour, at the start of the episode."""

    def moved(self, colour: str) -> Array:
        """[3], how far a block is from where it was."""
        return self.blocks[colour] - self.before[colour]


@dataclass(frozen=True)
class Task:
    """A task."""

    name: str
    sentence: str
    colour: str
    """Of the block that it is about."""
    moves: bool
    """Whether that block may be moved."""
    is_done: Callable[[Moment, str], bool]

    def achieved(self, now: Moment) -> bool:
        """Whether the task is done, and nothing else is."""
        fixed = (colour for colour in COLOURS if colour != self.colour or not self.moves)
        untouched = all(np.linalg.norm(now.moved(colour)) <= UNTOUCHED for colour in fixed)
        return untouched and self.is_done(now, self.colour)


def _reached(now: Moment, colour: str) -> bool:
    return bool(np.linalg.norm(now.tcp - now.blocks[colour] - ABOVE) <= NEAR)


def _pushed_left(now: Moment, colour: str) -> bool:
    """Left is as the camera in front of the arm sees it: against y."""
    x, y, _ = now.moved(colour)
    return bool(-y >= PUSHED and abs(x) <= ASTRAY)


def _picked_up(now: Moment, colour: str) -> bool:
    held = np.linalg.norm(now.tcp - now.blocks[colour]) <= HELD
    return bool(held and now.moved(colour)[2] >= LIFTED)


TASKS: Final = {
    task.name: task
    for task in (
        Task("reach_the_red_block", "reach the red block", "red", False, _reached),
        Task("push_the_blue_block_to_the_left", "push the blue block to the left", "blue", True, _pushed_left),
        Task("pick_up_the_green_block", "pick up the green block", "green", True, _picked_up),
    )
}


def get_task(words: str) -> Task:
    """The task of that name, or of that sentence.

    Raises:
        UserError: there is none.
    """
    name = words.replace(" ", "_")
    if name not in TASKS:
        raise unknown("task", words, TASKS)
    return TASKS[name]

"""CALVIN's oracle for eight tasks of what is fixed to the table and three of blocks, and the starts that allow them.

The inequalities are those of CALVIN's new_playtable_tasks.yaml (Mees et al. 2022): strict, and comparing the scene now
with the scene at the start of the episode. This module needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldaction.errors import UserError, unknown
from worldaction.spec import SCENE_FIELDS, SCENE_SIZE

Span = tuple[float, float]

RANGES: Final = {"slider": 0.28, "drawer": 0.22, "button": 0.02, "switch": 0.088, "lightbulb": 1.0, "led": 1.0}
"""Largest value of each entry of `scene_obs` that a task moves; the smallest is zero (m; lights 0 or 1)."""

SLIDER_RANGES: Final = {"A": 0.28, "B": 0.304, "C": 0.24, "D": 0.28}
"""Travel of the sliding door in CALVIN's four scenes (m): all else that is fixed to the table is alike."""

BLOCK_ORDER: Final = {
    "A": ("pink", "blue", "red"),
    "B": ("red", "blue", "pink"),
    "C": ("blue", "red", "pink"),
    "D": ("red", "blue", "pink"),
}
"""Which block each six numbers of `scene_obs` from the seventh on are."""
BLOCK_SHIFT: Final = {"A": 0.0, "B": -0.20, "C": 0.0, "D": 0.0}
"""Where on the table there is room for blocks, along x, as seen from scene D (m)."""
ROOM: Final = (-0.02, 0.36), (-0.165, -0.03)
"""Where in scene D the arm can get at a block that lies on the table, x and y of its middle (m)."""
ALONG, ACROSS = (-0.6, 0.6), (np.pi / 2 - 0.25, np.pi / 2 + 0.25)
"""Yaw of a block (rad) whose length lies along x, more or less, and of one whose length lies across."""
HAND: Final = 0.06
"""How far behind a block the fingers need room to push it (m)."""
LYING, SLACK = 0.46, 0.01
"""Height of the middle of a block that lies on the table, and how near to it still is there (m)."""


@dataclass(frozen=True)
class Task:
    """One task: which number of the scene has to change, in which direction, and by how much."""

    name: str
    description: str
    """What a person would say to the robot."""
    field: str
    """The entry of `scene_obs` that is judged."""
    sign: int
    """+1 if it has to rise, -1 if it has to fall."""
    delta: float
    """By how much it has to change since the start (m; lights 0.5)."""
    joint: str
    """The entry of `scene_obs` that is set at the start of an episode."""
    start: Span
    """Range it is drawn from at the start: the whole range satisfies the task's precondition."""
    extra: float = 0.0
    """How much further than in scene D the joint goes (m)."""
    also: tuple[str, int, float] | None = None
    """Another entry of `scene_obs`, whether it has to be above (+1) or below (-1), and what (m)."""

    def achieved(self, start_scene: ArrayLike, scene: ArrayLike) -> NDArray[np.bool_]:
        """CALVIN's oracle: has the task been done since the start?

        Args:
            start_scene: [..., 24] the scene at the start of the episode.
            scene: [..., 24] the scene now.

        Returns:
            [...] bool.
        """
        change = self._value(scene) - self._value(start_scene)
        return np.asarray((self.sign * change > self.delta) & self._also(scene))

    def possible(self, scene: ArrayLike) -> NDArray[np.bool_]:
        """Is there room left to do the task within the joint's range?

        Args:
            scene: [..., 24].

        Returns:
            [...] bool.
        """
        goal = self._value(scene) + self.sign * self.delta
        return np.asarray((goal > 0) & (goal < RANGES[self.field] + self.extra))

    def _also(self, scene: ArrayLike) -> NDArray[np.bool_]:
        if self.also is None:
            return np.asarray(True)
        field, sign, limit = self.also
        return np.asarray(sign * (self._value(scene, field) - limit) > 0)

    def entry(self, field: str = "") -> int:
        """Place of a field in `scene_obs`; without a name, of the one that is judged."""
        return SCENE_FIELDS[field or self.field]

    def _value(self, scene: ArrayLike, field: str = "") -> NDArray[np.float64]:
        array = np.asarray(scene, dtype=np.float64)
        if array.shape[-1:] != (SCENE_SIZE,):
            raise UserError(f"scene_obs has shape {array.shape}; its last axis must have {SCENE_SIZE} entries")
        value: NDArray[np.float64] = array[..., self.entry(field)]
        return value


@dataclass(frozen=True)
class BlockTask(Task):
    """A task of one block: `field` is its "x" or "z", `start` the range of its x on the table.

    CALVIN asks what the block is in contact with, which `scene_obs` does not say; here its height answers.

    *Pushed*: CALVIN wants the block to touch the same bodies, but for the robot, as at the start; here it has to lie on
    the table at the start and now. They differ where the largest block stands on its small end or a block has fallen
    into the drawer, which is a part of CALVIN's table (there: pushed), and where it touches another block that it did
    not touch at the start, or no longer touches it (there: not pushed). The middle-sized block on its small end is
    8 mm higher than lying, which is within `SLACK`: it counts here as well.

    *Lifted*: CALVIN wants the block to have touched the table and not the robot at the start, and to touch the robot
    alone now; here it has to lie on the table at the start, and to have risen by as much. They differ where it flies or
    leans on something, 5 cm above the table.
    """

    block: str = ""
    """Its colour."""
    scene: str = "D"
    """The scene whose order of blocks `scene_obs` has."""
    yaw: Span = (0.0, 0.0)
    """How it is turned at the start, from and to (rad)."""

    def achieved(self, start_scene: ArrayLike, scene: ArrayLike) -> NDArray[np.bool_]:
        """See `Task.achieved`."""
        return super().achieved(start_scene, scene) & self._lies(start_scene)

    def possible(self, scene: ArrayLike) -> NDArray[np.bool_]:
        """Does the block lie where the arm can get at it, and is there room on the table?"""
        (left, right), (front, back) = ROOM
        shift, x, y = BLOCK_SHIFT[self.scene], self._value(scene, "x"), self._value(scene, "y")
        # where the fingers touch down, and where the block goes
        behind, ahead = (self.sign * HAND, self.sign * self.delta) if self.field == "x" else (0.0, 0.0)
        low, high = np.minimum(x - behind, x + ahead), np.maximum(x - behind, x + ahead)
        fits = (low >= left + shift) & (high <= right + shift)
        return np.asarray(fits & (y >= front) & (y <= back) & self._lies(scene))

    def entry(self, field: str = "") -> int:
        """See `Task.entry`."""
        return 6 + 6 * BLOCK_ORDER[self.scene].index(self.block) + "xyz".index(field or self.field)

    def _also(self, scene: ArrayLike) -> NDArray[np.bool_]:
        # what was pushed has not been carried
        return self._lies(scene) if self.field == "x" else np.asarray(True)

    def _lies(self, scene: ArrayLike) -> NDArray[np.bool_]:
        return np.asarray(np.abs(self._value(scene, "z") - LYING) < SLACK)


def _block(name: str, says: str, field: str, sign: int, delta: float, start: Span, yaw: Span) -> BlockTask:
    return BlockTask(name, says, field, sign, delta, "", start, block=name.split("_")[1], yaw=yaw)


_ALL: Sequence[Task] = (
    Task("open_drawer", "pull the handle to open the drawer", "drawer", 1, 0.12, "drawer", (0.0, 0.015)),
    Task("close_drawer", "push the handle to close the drawer", "drawer", -1, 0.12, "drawer", (0.19, 0.22)),
    Task("move_slider_left", "push the sliding door to the left", "slider", 1, 0.15, "slider", (0.0, 0.025)),
    Task("move_slider_right", "push the sliding door to the right", "slider", -1, 0.15, "slider", (0.25, 0.28)),
    Task("turn_on_lightbulb", "turn on the light bulb", "lightbulb", 1, 0.5, "switch", (0.0, 0.01)),
    Task("turn_off_lightbulb", "turn off the light bulb", "lightbulb", -1, 0.5, "switch", (0.08, 0.088)),
    Task("turn_on_led", "press the button to turn on the led", "led", 1, 0.5, "led", (0.0, 0.0)),
    Task("turn_off_led", "press the button to turn off the led", "led", -1, 0.5, "led", (1.0, 1.0)),
    _block("push_pink_block_right", "push the pink block to the right", "x", 1, 0.1, (0.05, 0.07), ACROSS),
    _block("push_pink_block_left", "push the pink block to the left", "x", -1, 0.1, (0.23, 0.25), ACROSS),
    _block("lift_blue_block_table", "lift the blue block from the table", "z", 1, 0.05, (0.04, 0.30), ALONG),
)

TASKS: Final[dict[str, Task]] = {task.name: task for task in _ALL}
"""All tasks. The place of a name in it is a part of the seed of its starts: new ones come last."""
BLOCK_TASKS: Final = tuple(task.name for task in _ALL if isinstance(task, BlockTask))
SENTENCES: Final[dict[str, str]] = {
    said: name for name, task in TASKS.items() for said in (task.description, name.replace("_", " "))
}
"""The task that a sentence of a data set stands for: as a person says it, or its name in words."""
EIGHT: Final = tuple(name for name in TASKS if name not in BLOCK_TASKS)
"""The tasks of what is fixed to the table, those of DiWA and of the world models before it."""

FURTHER: Final = {"x": 0.03, "z": 0.05}
"""By how much more than CALVIN the tightest success asks a block to be pushed or lifted (m)."""
LIGHT_JOINTS: Final = {"lightbulb": "switch", "led": "button"}
MARGIN: Final = {"slider": 0.006, "drawer": 0.006, "switch": 0.014, "button": 0.003}
"""How near to the end of its travel the tightest success asks a part to go (m)."""


def get_task(name: str, scene: str = "D", *, tolerance: float = 0.0) -> Task:
    """The task of that name, with starts that fit the scene's ranges; the oracle is the same in all scenes.

    Args:
        name: a key of `TASKS`.
        scene: a key of `SLIDER_RANGES`.
        tolerance: 0 is CALVIN's oracle, 1 the tightest, see `tight`.

    Raises:
        UserError: there is no such task or scene; the message names the nearest one.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    if scene not in SLIDER_RANGES:
        raise unknown("scene", scene, SLIDER_RANGES)
    return tight(_in_scene(TASKS[name], scene), tolerance)


def _in_scene(task: Task, scene: str) -> Task:
    if isinstance(task, BlockTask):
        return _block_in_scene(task, scene)
    extra = round(SLIDER_RANGES[scene] - RANGES["slider"], 9)
    if task.field != "slider" or not extra:
        return task
    if task.sign > 0:
        return replace(task, extra=extra)
    # starts at the far end, which lies elsewhere
    start = (round(task.start[0] + extra, 9), round(task.start[1] + extra, 9))
    return replace(task, extra=extra, start=start)


def _block_in_scene(task: BlockTask, scene: str) -> BlockTask:
    if scene == task.scene:
        return task
    shift = BLOCK_SHIFT[scene]
    start = (round(task.start[0] + shift, 9), round(task.start[1] + shift, 9))
    return replace(task, scene=scene, start=start)


def tight(task: Task, tolerance: float) -> Task:
    """A task that asks for more, up to `MARGIN` before the end of what moves.

    Drawer and slider have to move further: to the end of their travel from the start that is nearest to it. For a light
    the switch has to go on beyond its trigger, or the button to be pressed beyond its own. A block has no end: it has
    to be moved by up to `FURTHER` more.

    Args:
        task: CALVIN's.
        tolerance: 0 leaves it as it is, 1 leaves the last `MARGIN` of the way.
    """
    if tolerance == 0:
        return task
    if task.field in LIGHT_JOINTS:
        joint = LIGHT_JOINTS[task.field]
        # a button is pressed to switch off, too
        sign = task.sign if joint == "switch" else 1
        half = RANGES[joint] / 2
        return replace(task, also=(joint, sign, half + sign * tolerance * (half - MARGIN[joint])))
    if isinstance(task, BlockTask):
        return replace(task, delta=task.delta + tolerance * FURTHER[task.field])
    end = RANGES[task.field] + task.extra
    room = end - task.start[1] if task.sign > 0 else task.start[0]
    return replace(task, delta=task.delta + tolerance * (room - task.delta - MARGIN[task.field]))


def possible_tasks(values: ArrayLike, scene: str = "D", tasks: Sequence[str] = EIGHT) -> list[str]:
    """Names of those of the tasks that a state [24] of a scene leaves to do."""
    return [name for name in tasks if get_task(name, scene).possible(values)]


def extra_skills(tasks: Sequence[str]) -> tuple[str, ...]:
    """Those of a study's tasks that its play attempts besides the skills of the eight."""
    return tuple(name for name in BLOCK_TASKS if name in tasks)

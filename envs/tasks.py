"""CALVIN's oracle for the eight articulated-object tasks, and the starts that make them possible.

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

RANGES: Final = {"slider": 0.28, "drawer": 0.22, "button": 0.02, "switch": 0.088, "lightbulb": 1.0, "led": 1.0}
"""Largest value of each entry of `scene_obs` that a task moves; the smallest is zero (m; lights 0 or 1)."""

SLIDER_RANGES: Final = {"A": 0.28, "B": 0.304, "C": 0.24, "D": 0.28}
"""Travel of the sliding door in CALVIN's four scenes (m): all else is alike."""


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
    limit: float
    """Beyond which value `satisfied` holds (m; lights 0.5)."""
    joint: str
    """The entry of `scene_obs` that is set at the start of an episode."""
    start: tuple[float, float]
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

    def satisfied(self, scene: ArrayLike) -> NDArray[np.bool_]:
        """The label of a single scene, which implies `achieved` for every start of `start`.

        Args:
            scene: [..., 24].

        Returns:
            [...] bool.
        """
        return np.asarray((self.sign * (self._value(scene) - self.limit) > 0) & self._also(scene))

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

    def _value(self, scene: ArrayLike, field: str = "") -> NDArray[np.float64]:
        array = np.asarray(scene, dtype=np.float64)
        if array.shape[-1:] != (SCENE_SIZE,):
            raise UserError(f"scene_obs has shape {array.shape}; its last axis must have {SCENE_SIZE} entries")
        value: NDArray[np.float64] = array[..., SCENE_FIELDS[field or self.field]]
        return value


_ALL: Sequence[Task] = (
    Task("open_drawer", "pull the handle to open the drawer", "drawer", 1, 0.12, 0.135, "drawer", (0.0, 0.015)),
    Task("close_drawer", "push the handle to close the drawer", "drawer", -1, 0.12, 0.07, "drawer", (0.19, 0.22)),
    Task("move_slider_left", "push the sliding door to the left", "slider", 1, 0.15, 0.175, "slider", (0.0, 0.025)),
    Task("move_slider_right", "push the sliding door to the right", "slider", -1, 0.15, 0.1, "slider", (0.25, 0.28)),
    Task("turn_on_lightbulb", "turn on the light bulb", "lightbulb", 1, 0.5, 0.5, "switch", (0.0, 0.01)),
    Task("turn_off_lightbulb", "turn off the light bulb", "lightbulb", -1, 0.5, 0.5, "switch", (0.08, 0.088)),
    Task("turn_on_led", "press the button to turn on the led", "led", 1, 0.5, 0.5, "led", (0.0, 0.0)),
    Task("turn_off_led", "press the button to turn off the led", "led", -1, 0.5, 0.5, "led", (1.0, 1.0)),
)

TASKS: Final[dict[str, Task]] = {task.name: task for task in _ALL}

LIGHT_JOINTS: Final = {"lightbulb": "switch", "led": "button"}
MARGIN: Final = {"slider": 0.006, "drawer": 0.006, "switch": 0.014, "button": 0.003}
"""How near to the end of its travel the tightest success asks a part to go (m)."""


def get_task(name: str, scene: str = "D", *, tolerance: float = 0.0) -> Task:
    """The task of that name, with starts and label that fit the scene's ranges; the oracle is the same in all scenes.

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
    extra = round(SLIDER_RANGES[scene] - RANGES["slider"], 9)
    if task.field != "slider" or not extra:
        return task
    if task.sign > 0:
        return replace(task, extra=extra)
    # starts at the far end, which lies elsewhere
    start = (round(task.start[0] + extra, 9), round(task.start[1] + extra, 9))
    return replace(task, extra=extra, start=start, limit=round(task.limit + extra, 9))


def tight(task: Task, tolerance: float) -> Task:
    """A task that asks for more, up to `MARGIN` before the end of what moves.

    Drawer and slider have to move further: to the end of their travel from the start that is nearest to it. For a light
    the switch has to go on beyond its trigger, or the button to be pressed beyond its own.

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
    end = RANGES[task.field] + task.extra
    room = end - task.start[1] if task.sign > 0 else task.start[0]
    more = tolerance * (room - task.delta - MARGIN[task.field])
    return replace(task, delta=task.delta + more, limit=task.limit + task.sign * more)


def possible_tasks(values: ArrayLike, scene: str = "D") -> list[str]:
    """Names of the tasks that a state [24] of a scene leaves to do."""
    return [name for name in TASKS if get_task(name, scene).possible(values)]

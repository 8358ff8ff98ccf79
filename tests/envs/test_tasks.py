"""CALVIN's oracle: strict, relative to the start, and consistent with the absolute labels and the start states."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from envs.episodes import SEEDS, SEEDS_PER_USE
from envs.tasks import TASKS, get_task, possible_tasks
from worldaction.errors import UserError
from worldaction.spec import SCENE_FIELDS, SCENE_SIZE

OPPOSITES = [
    ("open_drawer", "close_drawer"),
    ("move_slider_left", "move_slider_right"),
    ("turn_on_lightbulb", "turn_off_lightbulb"),
    ("turn_on_led", "turn_off_led"),
]


def scene(**values: float) -> np.ndarray:
    """[24] a scene with these entries, all others zero."""
    result = np.zeros(SCENE_SIZE)
    for name, value in values.items():
        result[SCENE_FIELDS[name]] = value
    return result


@pytest.mark.parametrize(
    ("task", "start", "end", "done"),
    [
        ("open_drawer", {"drawer": 0.0}, {"drawer": 0.1201}, True),
        ("open_drawer", {"drawer": 0.0}, {"drawer": 0.12}, False),
        ("open_drawer", {"drawer": 0.05}, {"drawer": 0.16}, False),
        ("close_drawer", {"drawer": 0.2}, {"drawer": 0.079}, True),
        ("close_drawer", {"drawer": 0.125}, {"drawer": 0.01}, False),
        ("move_slider_left", {"slider": 0.0}, {"slider": 0.1501}, True),
        ("move_slider_left", {"slider": 0.0}, {"slider": 0.15}, False),
        ("move_slider_right", {"slider": 0.28}, {"slider": 0.12}, True),
        ("move_slider_right", {"slider": 0.28}, {"slider": 0.131}, False),
        ("turn_on_lightbulb", {"lightbulb": 0}, {"lightbulb": 1}, True),
        ("turn_on_lightbulb", {"lightbulb": 1}, {"lightbulb": 1}, False),
        ("turn_off_lightbulb", {"lightbulb": 1}, {"lightbulb": 0}, True),
        ("turn_on_led", {"led": 0}, {"led": 1}, True),
        ("turn_off_led", {"led": 0}, {"led": 0}, False),
        ("turn_off_led", {"led": 1}, {"led": 0}, True),
    ],
)
def test_a_task_is_achieved_by_a_change_beyond_calvins_threshold(
    task: str, start: dict[str, float], end: dict[str, float], done: bool
) -> None:
    assert bool(TASKS[task].achieved(scene(**start), scene(**end))) is done


def test_moving_another_object_achieves_nothing() -> None:
    everything_but_the_drawer = scene(slider=0.28, switch=0.088, lightbulb=1, led=1)
    assert not TASKS["open_drawer"].achieved(scene(), everything_but_the_drawer)


def test_the_oracle_judges_batches_elementwise_and_broadcasts_the_start() -> None:
    ends = np.stack([[scene(drawer=a), scene(drawer=b)] for a, b in ((0.1, 0.13), (0.2, 0.0), (0.12, 0.22))])
    expected = [[False, True], [True, False], [False, True]]
    np.testing.assert_array_equal(TASKS["open_drawer"].achieved(scene(), ends), expected)
    np.testing.assert_array_equal(TASKS["open_drawer"].satisfied(ends), expected & (ends[..., 1] > 0.135))


@pytest.mark.parametrize("name", TASKS)
def test_a_satisfied_scene_is_an_achieved_one_from_every_start_and_no_start_is_satisfied(name: str) -> None:
    task = TASKS[name]
    field = task.field
    low, high = task.start if task.joint == field else ((0, 0) if task.sign > 0 else (1, 1))
    for begin in np.linspace(low, high, 9):
        start = scene(**{field: begin})
        assert not task.satisfied(start)
        assert task.possible(start)
        for end in np.linspace(0, 1 if task.delta == 0.5 else 0.28, 57):
            now = scene(**{field: end})
            if task.satisfied(now):
                assert task.achieved(start, now), (begin, end)


@pytest.mark.parametrize(("one", "other"), OPPOSITES)
def test_a_task_and_its_opposite_are_never_possible_at_once(one: str, other: str) -> None:
    for value in np.linspace(0, 1, 201):
        now = scene(slider=value, drawer=value, lightbulb=value > 0.5, led=value > 0.5)
        assert not {one, other} <= set(possible_tasks(now))


def test_the_seeds_of_different_uses_never_meet() -> None:
    bases = sorted(SEEDS.values())
    assert all(later - earlier >= SEEDS_PER_USE for earlier, later in itertools.pairwise(bases))


def test_an_unknown_task_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'open_drawer'"):
        get_task("opendrawer")


def test_a_scene_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(UserError, match="24 entries"):
        TASKS["open_drawer"].satisfied(np.zeros(15))

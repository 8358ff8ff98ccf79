"""CALVIN's oracle: strict, relative to the start, and consistent with the start states."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from envs.episodes import SEEDS, SEEDS_PER_USE
from envs.playtable.scenes import SCENES
from envs.tasks import (
    BLOCK_ORDER,
    BLOCK_TASKS,
    EIGHT,
    LYING,
    RANGES,
    TASKS,
    BlockTask,
    extra_skills,
    get_task,
    possible_tasks,
)
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


@pytest.mark.parametrize("name", EIGHT)
def test_every_start_leaves_the_task_to_do_and_what_is_done_at_the_start_cannot_be_done(name: str) -> None:
    task = TASKS[name]
    field = task.field
    low, high = task.start if task.joint == field else ((0, 0) if task.sign > 0 else (1, 1))
    for begin in np.linspace(low, high, 9):
        start = scene(**{field: begin})
        assert not task.achieved(start, start)
        assert task.possible(start)
        end = scene(**{field: RANGES[field] if task.sign > 0 else 0.0})
        assert task.achieved(start, end), begin
        assert not task.achieved(end, end)
        assert not task.possible(end)


def block(task: str, scene: str = "D", **values: float) -> np.ndarray:
    """[24] a scene in which all blocks lie on the table, and the task's one where these values say."""
    state = np.tile([0.1, -0.1, LYING, 0.0, 0.0, 0.0], 4)
    state[:6] = 0
    for name, value in values.items():
        state[get_task(task, scene).entry(name)] = value
    return state


@pytest.mark.parametrize(
    ("task", "start", "end", "done"),
    [
        ("push_pink_block_right", {"x": 0.05}, {"x": 0.1501}, True),
        ("push_pink_block_right", {"x": 0.05}, {"x": 0.15}, False),
        ("push_pink_block_right", {"x": 0.25}, {"x": 0.1}, False),
        ("push_pink_block_right", {"x": 0.05}, {"x": 0.2, "z": 0.5}, False),
        ("push_pink_block_right", {"x": 0.05, "z": 0.5}, {"x": 0.2}, False),
        ("push_pink_block_right", {"x": 0.05}, {"x": 0.2, "z": 0.02}, False),
        ("push_pink_block_left", {"x": 0.25}, {"x": 0.1499}, True),
        ("push_pink_block_left", {"x": 0.25}, {"x": 0.3501}, False),
        ("lift_blue_block_table", {}, {"z": LYING + 0.0501}, True),
        ("lift_blue_block_table", {}, {"z": LYING + 0.05}, False),
        ("lift_blue_block_table", {"z": 0.5}, {"z": 0.6}, False),
        ("lift_blue_block_table", {"z": 0.02}, {"z": LYING}, False),
    ],
)
@pytest.mark.parametrize("where", SCENES)
def test_a_block_is_pushed_while_it_lies_and_lifted_from_where_it_lay(
    where: str, task: str, start: dict[str, float], end: dict[str, float], done: bool
) -> None:
    assert bool(get_task(task, where).achieved(block(task, where, **start), block(task, where, **end))) is done


def test_another_block_that_moves_achieves_nothing() -> None:
    start, end = block("push_pink_block_right"), block("push_pink_block_right")
    end[6] += 0.2
    assert not any(get_task(task).achieved(start, end) for task in BLOCK_TASKS)


def test_block_tasks_judge_batches_elementwise_and_broadcast_the_start() -> None:
    for task in (get_task(name) for name in BLOCK_TASKS):
        start = block(task.name)
        ends = np.tile(start, (2, 3, 1))
        ends[1, :, task.entry()] += task.sign * 0.2
        np.testing.assert_array_equal(task.achieved(start, ends), [[False] * 3, [True] * 3])
        assert task.possible(ends).shape == (2, 3)


@pytest.mark.parametrize("name", BLOCK_TASKS)
@pytest.mark.parametrize("where", SCENES)
@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_a_block_is_done_from_every_start_by_the_same_change(name: str, where: str, tolerance: float) -> None:
    task = get_task(name, where, tolerance=tolerance)
    for x in np.linspace(*task.start, 9):
        start = block(name, where, x=x)
        assert task.possible(start)
        assert not task.achieved(start, start)
        for share, done in ((-1.01, False), (0.99, False), (1.01, True)):
            now = start.copy()
            now[task.entry()] += share * task.sign * task.delta
            assert bool(task.achieved(start, now)) is done


def test_the_order_of_blocks_is_that_of_the_scenes() -> None:
    assert {name: tuple(f"block_{colour}" for colour in order) for name, order in BLOCK_ORDER.items()} == {
        name: tuple(block for block, _ in scene.blocks) for name, scene in SCENES.items()
    }


def test_a_block_that_is_out_of_reach_or_held_is_no_task() -> None:
    for name in BLOCK_TASKS:
        for away in ({"z": 0.5}, {"z": 0.02}, {"y": 0.1}, {"y": -0.3}, {"x": -0.3}, {"x": 0.6}):
            assert not get_task(name).possible(block(name, **away))


def test_play_attempts_the_skills_of_blocks_only_where_the_study_asks_for_them() -> None:
    lying = block(BLOCK_TASKS[0], x=0.15)
    assert not set(possible_tasks(lying)) & set(BLOCK_TASKS)
    assert set(possible_tasks(lying, "D", tuple(TASKS))) > set(BLOCK_TASKS)
    assert extra_skills(EIGHT) == ()
    assert extra_skills(("open_drawer", BLOCK_TASKS[1])) == (BLOCK_TASKS[1],)


def test_new_tasks_come_after_the_eight_whose_start_seeds_count_their_place() -> None:
    assert tuple(TASKS)[:8] == EIGHT
    assert tuple(TASKS)[8:] == BLOCK_TASKS
    assert all(isinstance(TASKS[name], BlockTask) for name in BLOCK_TASKS)


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
        TASKS["open_drawer"].achieved(np.zeros(15), np.zeros(15))

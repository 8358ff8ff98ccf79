"""CALVIN's four scenes: laid out as in its files, told apart, and solvable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.playtable.env import PlayTableEnv
from envs.playtable.generate import play_episode
from envs.playtable.looks import grain, look_of, tiles
from envs.playtable.scenes import BIG, MIDDLE, SCENES, SMALL, get_scene
from envs.playtable.tools.check import measure_expert
from envs.playtable.tools.looks import STATES, beside_calvin, draw_states, draw_values, told_apart
from envs.tasks import EIGHT, SLIDER_RANGES, TASKS, get_task, possible_tasks
from worldaction.errors import UserError
from worldaction.spec import SCENE_FIELDS, SCENE_SIZE

# button, switch, drawer and door of the URDFs (metres times 0.8), the door's travel, and the blocks of the scene files
CALVIN = {
    "A": (-0.28, 0.30, 0.10, 0.04, 0.280, ("pink", SMALL), ("blue", BIG), ("red", MIDDLE)),
    "B": (0.28, -0.32, 0.18, 0.228, 0.304, ("red", SMALL), ("blue", BIG), ("pink", MIDDLE)),
    "C": (-0.12, -0.32, 0.10, 0.20, 0.240, ("blue", SMALL), ("red", BIG), ("pink", MIDDLE)),
    "D": (-0.12, 0.30, 0.18, 0.04, 0.280, ("red", MIDDLE), ("blue", SMALL), ("pink", BIG)),
}
CHANGED = {"A": (0, 2), "B": (0, 1, 3), "C": (1, 2, 3)}
HANDLES = ("button", "switch_lever", "drawer_handle", "slider_handle")


@pytest.fixture(scope="module")
def tables() -> dict[str, PlayTableEnv]:
    return {name: PlayTableEnv(image_size=64, renderer="rays", scene=name) for name in SCENES}


@pytest.mark.parametrize("name", SCENES)
def test_parts_and_blocks_stand_where_calvins_files_put_them(name: str, tables: dict[str, PlayTableEnv]) -> None:
    *places, travel, first, second, third = CALVIN[name]
    table = tables[name]
    table.reset(seed=0, options={"scene": {"slider": 0, "drawer": 0, "switch": 0}})
    np.testing.assert_allclose([table.site(handle)[0] for handle in HANDLES], places, atol=1e-9)
    assert table.scene.ranges["slider"] == travel
    model = table._model
    assert model.joint("slider").range[1] == travel
    for place, (colour, size) in enumerate((first, second, third)):
        body = model.body(f"block_{colour}")
        np.testing.assert_allclose(model.geom_size[body.geomadr[0]], size)
        # scene_obs lists the blocks in the order of the file
        at = table.scene_obs()[6 + 6 * place : 9 + 6 * place]
        np.testing.assert_allclose(at, table.data.xpos[body.id])


@pytest.mark.parametrize(("name", "parts"), CHANGED.items())
def test_a_scene_differs_from_d_in_the_parts_that_calvin_moved_and_in_no_other(
    name: str, parts: tuple[int, ...], tables: dict[str, PlayTableEnv]
) -> None:
    for table in (tables["D"], tables[name]):
        table.reset(seed=0, options={"scene": {"slider": 0, "drawer": 0, "switch": 0}})
    for number, handle in enumerate(HANDLES):
        shift = tables[name].site(handle) - tables["D"].site(handle)
        assert (abs(shift[0]) > 0.05) == (number in parts)
        np.testing.assert_allclose(shift[1:], 0, atol=1e-9)


@pytest.mark.parametrize("name", SCENES)
def test_each_part_is_drawn_where_it_stands(name: str, tables: dict[str, PlayTableEnv]) -> None:
    """Colours of led and bulb appear at the pixel to which the camera projects their place."""
    table, scene = tables[name], get_scene(name)
    pixels = {}
    for on in (0.0, 1.0):
        values = {"led": on, "switch": 0.088 * on, "slider": 0.0, "drawer": 0.0}
        pixels[on] = table.reset(seed=0, options={"scene": values})[0]["rgb_static"].astype(int)
    changed = np.abs(pixels[1.0] - pixels[0.0]).max(-1) > 60
    for x in (scene.button, scene.switch):
        row, column = pixel(table, (x, 0.155, 0.68))
        assert changed[row - 1 : row + 2, column - 1 : column + 2].any()
    assert changed.sum() < 200


def pixel(table: PlayTableEnv, point: tuple[float, float, float]) -> tuple[int, int]:
    """Row and column of a point of the world in the static image of 64 pixels."""
    camera = table._model.camera("static")
    right, up, back = table.data.cam_xmat[camera.id].reshape(3, 3).T @ (np.array(point) - camera.pos)
    half = np.tan(np.deg2rad(camera.fovy[0]) / 2)
    return int((1 + up / back / half) * 32), int((1 - right / back / half) * 32)


def test_every_task_is_solved_by_its_expert_in_every_scene() -> None:
    for name in SCENES:
        table = PlayTableEnv(cameras=False, scene=name)
        for task in TASKS:
            record = measure_expert(table, task, starts=2)
            assert record.in_time == 1, f"{task} in scene {name}"


@pytest.mark.parametrize("name", SLIDER_RANGES)
def test_a_state_beyond_the_change_from_the_nearest_start_is_done_from_every_start(name: str) -> None:
    for task in EIGHT:
        here = get_task(task, name)
        start, now = np.zeros((2, SCENE_SIZE)), np.zeros(SCENE_SIZE)
        start[:, SCENE_FIELDS[here.field]] = here.start if here.field == here.joint else 1 - (here.sign > 0)
        nearest = here.sign * (here.sign * start[:, SCENE_FIELDS[here.field]]).max()
        now[SCENE_FIELDS[here.field]] = nearest + here.sign * (here.delta + 1e-6)
        assert here.achieved(start, now).all()
        assert here.possible(start).all()
        assert not here.achieved(start, start).any()


def test_the_range_of_the_door_decides_which_tasks_are_possible() -> None:
    scene = np.zeros(SCENE_SIZE)
    scene[SCENE_FIELDS["slider"]] = 0.14
    assert [name for name in SCENES if "move_slider_left" in possible_tasks(scene, name)] == ["B"]
    scene[SCENE_FIELDS["slider"]] = 0.12
    assert [name for name in SCENES if "move_slider_left" in possible_tasks(scene, name)] == ["A", "B", "D"]


def test_play_in_a_scene_stays_within_its_ranges(tables: dict[str, PlayTableEnv]) -> None:
    table = PlayTableEnv(cameras=False, scene="C")
    far = max(play_episode(table, seed, 40)["scene_obs"][:, 0].max() for seed in range(3))
    # CALVIN's recorded doors overshoot by 27 mm
    assert far <= SLIDER_RANGES["C"] + 0.027


def test_blocks_lie_where_the_scene_puts_them_and_not_on_the_button() -> None:
    for name, scene in SCENES.items():
        table = PlayTableEnv(cameras=False, scene=name)
        for seed in range(20):
            table.reset(seed=seed)
            blocks = table.scene_obs()[6:].reshape(3, 6)
            on_table = blocks[:, 1] < 0.0
            assert (scene.table[0] <= blocks[on_table, 0]).all()
            assert (blocks[on_table, 0] <= scene.table[1]).all()
            assert np.hypot(blocks[:, 0] - scene.button, blocks[:, 1] + 0.12).min() > 0.06


def test_an_unknown_scene_is_refused_with_the_nearest() -> None:
    for refused in (lambda: PlayTableEnv(cameras=False, scene="E"), lambda: get_task("open_drawer", "E")):
        with pytest.raises(UserError, match=r"unknown scene 'E'; .*'?D"):
            refused()


def test_scenes_do_not_disturb_each_other(tables: dict[str, PlayTableEnv]) -> None:
    alone = PlayTableEnv(image_size=64, renderer="rays", scene="D").reset(seed=4)[0]["rgb_static"]
    tables["B"].reset(seed=4)
    again = tables["D"].reset(seed=4)[0]["rgb_static"]
    np.testing.assert_array_equal(alone, again)
    assert (tables["B"].reset(seed=4)[0]["rgb_static"] != alone).mean() > 0.3


def test_the_wood_of_the_table_is_as_bright_as_in_calvins_frames(tables: dict[str, PlayTableEnv]) -> None:
    """The table's top in a frame of the real simulator, scene D, is (151, 112, 73) with a deviation of 8."""
    image = tables["D"].reset(seed=5)[0]["rgb_static"].astype(float)
    top = [image[pixel(tables["D"], (x, -0.16, 0.44))] for x in np.linspace(0.0, 0.4, 9)]
    np.testing.assert_allclose(np.mean(top, 0), (151, 112, 73), atol=12)


def test_textures_repeat_without_a_seam_and_keep_the_brightness_of_the_materials() -> None:
    wood = grain().astype(float)
    along, across = np.abs(np.diff(wood, axis=1)).mean(0), np.abs(np.diff(wood, axis=0)).mean(1)
    assert np.abs(wood[:, 0] - wood[:, -1]).mean() <= along.max()
    assert np.abs(wood[0] - wood[-1]).mean() <= across.max()
    # longer along x than across
    assert along.mean() < across.mean() / 3
    assert 0.89 < wood.mean() / 255 < 0.95
    assert set(np.unique(tiles())) == {222, 255}


def test_a_small_network_tells_the_states_apart_at_64_pixels() -> None:
    """envs/playtable/tools/looks.py on fewer states than it measures by itself: 100 % there, at least 99 % here."""
    rates = told_apart(*draw_states("D", 1000, size=64, seed=0), seed=0)
    assert set(rates) == set(STATES)
    assert min(rates.values()) >= 0.99


def test_images_beside_a_recording_differ_by_what_differs(tmp_path: Path, tables: dict[str, PlayTableEnv]) -> None:
    for number in range(2):
        seen = tables["D"].reset(seed=number)[0]
        darker = {key: value if value.ndim == 1 else (value * 0.9).astype(np.uint8) for key, value in seen.items()}
        np.savez(tmp_path / f"episode_{number:07d}.npz", **darker)
    differences = beside_calvin(tmp_path, every=1, renderer="rays")
    # a tenth darker, and nothing else
    assert all(5 < difference.error < 25 for difference in differences.values())
    assert all(0.9 < difference.correlation < 1 for difference in differences.values())
    with pytest.raises(UserError, match="no episode"):
        beside_calvin(tmp_path / "none")


def test_the_states_that_are_told_apart_are_those_of_the_tasks() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES:
        table = PlayTableEnv(cameras=False, scene=scene)
        for label in ((True,) * 4, (False,) * 4, (True, False, True, False)):
            table.reset(seed=0, options={"scene": draw_values(scene, label, rng)})
            now = table.scene_obs()
            # seen from a table on which nothing has been done
            done = [bool(get_task(task, scene).achieved(0 * now, now)) for task in STATES.values()]
            assert tuple(done) == label


def test_each_scene_has_a_look_for_every_material() -> None:
    looks = [look_of(scene) for scene in SCENES.values()]
    assert all(look.colours.keys() == looks[0].colours.keys() for look in looks)
    # the wood of A and D is one, B and C have their own, as their textures have
    assert len({look.colours["wood"] for look in looks}) == 3

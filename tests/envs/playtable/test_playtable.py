"""The play table: CALVIN's kinematics, actions, lights and success; determinism; images; experts."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

import envs
from envs import drawing
from envs.playtable import render, scene
from envs.playtable.env import PlayTableEnv
from envs.playtable.expert import CLOSED, DOWN, Expert, steer
from envs.playtable.generate import play_episode
from envs.playtable.ik import kinematics
from envs.playtable.robot import HOME
from envs.playtable.rotation import to_euler, to_matrix, wrap
from envs.playtable.scene import model
from envs.playtable.tools.check import measure_expert
from envs.tasks import BLOCK_TASKS, TASKS
from worldaction.errors import UserError
from worldaction.spec import CAMERAS, METRES_PER_UNIT, NULL_ACTION, RADIANS_PER_UNIT, ROBOT_FIELDS

ROOT = Path(__file__).resolve().parents[3]
STILL = np.array(NULL_ACTION)


@pytest.fixture(scope="module")
def blind() -> PlayTableEnv:
    """A table without cameras."""
    return PlayTableEnv(cameras=False)


def state(env: PlayTableEnv) -> np.ndarray:
    """Everything that moves."""
    return np.concatenate([env.data.qpos, env.data.qvel, [env.led, env.lightbulb]])


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    ).stdout.strip()


# ---- kinematics


def test_calvins_home_joints_give_calvins_home_pose() -> None:
    position, rotation = kinematics().forward(HOME)
    np.testing.assert_allclose(position, [0.02586889, -0.2313129, 0.5712808], atol=1e-7)
    np.testing.assert_allclose(to_euler(rotation), [3.09045411, -0.02908596, 1.50013585], atol=1e-7)


def test_inverse_kinematics_reaches_a_reachable_pose() -> None:
    position, euler = np.array([0.10, -0.15, 0.55]), np.array([np.pi, -0.2, 1.3])
    reached, rotation = kinematics().forward(kinematics().inverse(HOME, position, to_matrix(euler), iterations=100))
    np.testing.assert_allclose(reached, position, atol=2e-3)
    np.testing.assert_allclose(wrap(to_euler(rotation) - euler), 0, atol=1e-2)


def test_euler_angles_survive_the_way_through_a_matrix() -> None:
    rng = np.random.default_rng(0)
    for euler in rng.uniform(-1, 1, (50, 3)) * [np.pi, 1.5, np.pi]:
        np.testing.assert_allclose(to_euler(to_matrix(euler)), euler, atol=1e-9)


# ---- actions


def test_a_small_step_is_followed_as_fast_as_by_calvins_robot(blind: PlayTableEnv) -> None:
    measured_in_calvin = [0.49, 0.76, 0.88, 0.94, 0.97]
    for axis in range(6):
        blind.reset(seed=0)
        for _ in range(10):
            blind.step(STILL)
        start = blind.robot_obs()[:6]
        action = STILL.copy()
        action[axis] = 1
        unit = METRES_PER_UNIT if axis < 3 else RADIANS_PER_UNIT
        reached = []
        for _ in measured_in_calvin:
            blind.step(action)
            action[axis] = 0
            reached.append(wrap(blind.robot_obs()[:6] - start)[axis] / unit)
        np.testing.assert_allclose(reached, measured_in_calvin, atol=0.03 if axis < 3 else 0.09)


def test_actions_beyond_one_are_clipped(blind: PlayTableEnv) -> None:
    ends = []
    for size in (1.0, 50.0):
        blind.reset(seed=1)
        for _ in range(5):
            blind.step(np.array([size, -size, size, -size, size, size, size]))
        ends.append(state(blind))
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize(("command", "is_open"), [(0.001, True), (0.0, False), (-0.001, False)])
def test_the_gripper_opens_above_zero_and_closes_at_zero(blind: PlayTableEnv, command: float, is_open: bool) -> None:
    blind.reset(seed=0)
    for _ in range(10):
        observation, *_ = blind.step(np.array([0, 0, 0, 0, 0, 0, command]))
    width, last_command = observation["robot_obs"][6], observation["robot_obs"][14]
    assert (width > 0.07) == is_open
    assert last_command == (1 if is_open else -1)


def test_the_target_of_a_blocked_arm_runs_on_as_in_calvin_unless_it_is_on_a_leash() -> None:
    ahead = {}
    for leash in (None, 0.06):
        env = PlayTableEnv(cameras=False, leash=leash)
        env.reset(seed=0)
        for _ in range(60):
            env.step(np.array([0, 0, -1, 0, 0, 0, -1]))
        ahead[leash] = env.tcp_position[2] - env.target_position[2]
    assert ahead[None] > 0.3
    assert ahead[0.06] < 0.061


@pytest.mark.parametrize("action", [np.zeros(6), np.full(7, np.nan), np.zeros((1, 7))])
def test_an_action_that_is_not_seven_finite_numbers_is_refused(blind: PlayTableEnv, action: np.ndarray) -> None:
    blind.reset(seed=0)
    with pytest.raises(UserError, match="7 finite numbers"):
        blind.step(action)


# ---- lights


def test_the_button_toggles_the_led_once_per_press(blind: PlayTableEnv) -> None:
    blind.reset(seed=0, options={"task": "turn_on_led"})
    cap = blind.site("button")

    def leds(height: float, steps: int) -> list[bool]:
        lit = []
        for _ in range(steps):
            blind.step(steer(blind, cap + [0, 0, height], DOWN, CLOSED))  # noqa: RUF005 (a sum, not a list)
            lit.append(blind.led)
        return lit

    assert not any(leds(0.06, 25))
    # held down, it stays on
    assert sum(np.diff(leds(-0.02, 30), prepend=False)) == 1
    assert all(leds(0.06, 15))
    assert not leds(-0.02, 20)[-1]


def test_the_bulb_follows_the_switch(blind: PlayTableEnv) -> None:
    for switch, lit in ((0.0, 0), (0.04, 0), (0.05, 1), (0.088, 1)):
        observation, _ = blind.reset(seed=0, options={"scene": {"switch": switch}})
        assert observation["scene_obs"][4] == lit


# ---- episodes


def test_the_same_seed_gives_the_same_states_and_images_bit_for_bit() -> None:
    env = PlayTableEnv(image_size=32)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (20, 7))
    episodes = []
    for _ in range(2):
        frames = [env.reset(seed=11)[0], *(env.step(action)[0] for action in actions)]
        episodes.append((frames, state(env)))
    np.testing.assert_array_equal(episodes[0][1], episodes[1][1])
    for one, other in zip(episodes[0][0], episodes[1][0], strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_the_start_depends_on_seed_and_task_alone() -> None:
    starts = []
    for default, steps in (("open_drawer", 0), ("turn_on_led", 7)):
        env = PlayTableEnv(default, cameras=False)
        env.reset(seed=99)
        for _ in range(steps):
            env.step(env.action_space.sample())
        env.reset(seed=5, options={"task": "close_drawer"})
        starts.append(state(env))
    np.testing.assert_array_equal(*starts)
    env.reset(seed=6, options={"task": "close_drawer"})
    assert not np.array_equal(state(env), starts[0])
    joints = env.robot_obs()[7:14]
    env.reset(seed=6, options={"task": "open_drawer"})
    assert not np.array_equal(env.robot_obs()[7:14], joints)


def test_without_a_seed_episodes_differ_but_repeat_after_seeding(blind: PlayTableEnv) -> None:
    runs = []
    for _ in range(2):
        blind.reset(seed=3)
        starts = []
        for _ in range(2):
            blind.reset()
            starts.append(state(blind))
        assert not np.array_equal(*starts)
        runs.append(starts)
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("task", TASKS)
def test_every_start_leaves_the_task_to_be_done_and_the_blocks_at_rest(blind: PlayTableEnv, task: str) -> None:
    for seed in range(10):
        observation, info = blind.reset(seed=seed, options={"task": task})
        assert info == {"success": False, "is_success": False, "task_description": TASKS[task].description}
        assert TASKS[task].possible(observation["scene_obs"])
        before = blind.scene_obs()
        for _ in range(5):
            blind.step(STILL)
        np.testing.assert_allclose(blind.scene_obs()[[0, 1, 3]], before[[0, 1, 3]], atol=1e-3)
        np.testing.assert_allclose(
            blind.scene_obs()[6:].reshape(3, 6)[:, :3], before[6:].reshape(3, 6)[:, :3], atol=2e-3
        )


def test_success_ends_the_episode_with_reward_one(blind: PlayTableEnv) -> None:
    blind.reset(seed=0, options={"task": "turn_on_led"})
    expert = Expert(blind, "turn_on_led")
    rewards = []
    terminated = False
    while not terminated:
        _, reward, terminated, truncated, info = blind.step(expert.act())
        rewards.append(reward)
        assert info["success"] is info["is_success"] is terminated
        assert not truncated
    assert rewards[-1] == 1
    assert sum(rewards) == 1


def test_the_time_limit_truncates() -> None:
    env = PlayTableEnv(cameras=False, max_steps=3)
    env.reset(seed=0)
    assert [env.step(STILL)[3] for _ in range(3)] == [False, False, True]


def test_what_lerobot_sends_along_with_a_reset_changes_nothing(blind: PlayTableEnv) -> None:
    before, _ = blind.reset(seed=4, options={"task": "open_drawer"})
    after, _ = blind.reset(seed=4, options={"task": "open_drawer", "lerobot_new_rollout": True})
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "opendrawer"}, "did you mean 'open_drawer'"),
        ({"tsk": "open_drawer"}, "did you mean 'task'"),
        ({"scene": {"drawr": 0.1}}, "did you mean 'drawer'"),
        ({"scene": {"drawer": 0.3}}, "outside 0..0.22"),
    ],
)
def test_a_wrong_option_is_answered_with_the_remedy(blind: PlayTableEnv, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        blind.reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "led_on"}, "unknown task"),
        ({"renderer": "eglx"}, "did you mean 'egl'"),
        ({"render_mode": "human"}, "rgb_array"),
        ({"image_size": 0}, "image_size 0"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PlayTableEnv(**arguments)


@pytest.mark.filterwarnings("ignore")
def test_it_passes_the_checks_of_gymnasium_and_stable_baselines3() -> None:
    env = gymnasium.make(envs.PLAY_TABLE_ID, render_mode="rgb_array", image_size=40).unwrapped
    gymnasium_check(env, skip_render_check=False)
    sb3_check(env)


# ---- images


def test_rays_and_egl_draw_nearly_the_same_picture() -> None:
    if not drawing.works("egl"):
        pytest.skip("no EGL here")
    one, other = (PlayTableEnv(renderer=name) for name in ("egl", "rays"))
    for seed in range(3):
        a, b = one.reset(seed=seed)[0], other.reset(seed=seed)[0]
        for camera in CAMERAS:
            assert np.abs(a[camera].astype(int) - b[camera]).mean() < 2.5


def test_supersampling_is_the_average_of_a_larger_picture() -> None:
    small, large = PlayTableEnv(image_size=32, supersample=2), PlayTableEnv(image_size=64)
    a, b = small.reset(seed=2)[0], large.reset(seed=2)[0]
    for camera in CAMERAS:
        average = b[camera].reshape(32, 2, 32, 2, 3).mean((1, 3))
        assert np.abs(a[camera] - average).max() <= 0.5


@pytest.mark.parametrize("change", [{"drawer": 0.2}, {"slider": 0.28}, {"switch": 0.088}, {"led": 1}])
def test_every_change_shows_in_a_static_image_of_32_pixels(change: dict[str, float]) -> None:
    env = PlayTableEnv(image_size=32, supersample=2)
    base = {"drawer": 0, "slider": 0, "switch": 0, "led": 0}
    before = env.reset(seed=5, options={"scene": base})[0]["rgb_static"].astype(int)
    after = env.reset(seed=5, options={"scene": {**base, **change}})[0]["rgb_static"]
    assert (np.abs(after - before).max(-1) > 30).sum() >= 12


def test_images_show_the_state_after_the_step_and_not_a_substep_earlier() -> None:
    env = PlayTableEnv()
    env.reset(seed=1)
    for _ in range(3):
        observation, *_ = env.step(np.array([1, 1, 1, 1, 1, 1, -1]))
    mujoco.mj_forward(scene.model(), env.data)
    lit = {"led": env.led, "lightbulb": env.lightbulb}
    redrawn = render.renderer(env.renderer, scene.CAMERAS, 64).draw(env.data, lit)
    for camera, image in zip(CAMERAS, redrawn, strict=True):
        np.testing.assert_array_equal(observation[camera], image)
    np.testing.assert_allclose(env.tcp_position, kinematics().forward(env.robot_obs()[7:14])[0], atol=1e-9)


def test_renderers_of_different_sizes_do_not_disturb_each_other() -> None:
    small, large = PlayTableEnv(image_size=24), PlayTableEnv(image_size=48)
    alone = small.reset(seed=3)[0]
    large.reset(seed=9)
    again = small.reset(seed=3)[0]
    for camera in CAMERAS:
        np.testing.assert_array_equal(alone[camera], again[camera])
        assert alone[camera].std() > 10


def test_environments_that_share_a_renderer_keep_their_own_lights() -> None:
    lit, dark = PlayTableEnv(image_size=32), PlayTableEnv(image_size=32)
    first = lit.reset(seed=0, options={"scene": {"led": 1, "switch": 0.088}})[0]["rgb_static"]
    dark.reset(seed=0, options={"scene": {"led": 0, "switch": 0}})
    again = lit.reset(seed=0, options={"scene": {"led": 1, "switch": 0.088}})[0]["rgb_static"]
    np.testing.assert_array_equal(first, again)
    dark_image = dark.step(STILL)[0]["rgb_static"]
    assert np.abs(dark_image.astype(int) - lit.step(STILL)[0]["rgb_static"]).max() > 100


def test_render_gives_a_picture_only_when_asked_for() -> None:
    env = PlayTableEnv(cameras=False, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (200, 200, 3)
    assert picture.std() > 20
    assert PlayTableEnv(cameras=False).render() is None


def test_a_broken_egl_is_passed_over_by_auto_and_named_with_its_package_when_forced() -> None:
    code = """
from envs.playtable.env import PlayTableEnv
from worldaction.errors import UserError
print(PlayTableEnv().renderer)
try:
    PlayTableEnv(renderer="egl").reset()
except UserError as error:
    print(error)
"""
    # PyOpenGL told to use another platform: importing EGL fails, as it does where the library is missing
    chosen, error = run(code, PYOPENGL_PLATFORM="osmesa").splitlines()
    assert chosen in ("osmesa", "rays")
    assert "libegl1" in error


def test_importing_the_package_loads_no_simulator_and_a_blind_table_no_graphics() -> None:
    assert run("import sys, envs, envs.tasks; print('mujoco' in sys.modules)") == "False"
    code = "import sys; from envs.playtable.env import PlayTableEnv; PlayTableEnv(cameras=False).reset(seed=0); "
    assert run(code + "print([m for m in ('OpenGL', 'mujoco.egl', 'torch') if m in sys.modules])") == "[]"


def first_picture(renderer: str) -> np.ndarray:
    """The first image of an episode: run in another process."""
    picture: np.ndarray = PlayTableEnv(image_size=32, renderer=renderer).reset(seed=4)[0]["rgb_static"]
    return picture


def test_a_spawned_process_draws_the_same_picture() -> None:
    here = PlayTableEnv(image_size=32)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(first_picture, (here.renderer,))
    np.testing.assert_array_equal(there, here.reset(seed=4)[0]["rgb_static"])


# ---- experts


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_solves_its_task_in_time_and_leaves_the_rest_alone(blind: PlayTableEnv, task: str) -> None:
    judged = {"slider": 0.05, "drawer": 0.05, "lightbulb": 0.5, "led": 0.5}
    for seed in (100, 101):
        start = blind.reset(seed=seed, options={"task": task})[0]["scene_obs"]
        expert = Expert(blind, task)
        solved = False
        while not solved:
            observation, _, solved, truncated, _ = blind.step(expert.act())
            assert not truncated
        change = np.abs(observation["scene_obs"] - start)
        for place, (name, limit) in zip((0, 1, 4, 5), judged.items(), strict=True):
            assert name == TASKS[task].field or change[place] < limit


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_expert_solves_95_of_100_starts_in_time(blind: PlayTableEnv, task: str) -> None:
    assert measure_expert(blind, task, starts=100).in_time >= 0.95


@pytest.mark.parametrize(("first", "second"), [("open_drawer", "close_drawer"), ("close_drawer", "open_drawer")])
def test_an_expert_that_clears_away_first_undoes_what_was_done_a_moment_ago(
    blind: PlayTableEnv, first: str, second: str
) -> None:
    done = {}
    for clear in (False, True):
        blind.reset(seed=0, options={"task": first})
        expert, solved = Expert(blind, first), False
        while not solved:
            solved = blind.step(expert.act())[2]
        begun, judge = blind.scene_obs(), TASKS[second]
        expert, done[clear] = Expert(blind, second, clear=clear), False
        while not (expert.done or done[clear]):
            blind.step(expert.act())
            done[clear] = bool(judge.achieved(begun, blind.scene_obs()))
    # without it the fingers drag the bar along on the straight way to the first waypoint
    assert done == {False: False, True: True}


def test_an_expert_looks_again_when_a_block_was_not_where_it_had_been(blind: PlayTableEnv) -> None:
    blind.reset(seed=0, options={"task": "lift_blue_block_table"})
    expert, table = Expert(blind, "lift_blue_block_table"), blind._model.joint("block_blue")
    for _ in range(10):
        blind.step(expert.act())
    blind.data.qpos[table.qposadr[0]] += 0.04
    assert any(blind.step(expert.act())[2] for _ in range(100))


def test_a_lifted_block_stays_between_the_fingers(blind: PlayTableEnv) -> None:
    blind.reset(seed=1, options={"task": "lift_blue_block_table"})
    expert, height = Expert(blind, "lift_blue_block_table"), TASKS["lift_blue_block_table"].entry()
    while not blind.step(expert.act())[2]:
        pass
    up = np.array([0, 0, 0.5, 0, 0, 0, -1])
    for _ in range(5):
        blind.step(up)
    for _ in range(60):
        blind.step(np.array([0, 0, 0, 0, 0, 0, -1]))
    assert blind.scene_obs()[height] > 0.53
    # 40 mm of block, with fingers that yield
    assert 0.028 < blind.robot_obs()[6] < 0.045


def test_only_tasks_of_blocks_have_fingers_that_hold_them(blind: PlayTableEnv) -> None:
    for task in ("open_drawer", "lift_blue_block_table", "turn_on_led"):
        blind.reset(seed=0, options={"task": task})
        assert (blind._model.pair_margin.max() > 0) == (task in BLOCK_TASKS)


def test_an_episode_of_the_eight_is_the_same_after_one_of_blocks(blind: PlayTableEnv) -> None:
    def episode() -> np.ndarray:
        blind.reset(seed=5, options={"task": "close_drawer"})
        expert = Expert(blind, "close_drawer")
        rows = []
        for _ in range(40):
            blind.step(expert.act())
            rows.append(np.concatenate([blind.robot_obs(), blind.scene_obs()]))
        return np.array(rows)

    before = episode()
    blind.reset(seed=1, options={"task": "lift_blue_block_table"})
    expert = Expert(blind, "lift_blue_block_table")
    for _ in range(60):
        blind.step(expert.act())
    np.testing.assert_array_equal(episode(), before)


def test_a_model_is_compiled_once_however_it_is_asked_for() -> None:
    assert model("D") is model() is model(name="D", gripping=False)
    assert model("D", gripping=True) is not model("D")


def test_an_expert_with_random_offsets_needs_a_generator(blind: PlayTableEnv) -> None:
    blind.reset(seed=0)
    with pytest.raises(UserError, match="pass rng"):
        Expert(blind, "open_drawer", offset=0.01)


def test_fingers_stay_within_their_travel_however_hard_the_closed_hand_is_pressed_onto_the_button() -> None:
    env = PlayTableEnv(cameras=False, max_steps=10_000)
    for seed in (1_000_003, 1_000_005, 1_000_009):
        width = play_episode(env, seed, 200)["robot_obs"][:, ROBOT_FIELDS["gripper_width"]]
        # CALVIN's recordings lie between -0.001 and 0.081
        assert width.min() >= -0.001
        assert width.max() <= 0.081

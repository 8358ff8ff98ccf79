"""The real simulator, where there is one: CALVIN's numbers, its oracle, its own evaluation, and experts in it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from paths import DATA, ROOT
from stable_baselines3.common.env_checker import check_env as sb3_check

from envs.calvin import env as calvin_env
from envs.calvin.client import PYTHON, Scene, SimulatorCrashed
from envs.calvin.draws import draw_start
from envs.calvin.env import CalvinEnv, calvin_table
from envs.calvin.evaluation import main as upstream
from envs.episodes import Job
from envs.playtable.env import PlayTableEnv
from envs.playtable.expert import CLOSED, DOWN, Expert, steer
from envs.playtable.generate import generate_shard
from envs.playtable.robot import HOME
from envs.playtable.tools.check import measure_expert
from envs.tasks import TASKS, get_task
from worldaction.config import TableConfig
from worldaction.errors import UserError
from worldaction.play.images import area_mean
from worldaction.play.readers.calvin import find_calvin
from worldaction.play.store import PlayStore
from worldaction.spec import NULL_ACTION

pytestmark = [
    pytest.mark.calvin,
    pytest.mark.skipif(
        not os.environ.get(PYTHON), reason=f"needs a CALVIN simulator: set {PYTHON}, see docs/calvin.md"
    ),
]

STILL = np.array(NULL_ACTION)
AT_HOME = np.array([*np.zeros(6), 0.08, *HOME, 1.0])


@pytest.fixture(scope="module")
def blind() -> Iterator[CalvinEnv]:
    """A table without cameras."""
    env = CalvinEnv(cameras=False, max_steps=200)
    yield env
    env.close()


@pytest.fixture(scope="module")
def seeing() -> Iterator[CalvinEnv]:
    """A table with cameras."""
    env = CalvinEnv(render_mode="rgb_array")
    yield env
    env.close()


def test_the_home_pose_is_that_of_calvins_evaluation(blind: CalvinEnv) -> None:
    blind.reset(seed=0, options={"robot_obs": AT_HOME})
    home = [0.02586889, -0.2313129, 0.5712808, 3.09045411, -0.02908596, 1.50013585, 0.07999963]
    np.testing.assert_allclose(blind.robot_obs()[:7], home, atol=1e-7)
    assert len(blind.about["calvin_env"]) == 40


def test_a_step_is_followed_as_measured(blind: CalvinEnv) -> None:
    blind.reset(seed=0, options={"robot_obs": AT_HOME})
    before, reached = blind.tcp_position[0], []
    for action in (1.0, 0, 0, 0, 0, 0, 0, 0):
        blind.step(np.array([action, 0, 0, 0, 0, 0, 1]))
        reached.append((blind.tcp_position[0] - before) / 0.02)
    np.testing.assert_allclose(reached, [0.49, 0.76, 0.88, 0.94, 0.97, 0.98, 0.99, 0.99], atol=0.006)


def test_both_tables_start_alike_and_agree_where_handles_are(blind: CalvinEnv) -> None:
    table = PlayTableEnv(cameras=False)
    for seed, task in enumerate(TASKS):
        options = {"task": task}
        real, ours = blind.reset(seed=seed, options=options)[0], table.reset(seed=seed, options=options)[0]
        np.testing.assert_allclose(real["robot_obs"], ours["robot_obs"], atol=1e-4)
        # CALVIN lets the blocks settle for one substep; before it, every number of the start is the same
        np.testing.assert_allclose(real["scene_obs"], ours["scene_obs"], atol=6e-3)
        drawn = draw_start(get_task(task), seed, {}, scene="D")
        np.testing.assert_array_equal(drawn.scene_obs[:6].astype(np.float32), ours["scene_obs"][:6])
        np.testing.assert_allclose(drawn.scene_obs[6:], ours["scene_obs"][6:], atol=1e-4)
        for site in ("drawer_handle", "slider_handle", "switch_lever", "button"):
            np.testing.assert_allclose(blind.site(site), table.site(site), atol=1e-3)


def rollout(env: CalvinEnv) -> np.ndarray:
    """Everything that is observed while closed fingers push the first block over the table."""
    observation, _ = env.reset(seed=3)
    block = env.scene_obs()[6:9]
    seen = [np.concatenate([observation["robot_obs"], observation["scene_obs"]])]
    for height, ahead in ((0.12, -0.07), (0.02, -0.07), (0.02, 0.10)):
        for _ in range(35):
            observation, *_ = env.step(steer(env, block + np.array([0, ahead, height - 0.02]), DOWN, CLOSED))
            seen.append(np.concatenate([observation["robot_obs"], observation["scene_obs"]]))
    return np.stack(seen)


def test_an_episode_repeats_to_the_last_bit_after_contacts_and_in_another_process(blind: CalvinEnv) -> None:
    first = rollout(blind)
    assert np.abs(first[-1, 21:24] - first[0, 21:24]).max() > 0.05, "no block was pushed"
    np.testing.assert_array_equal(rollout(blind), first)
    other = CalvinEnv(cameras=False)
    np.testing.assert_array_equal(rollout(other), first)
    other.close()


def test_our_oracle_says_what_calvins_says_after_every_step(blind: CalvinEnv) -> None:
    checked = set()
    for seed, task in enumerate(TASKS):
        blind.reset(seed=seed, options={"task": task})
        expert = Expert(blind, task)
        for _ in range(90):
            blind.step(expert.act())
            theirs = set(blind.achieved()) & set(TASKS)
            ours = {name for name, other in TASKS.items() if other.achieved(blind.start_scene, blind.scene_obs())}
            assert ours == theirs
            checked |= theirs
    assert len(checked) >= 7


def test_a_recorded_state_comes_back(blind: CalvinEnv) -> None:
    blind.reset(seed=5, options={"task": "open_drawer"})
    expert = Expert(blind, "open_drawer")
    for _ in range(45):
        blind.step(expert.act())
    robot, scene = blind.robot_obs(), blind.scene_obs()
    assert scene[1] > 0.05
    assert robot[14] == -1
    observation, _ = blind.reset(options={"robot_obs": robot, "scene_obs": scene})
    np.testing.assert_allclose(observation["robot_obs"], robot, atol=5e-3)
    np.testing.assert_allclose(observation["scene_obs"], scene, atol=5e-3)


@pytest.mark.parametrize("task", TASKS)
def test_the_scripted_expert_solves_ten_starts_of_ten(blind: CalvinEnv, task: str) -> None:
    assert measure_expert(blind, task, starts=10).success == 1


def test_images_show_the_table_in_calvins_colours_and_the_lights(seeing: CalvinEnv) -> None:
    dark = seeing.reset(seed=0, options={"scene": {"led": 0, "switch": 0}})[0]
    picture = seeing.render()
    assert picture is not None
    assert 120 < picture.mean() < 145
    lit = seeing.reset(seed=0, options={"scene": {"led": 1, "switch": 0.088}})[0]
    changed = np.abs(lit["rgb_static"].astype(int) - dark["rgb_static"]).max(-1) > 40
    assert 3 < changed.sum() < 400
    again = seeing.reset(seed=0, options={"scene": {"led": 1, "switch": 0.088}})[0]
    for name in lit:
        np.testing.assert_array_equal(again[name], lit[name])


@pytest.mark.filterwarnings("ignore")
def test_it_passes_the_checks_of_gymnasium_and_stable_baselines3(blind: CalvinEnv) -> None:
    gymnasium_check(blind, skip_render_check=True)
    sb3_check(blind)


def test_a_killed_simulator_is_replaced_by_the_next_reset() -> None:
    env = CalvinEnv(cameras=False)
    first = env.reset(seed=1)[0]
    os.kill(env._simulator._process.pid, signal.SIGKILL)
    with pytest.raises(SimulatorCrashed, match="ended with exit status -9 on step"):
        env.step(STILL)
    again = env.reset(seed=1)[0]
    np.testing.assert_array_equal(again["robot_obs"], first["robot_obs"])
    env.close()


@pytest.mark.parametrize("scene", ["A", "B", "C"])
def test_in_the_other_scenes_blocks_lie_in_their_own_order_and_the_expert_solves_every_task(scene: Scene) -> None:
    env = CalvinEnv(cameras=False, scene=scene)
    assert env.about["blocks"] == [name for name, _ in env.scene.blocks]
    for task in TASKS:
        assert measure_expert(env, task, starts=2).in_time == 1
    env.close()


def test_egl_looks_different_and_its_process_is_renewed(seeing: CalvinEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        env = CalvinEnv(renderer="egl")
    except UserError as error:
        pytest.skip(f"no EGL here: {error}")
    monkeypatch.setattr(calvin_env, "EGL_RESETS", 2)
    tiny = seeing.reset(seed=0)[0]["rgb_static"]
    process, pictures = env._simulator, [env.reset(seed=0)[0]["rgb_static"] for _ in range(3)]
    assert env._simulator is not process
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert 10 < np.abs(pictures[0].astype(int) - tiny).mean() < 35
    env.close()


def test_play_and_demonstrations_are_made_in_it(tmp_path: Path) -> None:
    jobs = [Job("play", 1_000_000, frames=10), Job("demo", 2_000_000, "turn_on_led", noise=0.1)]
    generate_shard(tmp_path / "s", jobs, TableConfig(image_size=32), source="calvin simulator", make=calvin_table)
    store = PlayStore.open(tmp_path / "s")
    assert [episode.kind for episode in store.episodes][-1] == "demo"
    assert store.meta.renderer == "tiny"
    assert store.frames["rgb_static"].float().std() > 10


def test_recorded_starts_look_as_they_were_recorded(seeing: CalvinEnv) -> None:
    windows = 0
    for split in find_calvin(DATA / "calvin_sample_native").splits:
        for segment in split.segments:
            with np.load(split.path(segment.start)) as frame:
                state = {name: frame[name] for name in ("robot_obs", "scene_obs")}
                recorded = frame["rgb_static"].astype(int)
            seeing.reset(options={"task": segment.task, **state})
            picture = seeing.render()
            assert picture is not None
            # the static camera's pictures in tests/data are averaged down
            smaller = area_mean(picture[None], len(recorded))[0].astype(int)
            assert np.abs(smaller - recorded).mean() < 1
            windows += 1
    assert windows == 2


@pytest.mark.timeout(600)
def test_calvins_own_evaluation_counts_what_policies_do_behind_its_model_api(tmp_path: Path) -> None:
    python, root = os.environ[PYTHON], Path(CalvinEnv(cameras=False).about["root"])
    models = root.parent / "calvin/calvin_models"
    needed = "import gymnasium, mujoco, safetensors, torch, tqdm"
    has_ours = subprocess.run([python, "-c", needed], capture_output=True).returncode == 0
    if not models.is_dir() or not has_ours:
        pytest.skip("needs a clone of CALVIN beside calvin_env, and our dependencies in the simulator's Python")
    upstream(["--out", str(tmp_path)])
    check = [str(ROOT / "tests/support/upstream_check.py"), str(root), str(models), str(tmp_path)]
    result = subprocess.run([python, "-W", "ignore", *check], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(next(line for line in result.stdout.splitlines() if line.startswith("["))) == [3, 0]


def test_an_episode_may_be_longer_than_two_of_the_papers() -> None:
    env = CalvinEnv(cameras=False, max_steps=152)
    env.reset(seed=0)
    ends = [env.step(STILL)[3] for _ in range(152)]
    assert ends == [False] * 151 + [True]
    env.close()


@pytest.mark.timeout(600)
def test_its_memory_stays_over_a_hundred_episodes() -> None:
    env = CalvinEnv(image_size=64)
    sizes = []
    for seed in range(100):
        env.reset(seed=seed)
        env.step(STILL)
        if seed in (20, 99):
            status = Path(f"/proc/{env._simulator._process.pid}/status").read_text()
            sizes.append(int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]))
    env.close()
    assert sizes[1] < sizes[0] + 20_000

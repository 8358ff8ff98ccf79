"""Generated data: a function of seeds, replayable, and in the store as planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs import episodes
from envs.episodes import SEEDS, SEEDS_PER_USE, Job, Noise
from envs.playtable import generate
from envs.playtable.benchmark import PlayTable
from envs.playtable.env import PlayTableEnv
from envs.playtable.expert import Expert
from envs.playtable.generate import demo_episode, generate_shard, near_miss_episode, plan, play_episode
from envs.playtable.stress import stressed
from envs.tasks import BLOCK_TASKS, EIGHT, TASKS
from worldaction.config import PlayConfig, StressConfig, TableConfig
from worldaction.errors import UserError
from worldaction.play.store import PlayStore, concatenate


@pytest.fixture(scope="module")
def blind() -> PlayTableEnv:
    """A table without cameras."""
    return PlayTableEnv(cameras=False)


def test_play_has_the_length_asked_for_and_depends_on_the_seed_alone(blind: PlayTableEnv) -> None:
    first = play_episode(blind, 7, 100)
    other_table = PlayTableEnv("turn_off_led", cameras=False)
    again = play_episode(other_table, 7, 100)
    assert {key: array.shape for key, array in first.items()} == {
        "robot_obs": (100, 15),
        "scene_obs": (100, 24),
        "action": (100, 7),
    }
    for key, array in first.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again[key])
    assert not np.array_equal(first["action"], play_episode(blind, 8, 100)["action"])
    assert np.abs(first["action"]).max() <= 1


def test_executing_the_recorded_actions_gives_the_recorded_frames(blind: PlayTableEnv) -> None:
    arrays, _ = demo_episode(blind, "open_drawer", 3, 0.3)
    observation, _ = blind.reset(seed=3, options={"task": "open_drawer"})
    for time, action in enumerate(arrays["action"]):
        np.testing.assert_allclose(arrays["robot_obs"][time], observation["robot_obs"], atol=1e-4)
        np.testing.assert_allclose(arrays["scene_obs"][time], observation["scene_obs"], atol=1e-3)
        observation, *_ = blind.step(action)


def test_play_attempts_tasks_of_blocks_where_it_is_asked_to(
    blind: PlayTableEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: set[str] = set()

    class Noted(Expert):
        def __init__(self, env: PlayTableEnv, task: str, *rest: object, **options: object) -> None:
            tried.add(task)
            super().__init__(env, task, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(generate, "Expert", Noted)
    for seed in range(8):
        play_episode(blind, seed, 300)
    assert tried <= set(EIGHT)
    for seed in range(8):
        play_episode(blind, seed, 300, BLOCK_TASKS)
    assert tried > set(BLOCK_TASKS)
    jobs = plan(PlayConfig(frames=1000, demos=1, near_misses=1), ("open_drawer", "lift_blue_block_table"))
    assert {job.skills for job in jobs if job.kind == "play"} == {("lift_blue_block_table",)}
    assert {job.skills for job in plan(PlayConfig(frames=1000), EIGHT)} == {()}


@pytest.mark.parametrize("task", TASKS)
def test_a_steady_demonstration_ends_four_frames_after_success(blind: PlayTableEnv, task: str) -> None:
    arrays, success = demo_episode(blind, task, 50, 0.05)
    done = TASKS[task].achieved(arrays["scene_obs"][0], arrays["scene_obs"])
    assert success
    assert int(done.argmax()) == len(done) - 1 - generate.DEMO_TAIL


def test_a_demonstrator_gives_up(blind: PlayTableEnv) -> None:
    arrays, success = demo_episode(blind, "open_drawer", 50, 3.0)
    assert not success
    assert len(arrays["action"]) == generate.DEMO_LIMIT


def test_near_misses_sometimes_fail_and_sometimes_succeed(blind: PlayTableEnv) -> None:
    outcomes = []
    for seed in range(24):
        arrays, success = near_miss_episode(blind, "open_drawer", seed)
        achieved = TASKS["open_drawer"].achieved(arrays["scene_obs"][0], arrays["scene_obs"]).any()
        assert success == achieved
        outcomes.append(success)
    assert 2 <= sum(outcomes) <= 22


def test_half_of_the_near_misses_are_the_demonstrators_where_he_may_begin_again() -> None:
    config = PlayConfig(frames=1, near_misses=4, demos=1, demo_noise=0.3, demo_pace=0.5, demo_limit=120)
    hasty, patient = (0.0, 1.0, 0), (0.3, 0.5, 120)

    def made(config: PlayConfig) -> list[tuple[float, float, int]]:
        return [(j.noise, j.pace, j.limit) for j in plan(config, ("open_drawer",)) if j.kind == "near_miss"]

    assert made(config) == [hasty, patient, hasty, patient]
    # demonstrations that are tried once leave their own failures
    assert made(replace(config, demo_limit=0)) == [hasty] * 4


def test_a_near_miss_that_does_not_hurry_aims_anew_at_every_try(
    blind: PlayTableEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets: list[float] = []

    class Noted(Expert):
        def __init__(self, *rest: Any, offset: float, **options: Any) -> None:
            offsets.append(offset)
            super().__init__(*rest, offset=offset, **options)

    monkeypatch.setattr(generate, "Expert", Noted)
    made = [near_miss_episode(blind, "open_drawer", seed, 0.35, 0.5, 152) for seed in range(12)]
    assert len(offsets) > len(made)
    assert set(offsets) == set(generate.NEAR_MISS_OFFSETS)
    lengths = {success: [len(a["action"]) for a, s in made if s == success] for success in (True, False)}
    assert set(lengths[False]) == {152}
    assert max(lengths[True]) > generate.NEAR_MISS_LIMIT + generate.NEAR_MISS_TAIL


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
@pytest.mark.parametrize("task", TASKS)
def test_every_attempt_that_succeeds_shows_it_and_no_other_does(task: str, tolerance: float) -> None:
    stress = StressConfig(tolerance=tolerance)
    label = PlayTable(TableConfig(), stress).label
    env = stressed(PlayTableEnv(cameras=False), stress, playing=True)
    made = [near_miss_episode(env, task, seed) for seed in range(6)]
    made += [near_miss_episode(env, task, seed, 0.35, 0.5, 152) for seed in range(6, 9)]
    made += [demo_episode(env, task, seed, 0.35, 0.5, 152) for seed in range(100, 103)]
    assert any(success for _, success in made)
    for arrays, success in made:
        said = label(task, arrays["scene_obs"], arrays["scene_obs"][0])
        assert said.any() == success
        assert not said[0]
        if success:
            # the first frame of success, and as many as may teach what it looks like
            assert len(said) - said.argmax() in (1 + generate.DEMO_TAIL, 1 + generate.NEAR_MISS_TAIL)


@pytest.mark.parametrize("short", [0, 1, 3])
def test_success_at_the_end_of_the_time_or_of_the_script_is_shown(
    blind: PlayTableEnv, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    whole, success = demo_episode(blind, "open_drawer", 50, 0.1)
    done = int(TASKS["open_drawer"].achieved(whole["scene_obs"][0], whole["scene_obs"]).argmax())
    assert success
    monkeypatch.setattr(generate, "DEMO_LIMIT", done + short)
    late, success = demo_episode(blind, "open_drawer", 50, 0.1)
    assert success
    for key, array in whole.items():
        np.testing.assert_array_equal(late[key], array)
    monkeypatch.setattr(generate, "DEMO_LIMIT", done - 1)
    cut, success = demo_episode(blind, "open_drawer", 50, 0.1)
    assert not success
    assert len(cut["action"]) == done - 1


def test_noise_has_the_deviation_and_the_memory_it_promises() -> None:
    noise = Noise(np.random.default_rng(0), 0.1)
    values = np.stack([noise.add(np.zeros(7)) for _ in range(6000)])
    late = values[100:, :6]
    np.testing.assert_allclose(late.std(0), 0.1, rtol=0.1)
    correlation = (late[1:] * late[:-1]).mean(0) / late.var(0)
    np.testing.assert_allclose(correlation, episodes.MEMORY, atol=0.06)
    assert not values[:, 6].any()


def test_no_seed_is_planned_twice_and_each_kind_stays_in_its_range() -> None:
    jobs = [job for seed in range(3) for job in plan(PlayConfig(frames=4000, near_misses=20, demos=10, seed=seed))]
    names = {"play": "play", "near_miss": "near_misses", "demo": "demos"}
    used = set()
    for job in jobs:
        base = SEEDS[names[job.kind]]
        assert base <= job.seed < base + SEEDS_PER_USE
        for seed in range(job.seed, job.seed + (episodes.ATTEMPTS if job.kind == "demo" else 1)):
            assert (seed, job.task) not in used
            used.add((seed, job.task))
    assert len([job for job in jobs if job.kind == "demo"]) == 3 * 8 * 10
    assert {job.split for job in jobs if job.kind != "demo"} == {"training", "validation"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PlayConfig(seed=-1), "seed -1"),
        (PlayConfig(seed=20), "seed 20"),
        (PlayConfig(demos=5000), "demos = 5000"),
        (PlayConfig(frames=0), "frames 0"),
    ],
)
def test_a_plan_that_needs_more_seeds_than_there_are_is_refused(config: PlayConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(config)


def test_shards_joined_hold_the_same_frames_as_one_shard(tmp_path: Path) -> None:
    table = TableConfig(image_size=16)
    jobs = [
        Job("play", 1, frames=30, split="validation"),
        Job("near_miss", 2, "turn_on_led"),
        Job("demo", 3, "turn_on_led", noise=0.3),
    ]
    counts: list[int] = []
    generate_shard(tmp_path / "whole", jobs, table, progress=counts.append)
    for number, job in enumerate(jobs):
        generate_shard(tmp_path / str(number), [job], table)
    whole = PlayStore.open(tmp_path / "whole")
    joined = concatenate([PlayStore.open(tmp_path / str(number)) for number in range(3)], tmp_path / "joined")
    assert sum(counts) == len(whole)
    assert len(counts) == 3
    assert whole.episodes == joined.episodes
    assert whole.segments == joined.segments
    for key in whole.frames.keys():  # noqa: SIM118 (a TensorDict iterates over rows)
        assert (whole.frames[key] == joined.frames[key]).all()
    assert whole.episodes[0].kind == "play"
    assert {episode.scene for episode in whole.episodes} == {"D"}
    demos = whole.demonstrations("turn_on_led", kind="demo")
    assert len(demos) == 1
    assert whole.meta.renderer in ("egl", "osmesa", "rays")


def test_a_demonstration_that_cannot_succeed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "ATTEMPTS", 1)
    with pytest.raises(UserError, match=r"lower --data\.demo-noise"):
        generate_shard(tmp_path / "x", [Job("demo", 3, "open_drawer", noise=5.0)], TableConfig(16, renderer="rays"))


def test_a_demonstrator_at_half_the_pace_takes_longer_and_asks_for_smaller_moves(blind: PlayTableEnv) -> None:
    quick, _ = demo_episode(blind, "open_drawer", 50, 0.0)
    slow, success = demo_episode(blind, "open_drawer", 50, 0.0, 0.5)
    assert success
    assert len(slow["action"]) > 1.3 * len(quick["action"])
    speeds = [np.linalg.norm(arrays["action"][:, :3], axis=-1).max() for arrays in (quick, slow)]
    assert speeds[1] <= 0.5 + 1e-6 < speeds[0]


@pytest.mark.parametrize("pace", [0.0, 1.5])
def test_an_impossible_pace_is_refused(blind: PlayTableEnv, pace: float) -> None:
    with pytest.raises(UserError, match=f"pace {pace}"):
        demo_episode(blind, "open_drawer", 50, 0.0, pace)


def test_a_demonstrator_with_time_begins_its_script_again_until_the_task_is_done(blind: PlayTableEnv) -> None:
    seeds = range(50, 70)
    once = [demo_episode(blind, "move_slider_right", seed, 0.5, 0.5) for seed in seeds]
    again = [demo_episode(blind, "move_slider_right", seed, 0.5, 0.5, 152) for seed in seeds]
    assert sum(done for _, done in again) > sum(done for _, done in once)
    for (first, _), (second, _) in zip(once, again, strict=True):
        # what is done in the last step is shown in the frames after it
        assert len(first["action"]) <= len(second["action"]) <= 152 + generate.DEMO_TAIL + 1
        np.testing.assert_array_equal(first["action"], second["action"][: len(first["action"])])

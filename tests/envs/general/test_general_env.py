"""Any Gymnasium environment: what is seen of it, what it is told, who demonstrates, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import reach_env
from gymnasium.spaces import Box
from reach_env import ID, REACHED, SIDE, Reach

from envs.episodes import LAST_SEED, SEEDS, Job, Recorder
from envs.general import generate as making
from envs.general.generate import generate
from envs.general.standard import Standard, safe_name
from worldaction.config import GymConfig, PlayConfig, TableConfig
from worldaction.errors import UserError
from worldaction.play.images import area_mean
from worldaction.play.store import PlayStore
from worldaction.spec import ACTION, ROBOT, SCENE


def standard(config: GymConfig | None = None, *, max_steps: int | None = None, **options: Any) -> Standard:
    return Standard(gym.make(ID, **options), config or GymConfig(), image_size=8, max_steps=max_steps)


def test_images_become_square_cameras_and_all_other_numbers_proprioception_by_name() -> None:
    env = standard()
    seen, info = env.reset(seed=0)
    reach: Any = env.unwrapped
    assert env.layout.cameras == ("image",)
    assert (env.layout.robot, env.layout.scene, env.layout.action) == (4, 1, 2)
    assert np.allclose(seen[ROBOT], [*reach.mark, *reach.place])
    # the middle of a picture that is four columns too wide
    assert (seen["image"] == area_mean(reach.render()[None, :, 2 : 2 + SIDE], 8)[0]).all()
    assert seen[SCENE].tolist() == [0.0]
    assert info["is_success"] is False
    assert env.observation_space.contains(seen)


@pytest.mark.parametrize(
    ("camera", "sees", "cameras", "robot"),
    [("auto", "numbers", (), 4), ("none", "both", (), 4), ("auto", "pixels", ("image",), 0)],
)
def test_what_is_seen_is_a_choice(camera: Any, sees: str, cameras: tuple[str, ...], robot: int) -> None:
    env = standard(GymConfig(camera=camera), sees=sees)
    assert env.layout.cameras == cameras
    assert env.layout.robot == robot
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_the_environment_s_own_picture_is_a_camera_on_request() -> None:
    env = standard(GymConfig(camera="render"), sees="numbers", render_mode="rgb_array")
    seen, _ = env.reset(seed=1)
    assert env.layout.cameras == ("render",)
    assert (seen["render"] == area_mean(env.unwrapped.render()[None, :, 2 : 2 + SIDE], 8)[0]).all()  # type: ignore[index]


def test_actions_of_one_reach_the_ends_of_the_environment_s_range_and_come_back() -> None:
    env = standard(sees="numbers")
    for unit in (-np.ones(2), np.ones(2), np.array([0.25, -0.5])):
        own = env.from_unit(unit)
        assert np.allclose(env.to_unit(own), unit)
        assert (own >= reach_env.LOW).all()
    assert np.allclose(env.from_unit(np.ones(2)), reach_env.HIGH)
    assert np.allclose(env.from_unit(-3 * np.ones(2)), reach_env.LOW)


def test_success_is_what_info_says_and_ends_the_episode() -> None:
    env = standard(sees="numbers")
    env.reset(seed=0)
    reach: Any = env.unwrapped
    reach.place = reach.mark + 2 * REACHED
    assert not env.step(np.zeros(2))[2]
    reach.place = reach.mark.copy()
    seen, _, terminated, truncated, info = env.step(np.zeros(2))
    assert terminated
    assert info["is_success"]
    assert not truncated
    assert seen[SCENE].tolist() == [1.0]
    assert env.reset(seed=0)[0][SCENE].tolist() == [0.0]


def test_success_that_is_left_over_at_a_reset_and_steps_that_say_nothing_are_none() -> None:
    class Stale(gym.Wrapper[Any, Any, Any, Any]):
        steps = 0

        def reset(self, **options: Any) -> Any:
            return self.env.reset(**options)[0], {"success": True}

        def step(self, action: Any) -> Any:
            self.steps += 1
            seen, reward, terminated, truncated, _ = self.env.step(action)
            # one in two says nothing
            return seen, reward, terminated, truncated, {} if self.steps % 2 == 0 else {"success": False}

    env = Standard(Stale(gym.make(ID)), GymConfig(), image_size=8, max_steps=None)
    assert env.reset(seed=0)[1]["is_success"] is False
    assert [env.step(np.zeros(2))[4]["is_success"] for _ in range(4)] == [False] * 4


def test_success_can_be_a_reward_or_a_function_of_one_s_own() -> None:
    for config in (GymConfig(success_reward=-REACHED), GymConfig(success="test_general_env:near")):
        env = standard(config, sees="numbers", tells=False)
        env.reset(seed=0)
        reach: Any = env.unwrapped
        assert not env.step(np.zeros(2))[4]["is_success"]
        reach.place = reach.mark.copy()
        assert env.step(np.zeros(2))[4]["is_success"]


def near(observation: Any, reward: float, info: dict[str, Any]) -> bool:
    """For `--gym.success test_general_env:near`."""
    return bool(np.abs(observation["mark"] - observation["place"]).max() < REACHED)


def says_nothing(observation: Any, reward: float, info: dict[str, Any]) -> None:
    """For `--gym.success test_general_env:says_nothing`: a return that was forgotten."""


def fails(observation: Any, reward: float, info: dict[str, Any]) -> bool:
    """For `--gym.success test_general_env:fails`."""
    return bool(info["no such key"])


def says_a_float(observation: Any, reward: float, info: dict[str, Any]) -> Any:
    """For `--gym.success test_general_env:says_a_float`, as Meta-World says it."""
    return np.array([1.0])


@pytest.mark.parametrize("target", ["os:getcwd", "os:sep", "test_general_env:standard"])
def test_a_judge_that_cannot_be_called_is_refused_before_the_first_step(target: str) -> None:
    with pytest.raises(UserError, match=rf"^--gym.success {target} .*\(observation, reward, info\) and return"):
        standard(GymConfig(success=target))


@pytest.mark.parametrize(
    ("name", "said"), [("says_nothing", "returned None"), ("fails", r"failed with KeyError\('no such key'\)")]
)
def test_a_judge_that_fails_or_says_neither_yes_nor_no_is_named(name: str, said: str) -> None:
    env = standard(GymConfig(success=f"test_general_env:{name}"))
    env.reset(seed=0)
    with pytest.raises(UserError, match=rf"^--gym.success test_general_env:{name} {said}; .*return whether"):
        env.step(np.zeros(2))


def test_a_judge_may_answer_with_a_number() -> None:
    env = standard(GymConfig(success="test_general_env:says_a_float"))
    env.reset(seed=0)
    assert env.step(np.zeros(2))[4]["is_success"] is True


def test_nothing_that_says_what_success_is_is_refused_with_both_remedies() -> None:
    env = standard(sees="numbers", tells=False)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"Reach-v0 .*--gym.success-reward R.*--gym.success module:function"):
        env.step(np.zeros(2))


def test_a_time_limit_of_ours_truncates_and_does_not_end_a_recording() -> None:
    env = standard(sees="numbers", max_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2)) for _ in range(3)]
    assert [end[3] for end in ends] == [False, False, True]
    assert not any(end[4]["ended"] for end in ends)


class Odd(gym.Env[Any, Any]):
    """Has whatever spaces it is given."""

    def __init__(self, observation: Any, action: Any) -> None:
        self.observation_space, self.action_space = observation, action


NUMBERS, ACTIONS, PICTURE = Box(-1, 1, (3,)), Box(-1, 1, (2,)), Box(0, 255, (9, 9, 3), np.uint8)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (NUMBERS, gym.spaces.Discrete(3), r"Odd takes actions of Discrete\(3\); only a Box"),
        (NUMBERS, Box(-np.inf, np.inf, (2,)), "without bounds.*RescaleAction"),
        (NUMBERS, Box(-1, 1, (2, 2)), "only a Box of numbers"),
        (gym.spaces.Discrete(4), ACTIONS, r"'observation' as Discrete\(4\)"),
        (Box(0, 1, (3, 4)), ACTIONS, "FlattenObservation"),
        (NUMBERS, Box(np.array([-1.0, 0.0]), np.array([1.0, 0.0])), "one has no range"),
        (gym.spaces.Dict({"a-b": PICTURE, "a_b": PICTURE}), ACTIONS, "two images called 'a_b'"),
        (Box(0, 255, (4, 4, 3), np.uint8), ACTIONS, "choose --table.image-size 4"),
    ],
)
def test_spaces_that_cannot_be_learned_are_refused_with_a_remedy(observation: Any, action: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Standard(Odd(observation, action), GymConfig(), image_size=8)


@pytest.mark.parametrize("action", [np.zeros(3), np.array([np.nan, 0.0]), np.zeros((1, 2))])
def test_actions_that_do_not_fit_are_refused(action: np.ndarray) -> None:
    env = standard(sees="numbers")
    env.reset(seed=0)
    with pytest.raises(UserError, match="must be 2 finite numbers"):
        env.step(action)


def test_what_an_environment_calls_action_is_not_what_was_asked_for() -> None:
    class Telling(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = self.env.step(action)
            return observation, reward, terminated, truncated, {**info, "action": action}

    env = Standard(Telling(gym.make(ID, sees="numbers")), GymConfig(), image_size=8)
    recorder = Recorder(env, env.reset(seed=0)[0])
    recorder.step(np.array([0.4, -0.2]))
    assert np.allclose(recorder.arrays()[ACTION], [[0.4, -0.2]])


def test_the_frame_that_ends_an_episode_is_recorded_for_it_may_be_the_only_one_that_shows_success() -> None:
    env = standard(sees="numbers", ends=True)
    recorder = Recorder(env, env.reset(seed=0)[0])
    reach: Any = env.unwrapped
    recorder.step(np.zeros(2))
    reach.place = reach.mark.copy()
    recorder.step(np.array([0.1, 0.0]))
    assert recorder.over
    arrays = recorder.arrays()
    assert arrays[SCENE][:, 0].tolist() == [0.0, 0.0, 1.0]
    assert np.allclose(arrays[ACTION][-2:], [[0.1, 0.0]] * 2)


def test_an_environment_says_that_its_actions_are_absolute() -> None:
    assert not standard().layout.absolute
    env: Any = gym.make(ID)
    env.unwrapped.absolute_actions = True
    assert Standard(env, GymConfig(), image_size=8).layout.absolute


def test_names_become_names_of_files() -> None:
    assert safe_name("agent/left eye") == "agent_left_eye"
    assert safe_name("0.rgb") == "camera_0_rgb"


# Play data ------------------------------------------------------------------------------------------------------------

JOBS = [
    Job("play", 1, "Reach_v0", frames=90, split="validation"),
    Job("near_miss", 2, "Reach_v0"),
    Job("demo", 3, "Reach_v0", noise=0.2),
]


def make_store(path: Path, jobs: list[Job], who: Any = reach_env.Straight) -> PlayStore:
    table = TableConfig(image_size=8, max_steps=30)
    generate(path, jobs, lambda: standard(sees="both"), who, table=table, data=PlayConfig())
    return PlayStore.open(path)


def test_play_goes_on_when_the_environment_ends_an_episode(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", JOBS)
    play = [e for e in store.episodes if e.kind == "play"]
    # the environment's own limit is 40 steps, and what the last one led to is a frame, too
    assert [e.length for e in play] == [41, 41, 8]
    assert {e.split for e in play} == {"validation"}
    first = [store.frames[ROBOT][e.start].tolist() for e in play]
    assert first[0] != first[1] != first[2]
    assert store.meta.layout.cameras == ("image",)
    assert store.meta.source == ID


def test_a_demonstration_succeeds_and_goes_on_for_a_few_steps(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", JOBS)
    (demo,) = store.demonstrations("Reach_v0", kind="demo")
    success = store.frames[SCENE][demo.start : demo.stop, 0]
    first = int(success.nonzero()[0])
    # the frame after the step that brings success shows it, and the tail follows
    assert demo.length == first + making.TAIL + 1
    assert store.frames[ACTION].abs().max() <= 1


@pytest.mark.parametrize("sooner", [0, 1, 4])
def test_success_in_the_last_step_of_an_attempt_is_shown(tmp_path: Path, sooner: int) -> None:
    (demo,) = make_store(tmp_path / "s", JOBS).demonstrations("Reach_v0", kind="demo")
    limit = demo.length - making.TAIL - 1 + sooner
    table = TableConfig(image_size=8, max_steps=limit)
    generate(tmp_path / "t", JOBS[2:], standard, reach_env.Straight, table=table, data=PlayConfig())
    store = PlayStore.open(tmp_path / "t")
    (late,) = store.demonstrations("Reach_v0", kind="demo")
    assert late.length == demo.length
    assert store.frames[SCENE][late.start : late.stop, 0].sum() == making.TAIL + 1


def test_episodes_are_functions_of_their_seeds(tmp_path: Path) -> None:
    whole = make_store(tmp_path / "whole", JOBS)
    alone = make_store(tmp_path / "alone", JOBS[2:])
    demo = whole.demonstrations("Reach_v0", kind="demo")[0]
    for key in (ACTION, ROBOT, "image"):
        assert (whole.frames[key][demo.start : demo.stop] == alone.frames[key][-demo.length :]).all()


def test_seeds_of_later_episodes_have_no_other_use() -> None:
    seeds = [making._derived(seed, number) for seed in range(SEEDS["play"], SEEDS["play"] + 2_000) for number in (1, 2)]
    assert min(seeds) >= LAST_SEED
    assert max(seeds) < 2**31
    assert len(set(seeds)) == len(seeds)


def test_every_task_has_its_part_of_play_in_training_and_in_validation() -> None:
    from envs.general.benchmark import General

    place = General(ID, GymConfig(expert="reach_env:Straight"), TableConfig(image_size=8))
    for count in (1, 2, 3, 5, 11):
        tasks = [f"t{number}" for number in range(count)]
        jobs = place.jobs(PlayConfig(frames=220, episode_frames=1, near_misses=0, demos=0), tasks)
        assert [job.task for job in jobs] == sorted((job.task for job in jobs), key=tasks.index)
        assert {job.task for job in jobs if job.split == "validation"} == set(tasks)


def test_a_demonstrator_who_never_succeeds_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no demonstration of Reach_v0 in 40 attempts"):
        make_store(tmp_path / "s", [Job("demo", 3, "Reach_v0", noise=0.0)], who=reach_env.Lost)
    assert not (tmp_path / "s").exists()


def test_play_without_a_demonstrator_is_aimless_and_attempts_are_refused(tmp_path: Path) -> None:
    assert len(make_store(tmp_path / "s", JOBS[:1], who=None)) == 90
    with pytest.raises(UserError, match="nobody demonstrates"):
        make_store(tmp_path / "t", JOBS[1:], who=None)


# The benchmark --------------------------------------------------------------------------------------------------------


def test_a_preset_is_fitted_to_the_environment_where_nobody_said_otherwise() -> None:
    from experiments.study.options import fitted
    from experiments.study.settings import PRESETS

    preset = PRESETS["debug"]
    asked = replace(preset, env=ID, table=replace(preset.table, image_size=8))
    study = fitted(asked, preset, set())
    assert study.tasks == ("Reach_v0",)
    assert study.table.max_steps == reach_env.LONGEST
    assert study.world_model.cameras == ("image",)
    assert study.evaluation.videos == preset.evaluation.videos
    # what was said stays, also where it is what the preset says
    mine = fitted(asked, preset, {"--tasks", "--table.max-steps", "--evaluation.videos"})
    assert mine.tasks == preset.tasks
    assert mine.table.max_steps == preset.table.max_steps


def test_whoever_has_no_demonstrator_is_told_what_to_give() -> None:
    from envs.general.benchmark import General

    blind = General(ID, GymConfig(), TableConfig(image_size=8))
    with pytest.raises(UserError, match=r"--gym.expert module:Class.*--gym.expert sac"):
        blind.jobs(PlayConfig(), ["Reach_v0"])
    with pytest.raises(UserError, match="reach_env:Nobody"):
        replace(blind, config=GymConfig(expert="reach_env:Nobody")).jobs(PlayConfig(), ["Reach_v0"])
    with pytest.raises(UserError, match="unknown task"):
        blind.check("Reech_v0")


def test_an_expert_can_be_learned_from_reward_and_its_weights_are_read_without_running_code(tmp_path: Path) -> None:
    from envs.general.sac import learn, recall

    def make() -> Standard:
        return standard(sees="numbers")

    path = tmp_path / "expert.safetensors"
    learn(make, 400, path)
    env = make()
    before = after = 0.0
    for seed in range(8):
        env.reset(seed=seed)
        who, reach = recall(make, path)(env, np.random.default_rng(0)), env.unwrapped
        assert isinstance(reach, Reach)
        before += float(np.abs(reach.place - reach.mark).max())
        for _ in range(30):
            env.step(env.to_unit(who.act(env.raw)))
        after += float(np.abs(reach.place - reach.mark).max())
    assert after < 0.5 * before

"""Stress switches: each does what it says, from the seed alone, and nothing while it is off."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from envs.episodes import Job
from envs.playtable.benchmark import PlayTable
from envs.playtable.blocks import BLOCK_Y
from envs.playtable.env import START_HIGH, START_LOW, START_POSITION, PlayTableEnv
from envs.playtable.expert import Expert
from envs.playtable.generate import embedded_table, generate_shard, plan
from envs.playtable.looks import look_of
from envs.playtable.rotation import to_matrix
from envs.playtable.scenes import SCENES
from envs.playtable.stress import (
    PUSH_STEPS,
    ActionFrame,
    Distractors,
    FramedActions,
    Mover,
    Pushed,
    Tight,
    UnseenLooks,
    UnseenStarts,
    draw_look,
    stressed,
)
from envs.tasks import BLOCK_TASKS, EIGHT, FURTHER, MARGIN, RANGES, TASKS, get_task, tight
from experiments.study.run import Run
from experiments.study.settings import PRESETS
from worldaction.config import PlayConfig, StressConfig, TableConfig, check_stress, stress_of_play, switched_on
from worldaction.errors import UserError
from worldaction.losses.base import known_actions
from worldaction.play.action_masking import hide_actions, knows_actions
from worldaction.play.store import PlayStore
from worldaction.play.windows import window_batches
from worldaction.spec import (
    ACTION,
    ACTION_MASK,
    CAMERAS,
    EPISODE,
    IS_INIT,
    METRES_PER_UNIT,
    NULL_ACTION,
    PREVIOUS_ACTION,
    SCENE_FIELDS,
    SCENE_SIZE,
)

STILL = np.array([0.0, 0, 0, 0, 0, 0, 1])
ALL_ON = StressConfig(
    distractors=1, positions=1, colours=1, pushes=1, tolerance=1, frame_scale=0.5, frame_turn=90, frame_play=True
)


def table(**options: Any) -> PlayTableEnv:
    return PlayTableEnv(**{"image_size": 32, "renderer": "rays", **options})


def blind(**options: Any) -> PlayTableEnv:
    return PlayTableEnv(cameras=False, **options)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in one.keys() | other.keys())


# All of them ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("playing", [False, True])
def test_a_table_without_a_switch_is_the_table_itself(playing: bool) -> None:
    env = blind()
    assert stressed(env, StressConfig(), playing=playing) is env


def test_every_switch_is_off_by_default_and_names_a_share_or_a_frame() -> None:
    assert {field.name for field in fields(StressConfig)} == {
        "distractors", "positions", "colours", "pushes", "hidden_actions", "tolerance",
        "frame_scale", "frame_turn", "frame_mirror", "frame_extra", "frame_play",
    }  # fmt: skip
    assert stressed(blind(), StressConfig(hidden_actions=0.5, frame_play=True)).unwrapped.spec is None


@pytest.mark.parametrize(
    ("switch", "seen_in_play"),
    [("distractors", True), ("positions", False), ("colours", False), ("tolerance", True)],
)
def test_a_switch_acts_where_it_says(switch: str, seen_in_play: bool) -> None:
    options: dict[str, Any] = {switch: 0.5}
    config = StressConfig(**options)
    env = table()
    assert stressed(env, config) is not env
    assert (stressed(env, config, playing=True) is not env) == seen_in_play


def test_an_episode_under_all_switches_is_a_function_of_its_seed() -> None:
    action = np.full(7, 0.3)
    episodes: list[list[dict[str, Any]]] = []
    for _ in range(2):
        env = stressed(table(), ALL_ON)
        # what was done before does not matter
        env.reset(seed=len(episodes))
        env.step(-action)
        episodes.append([env.reset(seed=7)[0], *(env.step(action)[0] for _ in range(3))])
    assert all(same(one, other) for one, other in zip(*episodes, strict=True))
    assert not same(episodes[0][0], env.reset(seed=8)[0])


def test_a_table_without_a_seed_starts_differently_each_time() -> None:
    env = stressed(table(), StressConfig(distractors=1))
    first = env.reset(seed=3)[0]
    assert not same(first, env.reset()[0])
    assert not same(env.reset()[0], env.reset()[0])


def test_experts_act_on_a_stressed_table() -> None:
    config = StressConfig(distractors=0.5, tolerance=0.5, frame_turn=30, frame_play=True)
    env: Any = stressed(table(image_size=16), config, playing=True)
    env.reset(seed=0, options={"task": "turn_on_led"})
    expert = Expert(env, "turn_on_led")
    assert any(env.step(expert.act())[4]["success"] for _ in range(60))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (StressConfig(distractors=1.5), "--stress.distractors 1.5"),
        (StressConfig(positions=-0.1), "--stress.positions -0.1"),
        (StressConfig(hidden_actions=2), "--stress.hidden-actions 2"),
        (StressConfig(frame_scale=0), "--stress.frame-scale 0"),
    ],
)
def test_a_switch_out_of_its_range_is_refused_by_name(config: StressConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        stressed(blind(), config)


# D1 -------------------------------------------------------------------------------------------------------------------


def test_distractors_do_not_depend_on_actions_and_change_nothing_but_the_images() -> None:
    runs = []
    for action in (np.array([1.0, 1, 1, 0, 0, 0, 1]), -np.array([1.0, 1, 1, 0, 0, 0, 1])):
        env, clean = Distractors(table(), 1.0), table()
        env.reset(seed=1)
        clean.reset(seed=1)
        seen, shown = [env.step(action)[0] for _ in range(4)], [clean.step(action)[0] for _ in range(4)]
        for a, b in zip(seen, shown, strict=True):
            assert np.array_equal(a["robot_obs"], b["robot_obs"])
            assert np.array_equal(a["scene_obs"], b["scene_obs"])
            assert not np.array_equal(a[CAMERAS[0]], b[CAMERAS[0]])
        runs.append(env)
    assert runs[0]._movers == runs[1]._movers


def test_distractors_move_and_flicker_while_the_arm_stands_still() -> None:
    env, clean = Distractors(table(), 1.0), table()
    env.reset(seed=2)
    clean.reset(seed=2)
    images = np.stack([env.step(STILL)[0][CAMERAS[0]] for _ in range(30)]).astype(float)
    still = np.stack([clean.step(STILL)[0][CAMERAS[0]] for _ in range(30)]).astype(float)
    assert np.abs(np.diff(images[10:], axis=0)).mean() > 5 * np.abs(np.diff(still[10:], axis=0)).mean()
    brightness = images.mean((1, 2, 3)) / still.mean((1, 2, 3))
    assert brightness.std() > 0.02


def test_more_strength_hides_more_of_the_image() -> None:
    changed = []
    for strength in (0.0, 0.34, 1.0):
        share = []
        for seed in range(4):
            seen = Distractors(table(), strength).reset(seed=seed)[0][CAMERAS[0]].astype(int)
            share.append((np.abs(seen - table().reset(seed=seed)[0][CAMERAS[0]]).max(-1) > 90).mean())
        changed.append(np.mean(share))
    assert changed[0] == 0
    assert changed[0] < changed[1] < changed[2] < 0.3


def test_a_mover_turns_back_at_the_border_and_stays_inside() -> None:
    mover = Mover(side=0.1, start=(0.95, 0.5), velocity=(0.1, 0.0), colour=(255, 0, 0), disc=False)
    columns = []
    for step in range(20):
        image = np.zeros((50, 50, 3), np.uint8)
        mover.paint(image, step)
        columns.append(np.argwhere(image[..., 0])[:, 1].mean() / 50)
    assert columns[0] > 0.9
    assert min(columns) < 0.1
    assert np.abs(np.diff(columns)).max() < 0.13


# D2 -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES)
def test_unseen_starts_lie_outside_the_range_of_training(scene: str) -> None:
    env: Any = UnseenStarts(blind(scene=scene), 1.0)
    place = SCENES[scene]
    for seed in range(25):
        env.reset(seed=seed)
        moved = env.tcp_position - START_POSITION
        assert ((moved < START_LOW - 0.02) | (moved > START_HIGH + 0.02)).any()
        blocks = env.scene_obs()[6:].reshape(3, 6)
        on_table = (blocks[:, 1] < BLOCK_Y[1]) & (place.table[0] <= blocks[:, 0]) & (blocks[:, 0] <= place.table[1])
        assert not on_table.any()
        # and rest where they are
        for _ in range(5):
            env.step(STILL)
        assert np.abs(env.scene_obs()[6:].reshape(3, 6)[:, :3] - blocks[:, :3]).max() < 0.01


def test_training_starts_are_never_those() -> None:
    env = blind()
    for seed in range(25):
        env.reset(seed=seed)
        moved = env.tcp_position - START_POSITION
        assert ((moved > START_LOW - 0.01) & (moved < START_HIGH + 0.01)).all()


def test_unseen_starts_leave_what_the_task_needs_as_it_was() -> None:
    for task in TASKS:
        env: Any = UnseenStarts(blind(task=task), 1.0)
        usual = blind(task=task)
        for seed in range(3):
            env.reset(seed=seed)
            usual.reset(seed=seed)
            np.testing.assert_allclose(env.scene_obs()[:6], usual.scene_obs()[:6], atol=1e-6)
            assert get_task(task).possible(env.scene_obs())


def test_experts_solve_tasks_from_unseen_starts() -> None:
    for task in TASKS:
        env: Any = UnseenStarts(blind(task=task), 1.0)
        env.reset(seed=11)
        expert = Expert(env, task)
        assert any(env.step(expert.act())[2] for _ in range(100)), task


# D3 -------------------------------------------------------------------------------------------------------------------


def test_unseen_looks_change_images_and_nothing_else() -> None:
    env, usual = UnseenLooks(table(), 1.0), table()
    for seed in range(3):
        seen, shown = env.reset(seed=seed)[0], usual.reset(seed=seed)[0]
        assert np.array_equal(seen["robot_obs"], shown["robot_obs"])
        assert np.array_equal(seen["scene_obs"], shown["scene_obs"])
        assert np.abs(seen[CAMERAS[0]].astype(int) - shown[CAMERAS[0]]).mean() > 20


def test_a_recoloured_table_does_not_recolour_its_neighbour() -> None:
    usual, env = table(), UnseenLooks(table(), 1.0)
    before = usual.reset(seed=5)[0]
    env.reset(seed=5)
    assert same(before, usual.reset(seed=5)[0])


def test_looks_lie_between_the_scenes_own_and_any() -> None:
    own = look_of(SCENES["D"])
    half, whole = (draw_look(own, np.random.default_rng(0), strength) for strength in (0.5, 1.0))
    assert draw_look(own, np.random.default_rng(0), 0.0).colours == own.colours
    for name, colour in own.colours.items():
        np.testing.assert_allclose(half.colours[name], (np.array(colour) + whole.colours[name]) / 2)
    assert whole.lights == own.lights
    assert np.linalg.norm(whole.direction) == pytest.approx(1)


def test_only_a_table_that_can_be_recoloured_is() -> None:
    with pytest.raises(UserError, match=r"--stress.colours 0.5"):
        UnseenLooks(gymnasium.make("CartPole-v1"), 0.5)


# D8 -------------------------------------------------------------------------------------------------------------------


def still_way(strength: float, seed: int) -> np.ndarray:
    """[80, 3] where the TCP is while nothing is asked of it."""
    env: Any = Pushed(blind(), strength) if strength else blind()
    env.reset(seed=seed)
    way = []
    for _ in range(80):
        env.step(STILL)
        way.append(env.tcp_position)
    return np.array(way)


def test_the_arm_is_pushed_by_centimetres_never_down_as_the_seed_says() -> None:
    for seed in range(6):
        still, half, whole = (still_way(strength, seed) for strength in (0.0, 0.5, 1.0))
        moved = np.linalg.norm(whole[-1] - still[-1])
        assert whole[-1][2] > still[-1][2] - 0.002
        assert moved < 0.105
        # in the same directions, at the same times
        np.testing.assert_allclose(half - still, (whole - still) / 2, atol=0.006)
        np.testing.assert_array_equal(whole, still_way(1.0, seed))
        np.testing.assert_array_equal(whole[:4], still[:4])
    farthest = [np.linalg.norm(still_way(1.0, seed) - still_way(0.0, seed), axis=-1).max() for seed in range(6)]
    assert min(farthest) > 0.02


def test_experts_meet_pushes_and_solve_their_tasks_all_the_same() -> None:
    for task in TASKS:
        env: Any = Pushed(blind(task=task), 1.0)
        # of this seed the first push is over before any task is done
        env.reset(seed=11)
        (begin, push), *_ = sorted(env._pushes, key=lambda one: one[0])
        assert np.linalg.norm(push) * PUSH_STEPS * METRES_PER_UNIT > 0.02
        expert = Expert(env, task)
        steps = next((step for step in range(1, 151) if env.step(expert.act())[2]), None)
        assert steps is not None, task
        assert steps > begin + PUSH_STEPS, task


def test_pushes_are_no_part_of_play() -> None:
    assert not isinstance(stressed(blind(), StressConfig(pushes=1.0), playing=True), Pushed)
    assert isinstance(stressed(blind(), StressConfig(pushes=1.0)), Pushed)
    with pytest.raises(UserError, match=r"--stress.pushes 2"):
        Pushed(blind(), 2.0)


# D6 -------------------------------------------------------------------------------------------------------------------


def test_without_tolerance_the_oracle_is_calvins() -> None:
    for name, task in TASKS.items():
        assert tight(task, 0.0) is task
        assert get_task(name, tolerance=0.0) is task


@pytest.mark.parametrize("scene", SCENES)
def test_the_tightest_success_asks_for_all_but_a_margin_of_the_way_and_starts_can_do_it(scene: str) -> None:
    for name in EIGHT:
        loose, half, task = (get_task(name, scene, tolerance=tolerance) for tolerance in (0.0, 0.5, 1.0))
        assert task.start == loose.start
        if loose.field in ("led", "lightbulb"):
            continue
        room = RANGES[task.field] + task.extra - task.start[1] if task.sign > 0 else task.start[0]
        assert task.delta == pytest.approx(room - MARGIN[task.field])
        assert half.delta == pytest.approx((loose.delta + task.delta) / 2)
        # the margin before the end is done from every start
        start, now = np.zeros((2, SCENE_SIZE)), np.zeros(SCENE_SIZE)
        start[:, SCENE_FIELDS[task.field]] = task.start
        end, margin = (RANGES[task.field] + task.extra if task.sign > 0 else 0.0), MARGIN[task.field]
        now[SCENE_FIELDS[task.field]] = end - task.sign * (margin - 1e-6)
        assert task.achieved(start, now).all()


def test_the_tightest_success_asks_a_block_to_be_moved_further() -> None:
    for name in BLOCK_TASKS:
        loose, task = get_task(name), get_task(name, tolerance=1.0)
        assert task.delta == pytest.approx(loose.delta + FURTHER[task.field])


def test_a_light_must_be_switched_further_than_its_trigger() -> None:
    start, now = np.zeros(SCENE_SIZE), np.zeros(SCENE_SIZE)
    now[SCENE_FIELDS["lightbulb"]], now[SCENE_FIELDS["switch"]] = 1, 0.05
    assert get_task("turn_on_lightbulb").achieved(start, now)
    assert not get_task("turn_on_lightbulb", tolerance=0.5).achieved(start, now)
    now[SCENE_FIELDS["switch"]] = 0.07
    assert get_task("turn_on_lightbulb", tolerance=0.5).achieved(start, now)
    # off is the other way for the switch, and the same way for the button
    off = get_task("turn_off_lightbulb", tolerance=0.5).also
    assert off is not None
    assert off[1] == -1
    assert get_task("turn_off_led", tolerance=0.5).also == get_task("turn_on_led", tolerance=0.5).also


def test_a_change_that_calvin_accepts_is_not_enough_when_it_is_tight() -> None:
    env: Any = Tight(blind(task="open_drawer"), 0.8)
    env.reset(seed=0)
    expert, loosely, tightly = Expert(env, "open_drawer"), 0, 0
    while not expert.done and not tightly:
        _, reward, terminated, _, info = env.step(expert.act())
        now = env.scene_obs()
        loosely += bool(get_task("open_drawer").achieved(env._start, now)) and not terminated
        tightly += terminated
        assert reward == terminated == info["success"] == info["is_success"]
        assert info["is_success_calvin"] == get_task("open_drawer").achieved(env._start, now)
    assert loosely > 0
    assert tightly == 1


def test_experts_can_be_as_precise_as_the_tightest_success_asks() -> None:
    for task in TASKS:
        env: Any = Tight(blind(task=task), 1.0)
        env.reset(seed=2)
        expert = Expert(env, task)
        assert any(env.step(expert.act())[2] for _ in range(120)), task


# D7 -------------------------------------------------------------------------------------------------------------------

FRAMES = [
    ActionFrame(scale=2.0),
    ActionFrame(scale=0.5, turn=30),
    ActionFrame(turn=-90, mirror=True),
    ActionFrame(turn=45, mirror=True, extra=2),
]


def test_a_quarter_turn_and_a_mirror_are_what_they_say() -> None:
    ahead = np.array([1.0, 0, 0, 0.5, 0, 0, -1])
    turned = ActionFrame(turn=90).to_table(ahead)
    np.testing.assert_allclose(turned, [0, 1, 0, 0, 0.5, 0, -1], atol=1e-12)
    mirrored = ActionFrame(mirror=True).to_table(ahead)
    np.testing.assert_allclose(mirrored, [-1, 0, 0, 0.5, 0, 0, -1], atol=1e-12)
    scaled = ActionFrame(scale=0.5).to_table(ahead)
    np.testing.assert_allclose(scaled, [0.5, 0, 0, 0.5, 0, 0, -1], atol=1e-12)
    idle = ActionFrame(extra=3).to_table([*ahead, 9, 9, 9])
    np.testing.assert_allclose(idle, ahead)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_policys_action_is_the_tables_there_and_back(frame: ActionFrame) -> None:
    rng = np.random.default_rng(0)
    action = rng.uniform(-0.3, 0.3, (50, 7))
    back = frame.to_policy(action)
    assert back.shape == (50, 7 + frame.extra)
    np.testing.assert_allclose(frame.to_table(back), action, atol=1e-12)


@pytest.mark.parametrize("frame", FRAMES)
def test_what_experts_do_in_a_frame_is_what_the_recorded_action_does(frame: ActionFrame) -> None:
    asked = np.random.default_rng(1).uniform(-1, 1, (4, 7))
    expert, policy = FramedActions(blind(), frame, experts=True), FramedActions(blind(), frame)
    expert.reset(seed=0)
    policy.reset(seed=0)
    assert policy.action_space.shape == (7 + frame.extra,)
    for action in asked:
        one, other = expert.step(action)[0], policy.step(frame.to_policy(action))[0]
        assert same(one, other)


def test_a_policy_in_a_turned_frame_moves_elsewhere() -> None:
    env, usual = FramedActions(blind(), ActionFrame(turn=180)), blind()
    move = np.array([0.5, 0, 0, 0, 0, 0, 1])
    paths = []
    for each in (env, usual):
        table_: Any = each
        table_.reset(seed=0)
        start = table_.target_position.copy()
        for _ in range(5):
            table_.step(move)
        paths.append(table_.target_position - start)
    np.testing.assert_allclose(paths[0][0], -paths[1][0], atol=1e-9)
    assert paths[1][0] == pytest.approx(2.5 * METRES_PER_UNIT)


def test_rotations_turn_with_the_axes() -> None:
    frame = ActionFrame(turn=40)
    turned = frame.to_table([0, 0, 0, 0.3, 0.1, -0.2, 1])[3:6]
    np.testing.assert_allclose(turned, to_matrix(np.array([0, 0, np.deg2rad(40)])) @ [0.3, 0.1, -0.2])


def test_an_action_of_another_size_is_refused() -> None:
    env = FramedActions(blind(), ActionFrame(extra=1))
    env.reset(seed=0)
    with pytest.raises(UserError, match="8 entries"):
        env.step(np.zeros(7))


def test_an_unused_joint_is_in_play_and_in_what_a_policy_gives(tmp_path: Path) -> None:
    stress = StressConfig(frame_extra=2, frame_play=True)
    table = PlayTable(TableConfig(image_size=8, renderer="rays"), stress)
    table.generate(tmp_path / "s", [Job("play", 1, frames=6)], data=PlayConfig())
    plain = PlayTable(table.table)
    plain.generate(tmp_path / "t", [Job("play", 1, frames=6)], data=PlayConfig())
    long, short = (PlayStore.open(tmp_path / name).frames[ACTION] for name in ("s", "t"))
    assert (long[:, :7] == short).all()
    assert (long[:, 7:] == 0).all()
    assert PlayStore.open(tmp_path / "s").meta.layout == table.layout
    assert table.layout.null_action == (*NULL_ACTION, 0.0, 0.0)
    assert table.make("turn_on_led").action_space.shape == (9,)
    with pytest.raises(UserError, match=r"--stress.frame-extra 1: .*--stress.frame-play"):
        check_stress(StressConfig(frame_extra=1))


# D4 -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PlayStore:
    """Ten episodes of play, the last of them held out, a near miss and a demonstration."""
    path = tmp_path_factory.mktemp("hidden") / "store"
    size = TableConfig(image_size=8, renderer="rays")
    generate_shard(path, plan(PlayConfig(frames=60, episode_frames=6, near_misses=1, demos=1), ["turn_on_led"]), size)
    return PlayStore.open(path)


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_hidden_actions_are_null_and_marked_in_that_share_of_play(store: PlayStore, share: float) -> None:
    shown = hide_actions(store, share, seed=0)
    null = torch.tensor(NULL_ACTION)
    hidden = [e for e in shown.episodes if not knows_actions(shown, e)]
    assert len(hidden) == round(9 * share)
    assert all(e.kind == "play" and e.split == "training" for e in hidden)
    for episode in shown.episodes:
        span = slice(episode.start, episode.stop)
        if episode in hidden:
            assert (shown.frames[ACTION][span] == null).all()
            assert (shown.frames[PREVIOUS_ACTION][span] == null).all()
            assert not shown.frames[ACTION_MASK][span].any()
        else:
            assert torch.equal(shown.frames[ACTION][span], store.frames[ACTION][span])
            assert torch.equal(shown.frames[PREVIOUS_ACTION][span], store.frames[PREVIOUS_ACTION][span])
            assert shown.frames[ACTION_MASK][span].all()
        assert torch.equal(shown.frames["robot_obs"][span], store.frames["robot_obs"][span])


def test_hiding_leaves_the_store_as_it_is_and_does_nothing_at_zero(store: PlayStore) -> None:
    before = store.frames[ACTION].clone()
    hide_actions(store, 1.0, seed=0)
    assert torch.equal(store.frames[ACTION], before)
    assert ACTION_MASK not in set(store.frames.keys())
    assert hide_actions(store, 0.0, seed=0) is store
    assert all(knows_actions(store, episode) for episode in store.episodes)


def test_a_larger_share_hides_the_same_episodes_and_more(store: PlayStore) -> None:
    few, many = (hide_actions(store, share, seed=3).frames[ACTION_MASK] for share in (0.4, 0.8))
    assert (many <= few).all()
    assert (many != few).any()
    assert not torch.equal(few, hide_actions(store, 0.4, seed=4).frames[ACTION_MASK])


def test_windows_of_training_carry_the_mask_to_the_losses(store: PlayStore) -> None:
    shown = hide_actions(store, 0.5, seed=0)
    batch = window_batches(shown, batch=40, length=4, seed=0, keys=[ACTION_MASK, IS_INIT, EPISODE]).sample()
    known = known_actions(batch)
    hidden = {e.start for e in shown.episodes if not knows_actions(shown, e)}
    starts = torch.tensor([shown.episodes[number].start in hidden for number in batch[EPISODE][:, 0].tolist()])
    assert starts.any()
    assert not known[starts].any()
    assert known[~starts].all()


# What made an artefact ------------------------------------------------------------------------------------------------


def digests(stress: StressConfig, **changed: Any) -> dict[str, str]:
    run = Run(replace(PRESETS["debug"], stress=stress, workers=1, **changed), Path("runs/none"))
    stages = {stage: run.task(0, "turn_on_led", stage) for stage in ("success", "clone", "ppo", "evaluation")}
    return {name: made.digest for name, made in {"play": run.play(), "model": run.world_model(0), **stages}.items()}


@pytest.mark.parametrize(
    ("stress", "remade"),
    [
        (StressConfig(), set()),
        # a frame that could be in play, but is not changed
        (StressConfig(frame_play=True), set()),
        (StressConfig(positions=0.5), {"ppo", "evaluation"}),
        (StressConfig(colours=0.5), {"ppo", "evaluation"}),
        (StressConfig(pushes=0.5), {"ppo", "evaluation"}),
        (StressConfig(frame_turn=30), {"ppo", "evaluation"}),
        (StressConfig(hidden_actions=0.5), {"model", "success", "clone", "ppo", "evaluation"}),
        (StressConfig(distractors=0.5), {"play", "model", "success", "clone", "ppo", "evaluation"}),
        (StressConfig(tolerance=0.5), {"play", "model", "success", "clone", "ppo", "evaluation"}),
        (StressConfig(frame_turn=30, frame_play=True), {"play", "model", "success", "clone", "ppo", "evaluation"}),
    ],
)
def test_a_switch_remakes_the_artefacts_that_it_acts_on_and_no_others(stress: StressConfig, remade: set[str]) -> None:
    usual, changed = digests(StressConfig()), digests(stress)
    assert {name for name in usual if usual[name] != changed[name]} == remade


def test_without_a_curve_ppo_is_what_it_was_under_switches_of_the_evaluation() -> None:
    evaluation = replace(PRESETS["debug"].evaluation, curve_episodes=0)
    usual = digests(StressConfig(), evaluation=evaluation)
    changed = digests(StressConfig(positions=1.0), evaluation=evaluation)
    assert {name for name in usual if usual[name] != changed[name]} == {"evaluation"}


def test_no_switch_is_a_part_of_what_made_an_artefact_while_it_is_off() -> None:
    assert switched_on(StressConfig()) == {}
    assert switched_on(StressConfig(distractors=0.5)) == {"distractors": 0.5}
    assert (
        stress_of_play(StressConfig(positions=1, colours=1, pushes=1, hidden_actions=1, frame_scale=2))
        == StressConfig()
    )


def test_a_store_says_under_which_switches_it_was_made(tmp_path: Path) -> None:
    make = partial(embedded_table, stress=StressConfig(tolerance=0.5, frame_turn=30, frame_play=True))
    size = TableConfig(image_size=8, renderer="rays")
    job = Job("play", 1, frames=5)
    for name, how in (("stressed", make), ("usual", None)):
        generate_shard(tmp_path / name, [job], size, make=how)
    stressed_store, usual = (PlayStore.open(tmp_path / name) for name in ("stressed", "usual"))
    assert stressed_store.meta.config["simulator"]["Tight"] == 0.5
    assert stressed_store.meta.config["simulator"]["FramedActions"]["turn"] == 30
    assert set(usual.meta.config["simulator"]) == {"mujoco"}
    # the recorded action is the policy's: turned back, it moved the table as the expert wished, where it could
    frame = ActionFrame(turn=30)
    asked = stressed_store.frames[ACTION].numpy()
    np.testing.assert_allclose(frame.to_policy(frame.to_table(asked)), asked, atol=0.5)
    assert not np.allclose(asked, usual.frames[ACTION].numpy())


def test_demonstrations_under_a_tight_tolerance_reach_it(tmp_path: Path) -> None:
    make = partial(embedded_table, stress=StressConfig(tolerance=0.9))
    size = TableConfig(image_size=8, renderer="rays")
    generate_shard(tmp_path / "store", [Job("demo", 5, "open_drawer", noise=0.1)], size, make=make)
    made = PlayStore.open(tmp_path / "store")
    (demo,) = made.demonstrations("open_drawer", kind="demo")
    drawer = made.frames["scene_obs"][demo.start : demo.stop, SCENE_FIELDS["drawer"]]
    assert drawer.max() - drawer[0] > get_task("open_drawer", tolerance=0.9).delta - 0.02
    assert drawer.max() > 0.19

"""Recordings of commanded actions: the file, what replays lead to, and commands recovered from motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import DATA

from envs.playtable.env import PlayTableEnv
from envs.playtable.recover import UNIT, from_calvin, recover_commands, recover_targets
from envs.playtable.rotation import wrap
from envs.playtable.tools.fidelity import main, replay_outcomes, replay_table
from envs.playtable.tools.replay import CARRIED, PARTS, Recording, Window, load_recording, replay, save_recording
from worldaction.errors import UserError
from worldaction.spec import NULL_ACTION

# windows that CALVIN's oracle has to see done here, of all
BARS = {"calvin_D": (38, 40), "calvin_sample_64": (15, 19), "calvin_sample_native": (3, 3)}
# the windows of the cut sets in tests/data, and where each begins in the carried recording
CUT = {
    "calvin_sample_native": [("open_drawer", 50), ("turn_on_led", 165)],
    "calvin_sample_64": [("open_drawer", 42), ("open_drawer", 1524)],
}


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Forty windows from the real simulator."""
    return load_recording(CARRIED / "calvin_D.npz")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    """Every carried recording, replayed once."""
    return dict(replay_outcomes())


# ---- replays


@pytest.mark.parametrize("name", BARS)
def test_commands_that_did_a_task_in_calvin_do_it_here(outcomes: dict[str, Any], name: str) -> None:
    least, count = BARS[name]
    assert len(outcomes[name]) == count
    assert sum(outcome.success for outcome in outcomes[name]) >= least


@pytest.mark.parametrize("name", BARS)
def test_replays_end_within_millimetres_of_what_was_recorded(outcomes: dict[str, Any], name: str) -> None:
    assert np.median([outcome.tcp for outcome in outcomes[name]]) < 0.001
    assert max(outcome.tcp for outcome in outcomes[name]) < 0.015
    # a part that is let go of in motion slides on, here as there; how far hangs on how it was touched last
    assert max(outcome.parts[part] for outcome in outcomes[name] for part in PARTS) < 0.036


def test_every_task_and_recording_has_a_row(outcomes: dict[str, Any]) -> None:
    table = replay_table(outcomes)
    assert table.count("**all**") == len(BARS)
    assert "| calvin_D | turn_on_led | 5 of 5 |" in table


def test_a_recording_replayed_in_the_table_that_made_it_ends_where_it_ended() -> None:
    env = PlayTableEnv("turn_on_led", cameras=False)
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(30):
        action = np.clip(rng.normal(0, 0.5, 7), -1, 1).astype(np.float32)
        target = np.concatenate([env.target_position, env.target_euler])
        rows.append((env.robot_obs(), env.scene_obs(), action, target))
        env.step(action)
    robot, scene, actions, targets = (np.stack(column).astype(np.float32) for column in zip(*rows, strict=True))
    made = Recording(robot, scene, actions, targets, (Window("turn_on_led", 0, 30), Window("turn_on_led", 10, 30)))
    from_the_start, from_the_middle = (replay(env, made, window) for window in made.windows)
    assert from_the_start.tcp < 1e-5
    # speeds are not recorded
    assert from_the_middle.tcp < 1e-3
    assert not from_the_start.success


def test_any_recording_is_replayed_by_name(
    tmp_path: Path, recording: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    save_recording(tmp_path / "mine.npz", replace(recording, windows=recording.windows[-1:]))
    main(["--replay", str(tmp_path / "mine.npz")])
    assert "| mine | turn_off_led | 1 of 1 |" in capsys.readouterr().out


def test_a_recording_of_another_scene_is_refused(recording: Recording) -> None:
    with pytest.raises(UserError, match="scene D"):
        replay(PlayTableEnv(cameras=False, scene="A"), recording, recording.windows[0])


# ---- recovered commands


def test_commands_are_recovered_from_the_motion_of_the_joints(recording: Recording) -> None:
    errors, leads = [], []
    for window in recording.windows:
        rows = slice(window.start, window.stop)
        robot, sent = recording.robot_obs[rows].astype(float), recording.action[rows]
        actions, targets = recover_commands(robot, sent[:, 6].astype(float))
        errors.append(np.abs(actions - sent)[:-1, :6])
        apart = np.abs(targets - recording.target[rows])[1:-1]
        apart[:, 3:] = np.abs(wrap(apart[:, 3:]))
        leads.append(apart)
    assert np.median(np.concatenate(errors)) < 0.005
    assert np.quantile(np.concatenate(errors), 0.9) < 0.05
    assert (np.quantile(np.concatenate(leads), 0.9, axis=0) < [1e-3] * 3 + [5e-3] * 3).all()


def test_in_free_space_commands_come_back_to_three_digits() -> None:
    env = PlayTableEnv(cameras=False)
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    robot, sent = [env.robot_obs()], []
    for _ in range(15):
        sent.append(np.array([*rng.uniform(-0.4, 0.4, 6), 1.0]))
        env.step(sent[-1])
        robot.append(env.robot_obs())
    actions, _ = recover_commands(np.stack(robot), np.ones(16))
    # MuJoCo's arm is a few percent slower in the first substep than Bullet's
    np.testing.assert_allclose(actions[2:-1, :6], np.stack(sent)[2:, :6], atol=0.06)
    assert np.abs(actions[2:-1, :6] - np.stack(sent)[2:, :6]).mean() < 0.02


def test_recovered_commands_are_legal_and_add_up_to_the_targets(recording: Recording) -> None:
    robot = recording.robot_obs[:60].astype(float)
    actions, targets = recover_commands(robot, recording.action[:60, 6].astype(float))
    assert np.abs(actions).max() <= 1
    np.testing.assert_allclose(wrap(np.diff(targets, axis=0) - UNIT * actions[:-1, :6])[:, :3], 0, atol=1e-12)
    np.testing.assert_allclose(wrap(np.diff(targets, axis=0) - UNIT * actions[:-1, :6])[:, 3:], 0, atol=1e-9)


def test_an_arm_at_rest_was_told_to_stay_where_it_is() -> None:
    env = PlayTableEnv(cameras=False)
    env.reset(seed=0)
    for _ in range(60):
        env.step(NULL_ACTION)
    joints = np.repeat(env.robot_obs()[None, 7:14], 2, 0)
    np.testing.assert_allclose(recover_targets(joints)[0, :3], env.target_position, atol=2e-4)


def test_too_few_frames_to_recover_commands_from_are_refused() -> None:
    with pytest.raises(UserError, match="T at least 3"):
        recover_commands(np.zeros((2, 15)), np.ones(2))


@pytest.mark.parametrize("name", CUT)
def test_the_command_makes_the_carried_recordings_from_the_sets(tmp_path: Path, name: str) -> None:
    main(["--record", str(DATA / name), "--out", str(tmp_path / "new.npz")])
    new, carried = load_recording(tmp_path / "new.npz"), load_recording(CARRIED / f"{name}.npz")
    assert [window.task for window in new.windows] == [task for task, _ in CUT[name]]
    assert new.source == f"{name}, 2 annotated windows, commands {'recovered' if new.recovered else 'as sent'}"
    assert new.recovered == (name == "calvin_sample_64")
    for window, (_, first) in zip(new.windows, CUT[name], strict=True):
        # what came before the cut decides where the target was in its first frame, what came after it the last command
        length = window.stop - window.start
        made, rows = slice(window.start + 1, window.stop - 1), slice(first + 1, first + length - 1)
        np.testing.assert_allclose(new.robot_obs[made], carried.robot_obs[rows], atol=1e-5)
        np.testing.assert_allclose(new.action[made], carried.action[rows], atol=1e-5)
        if new.recovered:
            np.testing.assert_allclose(new.target[made], carried.target[rows], atol=1e-5)
        moved, expected = (np.diff(wrap(x), axis=0) for x in (new.target[made], carried.target[rows]))
        np.testing.assert_allclose(wrap(moved), wrap(expected), atol=1e-5)
    assert from_calvin(DATA / name).scene == "D"


# ---- the file


def test_a_recording_survives_the_file(tmp_path: Path, recording: Recording) -> None:
    save_recording(tmp_path / "copy.npz", recording)
    copy = load_recording(tmp_path / "copy.npz")
    assert (copy.windows, copy.scene, copy.recovered, copy.source) == (
        recording.windows, recording.scene, recording.recovered, recording.source
    )  # fmt: skip
    for name in ("robot_obs", "scene_obs", "action", "target"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(recording, name))
    assert sum(path.stat().st_size for path in CARRIED.glob("*.npz")) < 1_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.zeros((3, 7), np.float32)}, "action of a recording"),
        ({"scene": "E"}, "unknown scene"),
        ({"windows": (Window("open_drawr", 0, 9),)}, "open_drawer"),
        ({"windows": (Window("open_drawer", 5, 6),)}, "two frames or more"),
        ({"windows": (Window("open_drawer", 0, 99_999),)}, "inside 0"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused(recording: Recording, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(recording, **change)


def test_numbers_that_are_not_finite_are_refused(recording: Recording) -> None:
    broken = recording.target.copy()
    broken[7, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        replace(recording, target=broken)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for name in BARS:
        data = (CARRIED / f"{name}.npz").read_bytes()
        for number, damaged in enumerate((b"", data[: len(data) // 2], b"PK" + data[100:], b"x" * 1000)):
            path = tmp_path / f"{name}{number}.npz"
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=path.name):
                load_recording(path)
    with pytest.raises(UserError, match="there is no recording"):
        load_recording(tmp_path / "none.npz")

"""A recording of the arm is what a robot's own recorder writes, and our reader gives it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.arm import record as recording
from envs.arm.env import IMAGES, STATE, ArmEnv
from envs.arm.record import CAMERAS, attempt_at, record
from envs.arm.tasks import TASKS
from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json
from worldaction.play.readers.source import open_source
from worldaction.spec import ACTION, ROBOT

pytest.importorskip("av")
pytest.importorskip("pyarrow")

SENTENCES = [task.sentence for task in TASKS.values()]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arm") / "set"
    record(path, episodes=7, failures=3, seed=0)
    return path


def test_it_has_a_robots_names_and_nothing_of_ours(root: Path) -> None:
    info = read_json(root / "meta/info.json")
    joints = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    assert (info["fps"], info["robot_type"], info["total_episodes"]) == (30, "so100_follower", 7)
    for name in ("action", "observation.state"):
        assert info["features"][name]["names"] == [f"{joint}.pos" for joint in joints]
    assert [info["features"][name]["shape"] for name in IMAGES] == [[96, 128, 3], [64, 64, 3]]
    assert info["features"]["next.success"]["dtype"] == "bool"
    assert sorted(path.name for path in (root / "meta").iterdir()) == [
        "episodes", "info.json", "stats.json", "tasks.parquet"
    ]  # fmt: skip


def test_our_reader_finds_tasks_outcomes_and_absolute_actions_in_the_robots_units(root: Path) -> None:
    source = open_source(root)
    attempts = [segment for episode in source.episodes for segment in episode.segments]
    assert [(one.start, one.stop) for one in attempts] == [(0, episode.length) for episode in source.episodes]
    assert sorted({one.task for one in attempts}) == sorted(SENTENCES)
    assert [one.success for one in attempts].count(False) == 3
    assert [one.success for one in attempts].count(True) == 4
    assert all({True, False} == {one.success for one in attempts if one.task == task} for task in SENTENCES)
    assert source.layout.absolute
    assert (source.layout.robot, source.layout.scene, source.layout.action) == (6, 0, 6)
    action = np.concatenate([b[ACTION] for n in range(7) for b in source.blocks(n, image_size=0)])
    assert np.abs(action).max() > 30
    assert action[:, 5].min() >= 0


def test_a_recorded_episode_is_the_attempt_that_was_made(root: Path) -> None:
    source = open_source(root)
    rng = np.random.default_rng([0, 0])
    attempt = attempt_at(ArmEnv(next(iter(TASKS))), int(rng.integers(2**31)), rng)
    (block,) = source.blocks(0, image_size=None)
    assert source.episodes[0].segments[0].success == attempt.success
    np.testing.assert_array_equal(block[ACTION], np.float32(attempt.actions))
    np.testing.assert_array_equal(block[ROBOT], [seen[STATE] for seen in attempt.seen])
    for camera, name in CAMERAS.items():
        made = np.stack([seen[name] for seen in attempt.seen]).astype(int)
        # what the reader makes of other sizes is its own test's
        height, width = IMAGES[name]
        if height == width == block[camera].shape[1]:
            assert np.abs(made - block[camera]).mean() < 3


def test_the_same_seed_is_the_same_recording_and_another_is_not(root: Path, tmp_path: Path) -> None:
    def actions(path: Path) -> np.ndarray:
        return np.concatenate([b[ACTION] for b in open_source(path).blocks(0, image_size=0)])

    record(tmp_path / "again", episodes=1, failures=0, seed=0)
    record(tmp_path / "other", episodes=1, failures=0, seed=1)
    np.testing.assert_array_equal(actions(tmp_path / "again"), actions(root))
    assert actions(tmp_path / "other").tolist() != actions(root).tolist()


def test_without_success_nobody_knows_how_an_attempt_ended_and_all_have_their_task(tmp_path: Path) -> None:
    record(tmp_path / "set", episodes=6, failures=3, seed=0, tells_success=False)
    assert "next.success" not in read_json(tmp_path / "set/meta/info.json")["features"]
    attempts = [segment for episode in open_source(tmp_path / "set").episodes for segment in episode.segments]
    assert [one.success for one in attempts] == [None] * 6
    assert sorted(one.task for one in attempts) == sorted(2 * SENTENCES)


@pytest.mark.parametrize(("episodes", "failures"), [(3, 4), (0, 0), (3, -1)])
def test_numbers_that_do_not_go_together_are_refused(episodes: int, failures: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--failures from 0"):
        record(tmp_path / "set", episodes=episodes, failures=failures, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_outcomes_that_do_not_come_end_the_recording_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "TRIES", 1)
    with pytest.raises(UserError, match="after 3 attempts, 1 of those wanted"):
        record(tmp_path / "set", episodes=3, failures=3, seed=0)
    assert list(tmp_path.iterdir()) == []

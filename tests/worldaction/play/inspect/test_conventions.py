"""A set that is trained on is looked at first: refused in a wrong convention, warned of where frames are wrong."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from listed_source import ListedSource, robot, small_set
from spoilt_set import DATA, EPISODES, SAMPLES, change, clip_poses, converted, copied, frame, shift, swap

from experiments.study.resolve import open_recorded
from worldaction import spec
from worldaction.api import open_play
from worldaction.errors import UserError
from worldaction.play.inspect.conventions import check_conventions


@pytest.fixture
def calvin(tmp_path: Path) -> Path:
    """A set that may be spoilt."""
    return copied(tmp_path / "set")


def shift_all(calvin: Path) -> None:
    for split, numbers in EPISODES:
        shift(calvin, split, numbers, 1)


def open_and_closed_as_1_and_0(calvin: Path) -> None:
    for split, numbers in EPISODES:
        change(
            calvin / split,
            numbers,
            rel_actions=lambda arrays, _: np.r_[arrays["rel_actions"][:6], arrays["rel_actions"][6] > 0],
        )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            clip_poses,
            "rel_actions is absolute and cut into [-1, 1], what lies beyond is lost; write (next pose - pose)",
        ),
        (shift_all, "rel_actions stands one frame too late in the whole set: each belongs to the frame before; shift"),
        (open_and_closed_as_1_and_0, "action[6] is 0 in some frames, it must be -1 or +1; write 2 x - 1 for 0 and 1"),
    ],
)
def test_a_wrong_convention_is_refused_by_the_command_and_in_python_with_the_remedy(
    spoil: object, words: str, calvin: Path
) -> None:
    assert callable(spoil)
    spoil(calvin)
    for begin in (open_recorded, open_play):
        with pytest.raises(UserError) as refused:
            begin(str(calvin))
        assert words in str(refused.value)
        assert f"worldaction data check {calvin} says more" in str(refused.value)
    assert sorted(path.name for path in calvin.parent.iterdir()) == ["set"]


def test_a_store_and_a_lerobot_export_of_a_wrong_set_are_refused_too(calvin: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    clip_poses(calvin)
    for kind in ("store", "lerobot"):
        with pytest.raises(UserError, match=r"absolute and cut into \[-1, 1\]"):
            open_recorded(str(converted(calvin, tmp_path / kind, "--to", kind)))


def test_wrong_frames_are_warned_of_and_trained_on(calvin: Path, caplog: pytest.LogCaptureFixture) -> None:
    swap(frame(calvin / "training", 46), frame(calvin / "training", 50))
    with caplog.at_level("WARNING"):
        open_play(calvin)
    said = " ".join(caplog.messages)
    assert "4 of 41 moves of a sample are not what their actions say" in said
    assert "joined from two episodes): episode 0, frames 3, 4, 7, 8 (4 of 17 moves)" in said


def test_sets_that_are_whole_are_opened_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        for name in SAMPLES:
            open_recorded(str(DATA / name))
            open_play(DATA / name, cache=tmp_path)
        check_conventions(small_set())
    assert caplog.messages == []


@pytest.mark.parametrize("key", [spec.ACTION, spec.ROBOT, spec.SCENE])
def test_what_is_no_number_is_refused_by_name(key: str) -> None:
    run = robot(100)
    run[key][40, 2] = np.inf
    with pytest.raises(UserError, match=f"{key} holds NaN or infinity in 1 of the frames looked at; leave"):
        check_conventions(ListedSource([run]))


def test_a_gripper_s_number_that_is_0_now_and_then_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    run = robot(100)
    run[spec.ACTION][40:43, 6] = 0
    with caplog.at_level("WARNING"):
        check_conventions(ListedSource([run]))
    assert caplog.messages == ["list: action[6] is 0 in some frames, neither -1 nor +1; it is read as -1"]


def test_a_large_set_is_looked_at_in_a_second() -> None:
    source = ListedSource([robot(20_000, seed=seed) for seed in range(10)])
    before = time.process_time()
    check_conventions(source)
    assert time.process_time() - before < 1


def test_poses_that_fit_into_the_range_are_warned_of_where_nobody_promised_moves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = [robot(200, seed=seed) for seed in (1, 2)]
    for run in runs:
        run[spec.ROBOT][:, :6] *= 0.2
        run[spec.ACTION][:-1, :6] = run[spec.ROBOT][1:, :6]
    with caplog.at_level("WARNING"):
        check_conventions(ListedSource(runs))
    assert any("action is the absolute pose of the next frame; write (next pose - pose)" in m for m in caplog.messages)

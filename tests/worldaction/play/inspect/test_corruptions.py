"""`worldaction data check` finds each corruption by episode and frame, and says nothing of sets that are whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from listed_source import ListedSource, robot
from spoilt_set import DATA, SAMPLES, change, converted, copied, frame, shift, swap

from envs.labels import done_instead
from envs.tasks import BLOCK_TASKS, LYING
from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.convert import convert
from worldaction.play.inspect.actions import detect
from worldaction.play.inspect.check import check_frames
from worldaction.play.inspect.motion import UNITS
from worldaction.play.inspect.problems import Findings
from worldaction.play.inspect.sample import sample
from worldaction.play.layout import Segment
from worldaction.play.readers.restricted import load_object_array
from worldaction.play.readers.source import Recording, open_source

LEADS = "the action does not lead to the next frame (frames swapped, lost, or joined from two episodes): "


@pytest.fixture
def calvin(tmp_path: Path) -> Path:
    """Episodes 42 to 59 and 1200 to 1207 of training, 924 to 941 of validation."""
    return copied(tmp_path / "set")


def checked(path: Path) -> Findings:
    return check_frames(open_source(path), lambda _: None, judge=done_instead)


# ---- what is whole


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("written", ["recorded", "store", "lerobot", "calvin"])
def test_nothing_is_said_of_a_recording_however_it_is_written(name: str, written: str, tmp_path: Path) -> None:
    path = DATA / name
    if written != "recorded":
        if written == "lerobot":
            pytest.importorskip("av")
        path = converted(path, tmp_path / "out", "--to", written)
    assert checked(path) == Findings([], [])


# ---- swapped, shifted, joined


@pytest.mark.parametrize(("one", "other"), [(45, 46), (46, 50), (43, 57)])
def test_two_swapped_frames_are_named_and_change_no_verdict_on_the_set(calvin: Path, one: int, other: int) -> None:
    folder = calvin / "training"
    swap(frame(folder, one), frame(folder, other))
    problem = checked(calvin).problems[-1]
    moves = sorted({one - 43, one - 42, other - 43, other - 42})
    named = ", ".join(map(str, moves))
    assert problem == f"{LEADS}episode 0, frames {named} ({len(moves)} of 17 moves)"
    source = open_source(calvin)
    assert detect(sample(source), source.layout).convention.endswith("moves that were achieved")


def test_frames_swapped_between_episodes_are_named_in_both(calvin: Path) -> None:
    swap(frame(calvin / "training", 50), frame(calvin / "validation", 930))
    problems = " ".join(checked(calvin).problems)
    assert "episode 0, frames 7, 8 (2 of 17 moves); episode 2, frames 5, 6 (2 of 17 moves)" in problems


@pytest.mark.parametrize("where", [(1, 17), (0, 9)])
def test_a_swap_is_found_where_blocks_and_judgements_meet(where: tuple[int, int]) -> None:
    run = robot(9000, seed=3)
    at = 4096 + where[0]
    other = at + where[1]
    for values in run.values():
        values[[at, other]] = values[[other, at]]
    (problem,) = [line for line in check_frames(ListedSource([run]), lambda _: None).problems if "lead" in line]
    assert f"frames {at - 1}, {at}, {other - 1}, {other} (4 of 8999 moves)" in problem


@pytest.mark.parametrize(("lag", "words"), [(1, "late: each belongs to the frame before"), (-1, "early: each belongs")])
@pytest.mark.parametrize("numbers", [range(42, 60), range(1200, 1208)])
def test_actions_of_one_episode_that_stand_in_another_frame_are_named(
    calvin: Path, lag: int, words: str, numbers: range
) -> None:
    shift(calvin, "training", numbers, lag)
    (problem,) = checked(calvin).problems
    assert problem.startswith(f"actions stand one frame too {words}")
    assert problem.endswith(f": episode {int(numbers[0] == 1200)}, all frames")


@pytest.mark.parametrize(("lag", "words"), [(1, "late in the whole set"), (-1, "early in the whole set")])
def test_actions_of_a_whole_set_that_stand_in_another_frame_are_a_problem_once(
    calvin: Path, lag: int, words: str
) -> None:
    for split, numbers in (
        ("training", range(42, 60)),
        ("training", range(1200, 1208)),
        ("validation", range(924, 942)),
    ):
        shift(calvin, split, numbers, lag)
    (problem,) = checked(calvin).problems
    assert problem.startswith(f"rel_actions stands one frame too {words}")


def test_joined_episodes_are_named_where_they_meet(calvin: Path) -> None:
    for number in range(1200, 1208):
        shutil.copy(frame(calvin / "validation", number - 270), frame(calvin / "training", number))
    for number in range(1204, 1208):
        shutil.copy(frame(DATA / SAMPLES[0] / "training", number), frame(calvin / "training", number))
    problems = " ".join(checked(calvin).problems)
    assert "episode 1, frame 3 (1 of 7 moves)" in problems


def lagging_runs() -> list[dict[str, np.ndarray]]:
    """A robot that goes most of its way to the target in a frame, under commands that change now and then."""
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(3):
        action = np.repeat(rng.uniform(-1, 1, (80, 7)), 4, 0)
        action[:, 6] = -1
        target = np.cumsum(action[:, :6] * UNITS, 0)
        pose = np.zeros((320, 6))
        for t in range(319):
            pose[t + 1] = pose[t] + 0.7 * (target[t] - pose[t])
        robot = np.zeros((320, 15))
        robot[:, :6], robot[:, 7:13] = pose, pose
        runs.append({spec.ACTION: action, spec.ROBOT: robot, spec.SCENE: np.zeros((320, 24))})
    return runs


def test_a_swap_is_found_in_play_whose_robot_lags_its_commands() -> None:
    runs = lagging_runs()
    source = ListedSource(runs)
    assert check_frames(source, lambda _: None) == Findings([], [])
    for values in runs[1].values():
        values[[100, 110]] = values[[110, 100]]
    (warning,) = check_frames(source, lambda _: None).warnings
    assert warning.startswith("a joint is more than 0.1 rad away from between the frames before and after")
    assert "episode 1, frames " in warning
    assert {"100", "110"} <= set(warning.replace(",", "").split())


@pytest.mark.parametrize("lag", [-1, 1])
def test_commands_of_one_episode_that_stand_in_another_frame_are_named(lag: int) -> None:
    runs = lagging_runs()
    assert check_frames(ListedSource(runs), lambda _: None) == Findings([], [])
    runs[1][spec.ACTION] = np.roll(runs[1][spec.ACTION], lag, 0)
    (problem,) = check_frames(ListedSource(runs), lambda _: None).problems
    assert problem.startswith(f"actions stand one frame too {'late' if lag > 0 else 'early'}")
    assert problem.endswith("episode 1, all frames")


@pytest.mark.parametrize(("lag", "words"), [(1, "late: each belongs to the frame before"), (-1, "early: each belongs")])
def test_poses_of_one_episode_that_stand_in_another_frame_are_named(lag: int, words: str) -> None:
    runs = [poses(200, seed=seed) for seed in range(3)]
    range_of_angles = "action leaves [-1, 1]"
    whole = check_frames(ListedSource(runs), lambda _: None)
    assert [problem for problem in whole.problems if range_of_angles not in problem] == []
    runs[1][spec.ACTION] = np.roll(runs[1][spec.ACTION], lag, 0)
    found = check_frames(ListedSource(runs), lambda _: None)
    (problem,) = [problem for problem in found.problems if range_of_angles not in problem]
    assert problem.startswith(f"actions stand one frame too {words}")
    assert problem.endswith(": episode 1, all frames")


def poses(frames: int, *, seed: int) -> dict[str, np.ndarray]:
    """A robot whose actions are its next poses; one angle goes over the edge of its range."""
    run = robot(frames, seed=seed)
    run[spec.ROBOT][:, 3] = (run[spec.ROBOT][:, 3] + 2 * np.pi) % (2 * np.pi) - np.pi
    run[spec.ACTION][:-1, :6] = run[spec.ROBOT][1:, :6]
    run[spec.ACTION][:, 3] = np.where(np.arange(frames) % 7, run[spec.ACTION][:, 3], run[spec.ACTION][:, 3] + 2 * np.pi)
    run[spec.ACTION][:, 3] -= 2 * np.pi * (run[spec.ACTION][:, 3] > np.pi)
    return run


# ---- what stands still, what is no number


def achieved_and_still(still: int, moving: int) -> dict[str, np.ndarray]:
    """Achieved moves behind a robot that waits."""
    run = robot(still + moving)
    run[spec.ACTION][:still, :6] = 0
    run[spec.ROBOT][: still + 1, :14] = run[spec.ROBOT][still, :14]
    return run


def test_moves_behind_a_robot_that_waits_are_known_by_those_that_it_makes() -> None:
    source = ListedSource([achieved_and_still(300, 200)])
    found = detect(sample(source), source.layout)
    assert (found.kind, found.achieved) == ("relative", True)
    assert found.units == pytest.approx((0.02, 0.05))
    assert check_frames(source, lambda _: None) == Findings([], [])


@pytest.mark.parametrize("jitter", [0.0, 1e-7, 1e-5])
def test_commands_that_a_robot_lags_are_no_achieved_moves_however_long_it_waits(jitter: float) -> None:
    rng = np.random.default_rng(0)
    runs = []
    for run in lagging_runs():
        still = int(0.55 / 0.45 * len(run[spec.ACTION]))
        waiting = {key: np.repeat(values[:1], still, 0) for key, values in run.items()}
        waiting[spec.ACTION][:, :6] = 0
        both = {key: np.concatenate([waiting[key], values]) for key, values in run.items()}
        both[spec.ROBOT][:, :6] += rng.normal(0, jitter, (len(both[spec.ROBOT]), 6)) if jitter else 0
        runs.append(both)
    source = ListedSource(runs)
    found = detect(sample(source), source.layout)
    assert (found.kind, found.achieved, found.lag) == ("relative", False, 0)
    assert found.units == pytest.approx((0.02, 0.05), rel=0.1)
    assert check_frames(source, lambda _: None) == Findings([], [])


def test_a_few_moves_of_an_episode_that_waits_do_not_say_in_which_frame_commands_stand() -> None:
    runs = lagging_runs()
    runs[1][spec.ACTION] = np.roll(runs[1][spec.ACTION], 1, 0)
    for values in runs[1].values():
        values[40:] = values[40]
    runs[1][spec.ACTION][40:, :6] = 0
    found = check_frames(ListedSource(runs), lambda _: None)
    assert not any("one frame too" in problem for problem in found.problems)


@pytest.mark.parametrize("still", ["robot", "both"])
def test_of_a_robot_that_never_moves_nothing_is_said(still: str) -> None:
    run = robot(200)
    run[spec.ROBOT][:, :14] = run[spec.ROBOT][0, :14]
    if still == "both":
        run[spec.ACTION][:, :6] = 0
    source = ListedSource([run])
    assert detect(sample(source), source.layout).convention == "unknown"
    assert check_frames(source, lambda _: None).problems == []


@pytest.mark.parametrize("key", [spec.ACTION, spec.ROBOT])
def test_one_number_that_is_none_hides_no_frame_that_is_swapped(key: str) -> None:
    run = robot(500)
    run[key][40, 2] = np.nan
    for values in run.values():
        values[[300, 310]] = values[[310, 300]]
    problems = check_frames(ListedSource([run]), lambda _: None).problems
    assert f"{key} holds NaN or infinity (episode 0, frame 40)" in problems
    assert any("frames 299, 300, 309, 310 (4 of 499 moves)" in problem for problem in problems)


def test_one_number_that_is_none_hides_no_commands_that_are_shifted() -> None:
    runs = lagging_runs()
    runs[1][spec.ACTION] = np.roll(runs[1][spec.ACTION], 1, 0)
    runs[1][spec.ROBOT][40, 2] = np.nan
    problems = check_frames(ListedSource(runs), lambda _: None).problems
    assert "actions stand one frame too late: each belongs to the frame before: episode 1, all frames" in problems


# ---- conventions


def test_clipped_poses_in_place_of_moves_are_a_problem(calvin: Path) -> None:
    for split, numbers in (
        ("training", range(42, 60)),
        ("training", range(1200, 1208)),
        ("validation", range(924, 942)),
    ):
        change(calvin / split, numbers, rel_actions=lambda arrays, _: np.clip(arrays["actions"], -1, 1))
    (problem,) = checked(calvin).problems
    assert problem.startswith(
        "rel_actions is absolute and cut into [-1, 1], what lies beyond is lost; write (next pose"
    )


def test_clipped_states_of_joints_are_named() -> None:
    layout = spec.Layout((), robot=4, scene=0, action=3, null_action=(0.0,) * 3)
    state = 1.5 * np.sin(np.cumsum(np.random.default_rng(0).normal(size=(300, 4)), 0) / 10)
    action = np.clip(np.roll(state, -1, 0)[:, :3], -1, 1)
    found = check_frames(ListedSource([{spec.ROBOT: state, spec.ACTION: action}], layout=layout), lambda _: None)
    assert found.problems[0].startswith("action is absolute and cut into [-1, 1]")
    assert "write (next robot_obs - robot_obs)" in found.problems[0]


def test_moves_in_metres_are_no_rel_actions(calvin: Path) -> None:
    units = np.r_[UNITS, 1]
    for split, numbers in (
        ("training", range(42, 60)),
        ("training", range(1200, 1208)),
        ("validation", range(924, 942)),
    ):
        change(calvin / split, numbers, rel_actions=lambda arrays, _: arrays["rel_actions"] * units)
    found = checked(calvin)
    assert "rel_actions is scaled by 1 m and 1 rad per unit, not by 0.02 m and 0.05 rad" in found.problems[0]


# ---- ranges, labels, colours


def test_episodes_that_share_frames_are_refused_by_every_command(calvin: Path, tmp_path: Path) -> None:
    np.save(calvin / "training/ep_start_end_ids.npy", [[42, 55], [50, 59], [1200, 1207]])
    for begin in (checked, lambda path: converted(path, tmp_path / "out")):
        with pytest.raises(UserError, match="episodes 42 to 55 and 50 to 59 share frames"):
            begin(calvin)


def test_frames_of_training_in_validation_are_refused_and_equal_numbers_are_not(calvin: Path) -> None:
    for number in range(924, 942):
        shutil.copy(frame(calvin / "training", 42 + number % 18), frame(calvin / "training", number))
    np.save(calvin / "training/ep_start_end_ids.npy", [[42, 59], [924, 941], [1200, 1207]])
    assert len(open_source(calvin).episodes) == 4
    for number in range(924, 942):
        shutil.copy(frame(calvin / "validation", number), frame(calvin / "training", number))
    with pytest.raises(UserError, match="frames 924 to 941 are in training and in validation"):
        open_source(calvin)


def test_windows_that_overlap_are_warned_of(calvin: Path) -> None:
    path = calvin / "training/lang_annotations/auto_lang_ann.npy"
    content = load_object_array(path)
    content["info"]["indx"] = [*content["info"]["indx"], (50, 59)]
    for key in ("ann", "task"):
        content["language"][key] = [*content["language"][key], "turn_on_led"]
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    found = checked(calvin)
    assert found.problems == []
    (warning,) = found.warnings
    assert warning.startswith("annotated windows overlap by more than half: episode 0, open_drawer ")
    assert warning.endswith(" and turn_on_led 8 to 17")


def test_a_label_that_contradicts_what_was_done_is_a_problem() -> None:
    run = robot(40)
    run[spec.SCENE][:] = 0
    run[spec.SCENE][20:, 1] = 0.2
    for task, wrong in (("open_drawer", False), ("close_drawer", True), ("of_another_table", False)):
        source = ListedSource([run], [Recording(40, "list", segments=(Segment(task, 2, 30, success=True),))])
        found = check_frames(source, lambda _: None, judge=done_instead).problems
        said = "the window is labelled close_drawer, what was done is open_drawer: episode 0, frames 2 to 29"
        assert found == ([said] if wrong else [])
    # blocks lie in another order in each scene: neither as a label nor as what was done they are judged
    run[spec.SCENE][:, [8, 14, 20]] = LYING
    run[spec.SCENE][20:, 14] += 0.1
    for task in BLOCK_TASKS:
        source = ListedSource([run], [Recording(40, "list", segments=(Segment(task, 2, 30, success=True),))])
        assert check_frames(source, lambda _: None, judge=done_instead).problems == []
    run[spec.SCENE][:, :6] = 0
    source = ListedSource([run], [Recording(40, "list", segments=(Segment("open_drawer", 2, 30, success=True),))])
    assert check_frames(source, lambda _: None, judge=done_instead).problems == []
    run[spec.SCENE][20:, 1] = 0.2
    cut = ListedSource([run], [Recording(40, "list", segments=(Segment("close_drawer", 2, 15, success=True),))])
    assert check_frames(cut, lambda _: None, judge=done_instead).problems == []


@pytest.mark.parametrize("name", SAMPLES)
def test_an_episode_with_red_and_blue_exchanged_is_named(name: str, tmp_path: Path) -> None:
    shutil.copytree(DATA / name, tmp_path / "set")
    first, last = open_source(tmp_path / "set").split("training").episodes[0]
    flipped = {camera: lambda arrays, _, c=camera: arrays[c][..., ::-1] for camera in spec.CAMERAS}
    change(tmp_path / "set/training", range(first, last + 1), **flipped)
    (problem,) = checked(tmp_path / "set").problems
    assert problem.startswith(
        "red and blue look exchanged against the other episodes of the scene: episode 0, all frames"
    )


def test_scenes_that_differ_by_episode_are_not_taken_for_exchanged_colours() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        runs = []
        for _ in range(8):
            wall = rng.integers(0, 256, (4, 4, 3)).repeat(4, 0).repeat(4, 1)
            images = np.clip(wall + rng.integers(-5, 6, (20, 16, 16, 3)), 0, 255).astype(np.uint8)
            runs.append(robot(20) | {spec.STATIC: images, spec.GRIPPER: images[:, ::-1]})
        assert check_frames(ListedSource(runs), lambda _: None).problems == []


def test_a_converted_set_keeps_what_is_wrong_and_conversion_says_so(
    calvin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    swap(frame(calvin / "training", 46), frame(calvin / "training", 50))
    with caplog.at_level("WARNING"):
        convert(open_source(calvin), tmp_path / "store", image_size=64)
    line = f"{LEADS}episode 0, frames 3, 4, 7, 8 (4 of 17 moves)"
    assert f"{calvin}: {line}" in caplog.messages
    assert checked(tmp_path / "store").problems == [line]


def join(calvin: Path) -> None:
    for number in range(1200, 1204):
        shutil.copy(frame(calvin / "validation", number - 270), frame(calvin / "training", number))


def exchange_labels(calvin: Path) -> None:
    """A window in which the drawer opens, with another name."""
    path = calvin / "training/lang_annotations/auto_lang_ann.npy"
    content = load_object_array(path)
    content["language"]["task"] = ["close_drawer"]
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    first = open_source(calvin).episodes[0].segments[0].start

    def opened(arrays: dict[str, np.ndarray], number: int) -> np.ndarray:
        return np.r_[arrays["scene_obs"][:1], 0.2 * (number > 42 + first), arrays["scene_obs"][2:]]

    change(calvin / "training", range(42, 60), scene_obs=opened)


def gripper_0_and_1(calvin: Path) -> None:
    change(
        calvin / "training",
        range(42, 60),
        rel_actions=lambda arrays, _: np.r_[arrays["rel_actions"][:6], 0],
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda calvin: swap(frame(calvin / "training", 50), frame(calvin / "validation", 930)),
            "episode 2, frames 5, 6",
        ),
        (join, "frames swapped, lost, or joined from two episodes): episode 1, frame 3 (1 of 7 moves)"),
        (exchange_labels, "the window is labelled close_drawer, what was done is open_drawer: episode 0, frames "),
        (gripper_0_and_1, "action[6] is 0, neither -1 nor +1 (18 times, first in episode 0, frame 0)"),
    ],
)
@pytest.mark.parametrize("written", ["store", "calvin"])
def test_what_check_finds_conversion_warns_of_by_name(
    spoil: Callable[[Path], None],
    words: str,
    written: str,
    calvin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(calvin)
    assert any(words in problem for problem in checked(calvin).problems)
    converted(calvin, tmp_path / "out", "--to", written)
    assert words in capsys.readouterr().err

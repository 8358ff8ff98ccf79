"""`worldaction data`: what is printed is so, what is wrong is named, and what the actions mean is found out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listed_source import ListedSource, episode, robot, small_set
from recorded_world import TASKS, record

from envs.playtable.recover import UNIT
from envs.playtable.tools.data_replay import replay_source
from envs.playtable.tools.replay import CARRIED, load_recording
from experiments import __main__ as cli
from worldaction import spec
from worldaction.config import RecordedConfig
from worldaction.errors import UserError
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json
from worldaction.play.attempts import Attempts
from worldaction.play.convert import convert
from worldaction.play.inspect.actions import detect
from worldaction.play.inspect.check import check_frames
from worldaction.play.inspect.sample import sample
from worldaction.play.inspect.summary import describe
from worldaction.play.layout import Segment
from worldaction.play.readers.source import Recording, open_source
from worldaction.play.store import PlayStore

Arrays = dict[str, np.ndarray]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    convert(small_set(), tmp_path / "play", image_size=16)
    return tmp_path / "play"


def ran(*arguments: object) -> int:
    """Exit status of a command."""
    try:
        return cli.guarded(lambda: cli.command(["data", *map(str, arguments)]))
    except SystemExit as end:
        return int(end.code or 0)


# ---- what the actions mean


def poses(
    change: Callable[[Arrays], np.ndarray], *, layout: spec.Layout = spec.CALVIN
) -> tuple[list[Arrays], spec.Layout]:
    """Two runs of a wandering TCP, with other actions."""
    runs = [robot(200, seed=seed) for seed in (1, 2)]
    return [{**run, spec.ACTION: change(run)} for run in runs], layout


def lagging(run: Arrays) -> np.ndarray:
    """Commands of which an arm does half at once, and the rest later: what is recorded is where it then is."""
    actions, state = run[spec.ACTION], run[spec.ROBOT]
    target, position = state[0, :6].copy(), state[0, :6].copy()
    for row, action in enumerate(actions):
        state[row, :6] = position
        target += UNIT * action[:6]
        position += 0.5 * (target - position)
    return actions


def absolute(run: Arrays) -> np.ndarray:
    reached = np.concatenate([run[spec.ROBOT][1:, :6], run[spec.ROBOT][-1:, :6]])
    return np.concatenate([reached, run[spec.ACTION][:, 6:]], 1)


@pytest.mark.parametrize(
    ("change", "words", "achieved"),
    [
        (
            lambda run: run[spec.ACTION],
            "relative, scaled as CALVIN's rel_actions (0.02 m, 0.05 rad per unit): moves",
            True,
        ),
        (lagging, "relative, scaled as CALVIN's rel_actions (0.02 m, 0.05 rad per unit): commands", False),
        (lambda run: run[spec.ACTION] * [*UNIT, 1], "relative, unscaled (metres, radians): moves", True),
        (lambda run: run[spec.ACTION] / 4, "relative, scaled by 0.08 m and 0.2 rad per unit: moves", True),
        (absolute, "absolute: the pose of the TCP in the next frame", True),
        (lambda run: absolute(run) * 0.7 + 0.1, "absolute, rescaled: the TCP's next position", False),
        (lambda run: np.random.default_rng(0).uniform(-1, 1, (200, 7)), "unknown", False),
    ],
)
def test_the_convention_of_actions_on_poses_is_named(
    change: Callable[[Arrays], np.ndarray], words: str, achieved: bool
) -> None:
    found = detect(*poses(change))
    assert found.convention.startswith(words), found
    assert found.achieved == achieved


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: np.roll(state, -1, 0)[:, :3], "absolute: robot_obs in the next frame"),
        (
            lambda state: 5 * (np.roll(state, -1, 0) - state)[:, :3],
            "relative: action times 0.2 is the change of robot_obs",
        ),
        (lambda state: 0.3 * np.roll(state, -1, 0)[:, :3] - 0.2, "absolute, rescaled: robot_obs in the next frame"),
        (lambda state: np.zeros((len(state), 3)), "unknown"),
    ],
)
def test_the_convention_of_actions_on_joints_is_named(change: Callable[[np.ndarray], np.ndarray], words: str) -> None:
    layout = spec.Layout((), robot=4, scene=0, action=3, null_action=(0.0,) * 3)
    state = np.cumsum(np.random.default_rng(0).normal(size=(300, 4)), 0) / 10
    assert detect([{spec.ROBOT: state, spec.ACTION: change(state)}], layout).convention.startswith(words)


def test_which_sign_opens_the_gripper_is_seen_from_its_width() -> None:
    runs, _ = poses(lambda run: run[spec.ACTION])
    for sign, words in ((1, "+1 opens"), (-1, "-1 opens")):
        for run in runs:
            width = 0.04 + 0.02 * sign * run[spec.ACTION][:, 6]
            run[spec.ROBOT][1:, 6] = width[:-1]
        assert detect(runs, spec.CALVIN).gripper.startswith(words)
    for run in runs:
        run[spec.ROBOT][:, 6] = 0.04
    assert "hardly moves" in detect(runs, spec.CALVIN).gripper


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: np.clip(a * 50, -1, 1), "look clipped, or scaled twice"),
        (lambda a: (a - a.mean(0)) / a.std(0), "look normalised already"),
        (lambda a: a * 0.02, "look unscaled, or scaled down twice"),
        (lambda a: a * 0, "never change"),
    ],
)
def test_actions_that_look_scaled_once_too_often_are_suspected(
    change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    (suspicion,) = detect(*poses(lambda run: change(run[spec.ACTION]))).suspicions
    assert words in suspicion
    assert detect(*poses(lambda run: run[spec.ACTION])).suspicions == []


# ---- inspect


def test_inspection_prints_sizes_tasks_and_the_numbers_of_numpy(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran("inspect", store) == 0
    said = capsys.readouterr().out
    for line in (
        "frames    121 in 3 episodes of 20 to 70; 30 frames/s, 0.1 min",
        "splits    training 101 in 2 episodes; validation 20 in 1 episode",
        "kinds     demo 31 in 1 episode; near_miss 20 in 1 episode; play 70 in 1 episode",
        "scenes    calvin_scene_A 31 in 1 episode; calvin_scene_D 90 in 2 episodes",
        "cameras   rgb_static, rgb_gripper up to 16 pixels",
        "statistics of all 121 frames",
    ):
        assert line in said
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line}
    assert lines["open_drawer"][1:6] == ["2", "2", "2", "0", "34.0"]
    assert lines["close_drawer"][1:3] == ["1", "0"]
    values = np.concatenate([arrays[spec.ROBOT] for arrays in small_set().arrays])[:, 3]
    numbers = [float(word) for word in lines["robot_obs[3]"][-4:]]
    np.testing.assert_allclose(numbers, [values.min(), values.max(), values.mean(), values.std()], atol=1e-4)


def test_a_large_set_is_sampled_in_consecutive_runs_by_a_seed() -> None:
    source = ListedSource([robot(3000, seed=i) for i in range(3)])
    first, again, other = (sample(source, frames=1000, seed=seed) for seed in (0, 0, 1))
    assert 1000 <= sum(len(run[spec.ACTION]) for run in first) < 1300
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[spec.ROBOT], two[spec.ROBOT])
    assert any(not np.array_equal(a[spec.ROBOT], b[spec.ROBOT]) for a, b in zip(first, other))
    for run in first:
        moved = np.diff(run[spec.ROBOT][:, :3], axis=0)
        np.testing.assert_allclose(moved, 0.02 * run[spec.ACTION][:-1, :3], atol=1e-12)
    assert "frames of 9,000 frames" in describe(source)


def test_the_sheet_shows_both_cameras_all_over_the_set(store: Path, tmp_path: Path) -> None:
    from PIL import Image

    assert ran("inspect", store, "--sheet", tmp_path / "sheet.png") == 0
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width >= 4 * 2 * 128
        assert image.height >= 3 * 128


# ---- check


def test_a_good_set_is_ok_and_a_wrong_previous_action_is_found(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran("check", store) == 0
    assert "verdict   OK: 121 frames in 3 episodes" in capsys.readouterr().out
    path = store / "frames" / f"{spec.PREVIOUS_ACTION}.memmap"
    values = np.memmap(path, np.float32, "r+", shape=(121, 7))
    values[75, 2] += 0.5
    values.flush()
    assert ran("check", store) == 1
    said = capsys.readouterr().out
    assert f"{path} has changed since it was written" in said
    assert "previous_action is not the action before (episode 1, frame 5)" in said
    assert said.splitlines()[-1] == "verdict   2 problems"


def broken(key: str, place: Any, value: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[key][place] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken(spec.ROBOT, (4, 2), np.nan), "robot_obs holds NaN or infinity (episode 1, frame 4)"),
        (broken(spec.ACTION, (slice(3, 5), 0), 1.5), "action leaves [-1, 1] (2 times, first in episode 1, frame 3)"),
        (broken(spec.ACTION, (7, 6), 0), "action[6] is 0, neither -1 nor +1 (episode 1, frame 7)"),
        (broken(spec.STATIC, 9, 0), "rgb_static is of one level (episode 1, frame 9)"),
        (broken(spec.SCENE, (2, 5), 0.5), "scene_obs: led is neither 0 nor 1 (episode 1, frame 2)"),
        (broken(spec.ROBOT, (1, 6), 0.3), "robot_obs: gripper_width is outside -0.01 to 0.09 (episode 1, frame 1)"),
        (
            broken(spec.ROBOT, (slice(300, None), 0), 1.0),
            "the TCP jumps by more than 0.06 m from one frame to the next (episode 1, frame 300)",
        ),
    ],
)
def test_what_is_wrong_with_a_frame_is_found_and_named(change: Callable[[Arrays], None], message: str) -> None:
    source = ListedSource([episode(30, size=8), episode(320, size=8, seed=1)])
    assert check_frames(source, lambda _: None).problems == []
    change(source.arrays[1])
    first, *others = check_frames(source, lambda _: None).problems
    assert first == message
    # a number of the motion that is changed is no longer that of the actions
    assert all(other.startswith("the action does not lead to the next frame") for other in others)


def test_times_of_a_lerobot_set_are_those_of_its_rate(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert ran("convert", store, tmp_path / "set", "--to", "lerobot") == 0
    assert ran("check", tmp_path / "set") == 0
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    table = parquet.read_table(path)
    times = table.column("timestamp").to_numpy().copy()
    times[75] += 0.01
    place = table.schema.get_field_index("timestamp")
    parquet.write_table(table.set_column(place, table.schema.field(place), [times]), path)
    capsys.readouterr()
    assert ran("check", tmp_path / "set") == 1
    assert f"problem   timestamp is not frame_index / 30 ({path}, frame 75)" in capsys.readouterr().out


def test_every_frame_is_counted_though_an_episode_cannot_be_read() -> None:
    class Torn(ListedSource):
        def blocks(self, episode: int, *, image_size: int, start: int = 0) -> Iterator[Arrays]:
            if episode == 1:
                raise UserError("file-7 is damaged; get the file anew")
            yield from super().blocks(episode, image_size=image_size, start=start)

    source = Torn([episode(5), episode(6), episode(7)])
    seen: list[int] = []
    assert check_frames(source, seen.append).problems == ["file-7 is damaged; get the file anew (episode 1)"]
    assert sum(seen) == 18
    source.episodes = [replace(e, length=9) for e in source.episodes]
    assert check_frames(source, seen.append).problems == [
        "an episode has 5 frames, its description says 9 (episode 0)",
        "file-7 is damaged; get the file anew (episode 1)",
        "an episode has 7 frames, its description says 9 (episode 2)",
    ]


def test_a_manifest_names_every_file_that_changed_is_missing_or_new(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = tmp_path / "sums.json"
    assert ran("check", store, "--manifest", lists) == 0
    assert set(read_json(lists)["files"]) == {p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file()}
    assert ran("check", store, "--manifest", lists) == 0
    shutil.copy(store / "store.json", store / "other.json")
    (store / "store.json").write_text((store / "store.json").read_text() + "\n")
    names = [*read_json(lists)["files"]]
    content = lists.read_text().replace(f'"{names[0]}"', '"gone.npz"')
    write_json(lists, json.loads(content))
    capsys.readouterr()
    assert ran("check", store, "--manifest", lists) == 1
    said = capsys.readouterr().out
    for problem in ("store.json has changed", "gone.npz is missing", "other.json is new", f"{names[0]} is new"):
        assert f"          {problem}\n" in said
    assert f"problem   4 files not as in {lists}" in said
    lists.write_text("{}")
    assert ran("check", store, "--manifest", lists) == 2


# ---- replay


def recorded(*, actions: str) -> ListedSource:
    """Windows that the real simulator recorded, with the moves that were achieved, or with what was commanded."""
    found = load_recording(CARRIED / "calvin_D.npz")
    windows = found.windows[::8]
    runs, recordings = [], []
    for window in windows:
        part = slice(window.start, window.stop)
        state = found.robot_obs[part].astype(np.float64)
        moves = np.diff(state[:, :6], axis=0, append=state[-1:, :6])
        moves[:, 3:] = (moves[:, 3:] + np.pi) % (2 * np.pi) - np.pi
        rel = np.concatenate([np.clip(moves / UNIT, -1, 1), found.action[part, 6:]], 1)
        action = {"achieved": rel, "commanded": found.action[part], "wrong": -found.action[part]}[actions]
        run: Arrays = {spec.ROBOT: state, spec.SCENE: found.scene_obs[part], spec.ACTION: np.asarray(action)}
        runs.append(run)
        segments = (Segment(window.task, 0, window.stop - window.start, success=True),)
        recordings.append(Recording(len(state), "list", "play", "training", "calvin_scene_D", segments))
    return ListedSource(runs, recordings)


@pytest.mark.parametrize("actions", ["achieved", "commanded"])
def test_recorded_windows_are_done_again_from_moves_and_from_commands(actions: str) -> None:
    replays = replay_source(recorded(actions=actions), 5)
    assert replays.achieved == (actions == "achieved")
    assert len(replays.done) == 5
    assert sum(replay.success for replay in replays.done) >= 4
    assert np.median([replay.apart[8] for replay in replays.done]) < 0.005
    assert replays.problems() == []
    assert replays.lines()[-1].startswith("          annotated tasks done again: ")


def test_actions_that_lead_elsewhere_are_a_problem() -> None:
    problems = replay_source(recorded(actions="wrong"), 5).problems()
    assert any("replayed actions lead elsewhere" in problem for problem in problems)
    assert any("annotated tasks again" in problem for problem in problems)


def test_a_state_that_the_table_cannot_take_is_a_problem() -> None:
    source = recorded(actions="commanded")
    source.arrays[0][spec.SCENE][0, 0] = 3.0
    (problem, *_) = replay_source(source, 5).problems()
    assert problem.startswith("the table cannot be set to a recorded state: episode 0, frame 0: scene_obs[0]")


def test_replay_needs_the_layout_of_calvin() -> None:
    layout = spec.Layout((), robot=4, scene=0, action=3, null_action=(0.0,) * 3)
    source = ListedSource([{spec.ROBOT: np.zeros((9, 4)), spec.ACTION: np.zeros((9, 3))}], layout=layout)
    with pytest.raises(UserError, match="--replay needs CALVIN's"):
        replay_source(source, 1)


# ---- convert


def test_actions_of_another_range_are_scaled_and_nothing_else(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    actions = np.random.default_rng(0).uniform(-3, 5, (20, 2))
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        file.create_group("data").attrs["total"] = 20
        demo = file.create_group("data/demo_0")
        demo.attrs["num_samples"] = 20
        demo["actions"], demo["obs/robot0_eef_pos"] = actions, np.zeros((20, 3))
    assert ran("convert", tmp_path / "demos.hdf5", tmp_path / "raw") == 2
    found = ran("convert", tmp_path / "demos.hdf5", tmp_path / "play", "--scale", "minmax")
    assert found == 0
    low, high = actions.min(0), actions.max(0)
    scaled = PlayStore.open(tmp_path / "play").frames[spec.ACTION]
    np.testing.assert_allclose(scaled, 2 * (actions - low) / (high - low) - 1, atol=1e-6)


def test_sets_are_converted_to_every_format_and_shrunk(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    assert ran("convert", store, tmp_path / "lerobot", "--to", "lerobot", "--video", "lossless") == 0
    assert ran("convert", tmp_path / "lerobot", tmp_path / "again") == 0
    assert ran("convert", store, tmp_path / "small", "--image-size", "8") == 0
    first, again, small = (PlayStore.open(tmp_path / name) for name in ("play", "again", "small"))
    for key in (*spec.CAMERAS, spec.ACTION, spec.ROBOT):
        np.testing.assert_array_equal(first.frames[key], again.frames[key])
    assert (again.episodes, again.segments) == (first.episodes, first.segments)
    blocks = first.frames[spec.STATIC].numpy().reshape(121, 8, 2, 8, 2, 3).mean((2, 4))
    np.testing.assert_array_equal(small.frames[spec.STATIC], np.rint(blocks))


def test_a_calvin_set_has_the_episodes_of_a_scene_together(tmp_path: Path) -> None:
    source = small_set()
    source.episodes = [replace(r, scene=s) for r, s in zip(source.episodes, ("A", "D", "A"), strict=True)]
    convert(source, tmp_path / "play", image_size=16)
    assert ran("convert", tmp_path / "play", tmp_path / "calvin", "--to", "calvin") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "calvin/training/ep_start_end_ids.npy"), [[0, 69], [70, 100]])
    np.testing.assert_array_equal(np.load(tmp_path / "calvin/validation/ep_start_end_ids.npy"), [[101, 120]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "nothing"), "there is nothing at nothing"),
        (("check", "play", "--replay", "-1"), "--replay -1: give 0 or more"),
        (("convert", "play", "play"), "play exists already"),
        (("convert", "play", "out", "--image-size", "17"), "the images of play can be 1 to 16 pixels"),
        (
            ("convert", "play", "out", "--to", "lerobot", "--rate", "0.5"),
            "a whole number of frames per second, not 0.5",
        ),
        (("convert", "play", "out", "--option", "language"), "--option language has no value"),
        (("convert", "play", "out", "--option", "language=x"), "the format store has no options"),
        (("convert", "play", "out", "--scale", "minmax"), "its actions lie in [-1, 1] already"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(store.parent)
    assert ran(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert message in said
    assert sorted(path.name for path in store.parent.iterdir()) == ["play"]


# ---- what a set has not got


def test_inspect_lists_what_is_missing_check_fails_and_strict_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("h5py")
    path = write_robomimic(tmp_path)
    assert ran("inspect", path) == 0
    said = capsys.readouterr().out
    assert "left out  1 thing, damaged or missing" in said
    assert "data/demo_1 has arrays of [10, 12] frames" in said
    assert ran("check", path) == 1
    assert "problem   " in (said := capsys.readouterr().out)
    assert "data/demo_1 has arrays of [10, 12] frames" in said
    for verb in (("inspect", path), ("check", path), ("convert", path, tmp_path / "out")):
        assert ran(*verb, "--strict") == 2
        assert "data/demo_1 has arrays of [10, 12] frames; get the file anew" in capsys.readouterr().err
    assert ran("convert", path, tmp_path / "out", "--option", "unknown=success") == 0
    assert [s.success for s in PlayStore.open(tmp_path / "out").segments] == [True] * 3
    assert ran("inspect", path, "--option", "strict=no") == 2
    assert "the reader has no such option" in capsys.readouterr().err


def test_every_episode_is_listed_by_the_number_that_a_labels_file_calls_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path / "set", 4, outcomes=[True, False, None, None], validation=1)
    assert ran("inspect", path) == 0
    assert "outcome" not in capsys.readouterr().out
    assert ran("inspect", path, "--episodes") == 0
    listed = capsys.readouterr().out.split("\n\n")[-1].splitlines()[1:]
    assert [line.split()[:3] for line in listed] == [
        [str(number), "20", "validation" if number == 3 else "training"] for number in range(4)
    ]
    tasks = [TASKS[number % 2] for number in range(4)]
    said = ["success", "failure", "unknown", "unknown"]
    assert all(f" {task}: {how} (" in line for line, task, how in zip(listed, tasks, said, strict=True))


def test_the_labels_file_of_the_documents_says_how_the_listed_episodes_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(cli.__file__).parents[1] / "docs/recorded.md").read_text()
    (program,) = re.findall(r"```python\n(import json\n.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    source = open_source(record(tmp_path / "set", 60, outcomes=[None] * 60))
    found = Attempts(source, config=RecordedConfig(success="labels.json"))
    assert [n for n, e in enumerate(found.episodes) if e.segments[0].success is False] == [3, 17, 28]
    assert sum(e.segments[0].success is True for e in found.episodes) == 57


def write_robomimic(folder: Path) -> Path:
    """A file of four demos, of which the second has too few actions."""
    from faulty_sets import write

    path = write("robomimic", folder / "set")
    with pytest.importorskip("h5py").File(path, "a") as file:
        del file["data/demo_1/actions"]
        file["data/demo_1/actions"] = np.zeros((10, 7))
    return path


def test_a_leak_is_refused_in_every_format_that_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    from faulty_sets import write

    path = write("calvin", tmp_path / "set", which=[0, 1, 2, 1], validation=[3])
    for kind in ("store", "calvin", "lerobot"):
        assert ran("convert", path, tmp_path / kind, "--to", kind) == 2
        said = capsys.readouterr().err
        assert "episode 3 of validation has 12 frames of episode 1 of training; leave one of the two out" in said
        assert not (tmp_path / kind).exists()
        assert not (tmp_path / f"{kind}.partial").exists()

"""Faults that users of others have reported, settled as kinds, for every format: alignment, labels, parts, leaks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_sets import CAMERA, FORMATS, FPS, LENGTH, SIDE, Frames, film, filmed, frames, rows, write

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.convert import convert
from worldaction.play.inspect.check import check_frames
from worldaction.play.inspect.summary import describe
from worldaction.play.readers.source import Source, open_source
from worldaction.play.store import PlayStore

for package in ("pyarrow", "av", "h5py", "PIL"):
    pytest.importorskip(package)

h5py = pytest.importorskip("h5py")
parquet = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


def levels(source: Source, episode: int, start: int = 0) -> list[int]:
    camera = source.layout.cameras[0]
    blocks = source.blocks(episode, image_size=None, start=start)
    return [round(float(value)) for block in blocks for value in block[camera].mean((1, 2, 3))]


# ---- alignment: picture, state and action of a row belong to one moment


@pytest.mark.parametrize("kind", FORMATS)
def test_picture_state_and_action_of_a_row_are_of_one_moment_wherever_reading_begins(tmp_path: Path, kind: str) -> None:
    source = open_source(write(kind, tmp_path / "set"))
    camera = CAMERA.get(kind, "view")
    for number in range(4):
        made = frames(number)
        for start in (0, 1, 7, LENGTH - 1):
            (block,) = source.blocks(number, image_size=SIDE, start=start)
            np.testing.assert_array_equal(block[camera][:, 3, 3, 0], made.level[start:])
            # in any order of the state's parts
            state = np.sort(block[spec.ROBOT], axis=1)
            np.testing.assert_array_equal(state, np.sort(made.state[start:], axis=1))
            count = len(block[spec.ACTION]) - (kind == "minari")
            np.testing.assert_array_equal(block[spec.ACTION][:count], made.action[start : start + count])


@pytest.mark.parametrize("off", [0.6, -0.6, 0.4, -0.4])
def test_a_time_that_was_rounded_moves_no_episode_of_a_lerobot_video(
    tmp_path: Path, off: float, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(filmed(tmp_path / "set", [0, 20 + off, 40]))
    for number in range(3):
        assert levels(source, number)[::19] == pytest.approx([10 + 80 * number, 86 + 80 * number], abs=2)
    said = [message for message in caplog.messages if "is not where those before end" in message]
    if abs(off) < 0.5:
        assert not said
    else:
        (line,) = said
        assert "file-000.mp4" in line
        assert f"the time of episode 1 ({off:+.1f} frames)" in line


def test_times_are_right_where_a_video_has_frames_of_no_episode(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(filmed(tmp_path / "set", [0, 25, 45], frames_of_file=65))
    assert [levels(source, n)[0] for n in range(3)] == pytest.approx([10, 110, 190], abs=2)
    assert "the file has 65 frames, more than they have, and times are taken" in caplog.text
    with pytest.raises(UserError, match="65 frames, its episodes 60, and their times do not tell which"):
        open_source(filmed(tmp_path / "other", [0, 25, 43], frames_of_file=65))
    # a frame too many at the end, and a time that was rounded
    source = open_source(filmed(tmp_path / "rounded", [0, 20.6, 40], frames_of_file=61))
    assert [levels(source, n)[0] for n in range(3)] == pytest.approx([10, 90, 170], abs=2)


def test_the_rest_of_a_lerobot_video_stays_where_it_is_when_its_first_episode_is_taken_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(filmed(tmp_path / "set", [20, 40], index=(20, 40)))
    assert [levels(source, n)[0] for n in range(2)] == pytest.approx([90, 170], abs=2)
    assert "1 missing (0)" in source.skipped[0]
    assert not [message for message in caplog.messages if "is not where" in message]


@pytest.mark.parametrize("kind", ["lerobot 2.1", "lerobot 3.0"])
def test_rows_that_are_not_at_their_times_are_named_by_file_and_episode(tmp_path: Path, kind: str) -> None:
    root = write(kind, tmp_path / "set")
    path = sorted(root.glob("data/*/*.parquet"))[-1]
    whole = parquet.read_table(path)
    times = np.float32(whole.column("timestamp").to_numpy() + 1.0 * (whole.column("episode_index").to_numpy() == 3))
    parquet.write_table(whole.set_column(whole.column_names.index("timestamp"), "timestamp", [times]), path)
    problems = check_frames(open_source(root), lambda _: None).problems
    assert f"timestamps are not those of the frames: {path}, episode 3" in problems


def test_pictures_of_rows_that_are_not_at_their_times_are_not_guessed(tmp_path: Path) -> None:
    root = filmed(tmp_path / "set", [0, 20, 40])
    path = root / "data/chunk-000/file-000.parquet"
    times = np.tile(np.arange(20, dtype=np.float32), 3) / FPS
    times[25] += 0.04
    parquet.write_table(parquet.read_table(path).append_column("timestamp", pa.array(times)), path)
    about = json.loads((root / "meta/info.json").read_text())
    about["features"]["timestamp"] = {"dtype": "float32", "shape": [1]}
    (root / "meta/info.json").write_text(json.dumps(about))
    source = open_source(root)
    with pytest.raises(
        UserError, match=r"file-000\.parquet: frame 5 of episode 1 is at 0\.207 s, not at 0\.167 s as 30"
    ):
        levels(source, 1)
    assert len(levels(source, 2)) == 20
    # the vectors alone are in their rows
    assert len(next(iter(source.blocks(1, image_size=0)))[spec.ACTION]) == 20


def test_a_video_that_is_longer_than_its_episode_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write("lerobot 2.1", tmp_path / "set", which=[0])
    about = json.loads((root / "meta/info.json").read_text())
    del about["features"]["observation.images.view"]
    about["features"]["observation.images.cam"] = {"dtype": "video", "shape": [64, 64, 3]}
    about["video_path"] = "videos/{video_key}/{episode_index}.mp4"
    (root / "meta/info.json").write_text(json.dumps(about))
    (root / "videos/observation.images.cam").mkdir(parents=True)
    film(root / "videos/observation.images.cam/0.mp4", 10 + 4 * np.arange(LENGTH + 2))
    assert levels(open_source(root), 0)[0] == pytest.approx(10, abs=2)
    assert f"0.mp4 has {LENGTH + 2} frames, its episode {LENGTH}: the last ones are not read" in caplog.text


# ---- labels: success, failure and unknown


def labels(path: Path, **options: Any) -> list[bool | None]:
    return [segment.success for episode in open_source(path, **options).episodes for segment in episode.segments]


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_unknown_counts_as_a_success_unless_its_user_says_so(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(kind, tmp_path / "set")
    if kind == "calvin":
        # what is annotated there was done
        assert labels(path) == [True] * 4
        assert "whether they succeeded" not in caplog.text
        return
    assert labels(path) == [None] * 4
    assert "does not say of 4 of 4 attempts whether they succeeded" in caplog.text
    assert "--option unknown=success" in caplog.text
    table = describe(open_source(path)).splitlines()
    row = next(line for line in table if line.startswith("lift"))
    assert row.split()[-2:] == ["0", "4"]
    assert labels(path, unknown="success") == [True] * 4
    assert labels(path, unknown="failure") == [False] * 4
    store = convert(open_source(path), tmp_path / "unknown", image_size=SIDE)
    assert store.demonstrations("lift") == []
    assert len(store.demonstrations("lift", successful=False)) == 4
    assert [s.success for s in PlayStore.open(tmp_path / "unknown").segments] == [None] * 4
    known = convert(open_source(path, unknown="success"), tmp_path / "known", image_size=SIDE)
    assert len(known.demonstrations("lift")) == 4
    assert known.meta.config["unknown"] == "success"


def with_column(root: Path, name: str, values: Callable[[int], Any]) -> None:
    """Add a column to every file of a LeRobot set; nothing to an episode for which `values` gives None."""
    for path in sorted(root.glob("data/*/*.parquet")):
        table = parquet.read_table(path)
        numbers = np.unique(table.column("episode_index").to_numpy())
        parts = [values(int(number)) for number in numbers]
        if parts[0] is not None:
            column = pa.concat_tables([pa.table({name: part}) for part in parts], promote_options="permissive")[name]
            parquet.write_table(table.append_column(name, column), path)


def at(*steps: int) -> np.ndarray:
    return np.isin(np.arange(LENGTH), steps)


@pytest.mark.parametrize("kind", ["lerobot 2.1", "lerobot 3.0"])
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"next.success": [at(LENGTH - 1), at(0), at(), at()]}, [True, True, False, False]),
        ({"success": [at(LENGTH - 1), at(0), at(), at(*range(LENGTH))]}, [True, False, False, None]),
        ({"next.reward": [1.0 * at(LENGTH - 1), 0.0 * at(), 1.0 * at(5), 0.0 * at()]}, [True, False, True, False]),
        ({"next.reward": [np.linspace(0, 1, LENGTH)] * 4}, [None] * 4),
        ({"next.reward": [0.0 * at()] * 4}, [None] * 4),
        ({"next.reward": [np.ones(LENGTH)] * 4}, [None] * 4),
        # the column is asked before the reward
        ({"next.success": [at()] * 4, "next.reward": [1.0 * at(9)] * 4}, [False] * 4),
    ],
)
def test_lerobot_says_by_a_column_or_a_sparse_reward(
    tmp_path: Path, kind: str, columns: dict[str, list[np.ndarray]], expected: list[bool | None]
) -> None:
    root = write(kind, tmp_path / "set")
    for name, values in columns.items():
        with_column(root, name, lambda n, of=values: of[n])  # type: ignore[misc]
    assert labels(root) == expected


def test_an_episode_whose_file_lacks_the_column_is_unknown_beside_others(tmp_path: Path) -> None:
    root = write("lerobot 2.1", tmp_path / "set")
    with_column(root, "next.success", lambda n: None if n == 2 else at(LENGTH - 1))
    assert labels(root) == [True, True, None, True]


def test_an_episode_without_values_in_the_column_is_unknown_beside_others(tmp_path: Path) -> None:
    root = write("lerobot 3.0", tmp_path / "set")
    with_column(root, "next.success", lambda n: [None] * LENGTH if n == 2 else at(LENGTH - 1).tolist())
    assert labels(root) == [True, True, None, True]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([1, *[0] * (LENGTH - 1)], False),
        ([0] * LENGTH, False),
        ([*[0] * (LENGTH - 1), 1], True),
        ([1] * LENGTH, None),
        ([0, 1, *[0] * (LENGTH - 2)], True),
        # without an entry for the reset
        ([1, *[0] * (LENGTH - 2)], True),
        # of another length than the episode
        ([1] * 3, None),
    ],
)
def test_what_minari_says_at_the_reset_belongs_to_no_step(
    tmp_path: Path, flags: list[int], expected: bool | None
) -> None:
    root = write("minari", tmp_path / "set")
    with h5py.File(root / "data/main_data.hdf5", "a") as file:
        file["episode_1/infos/success"] = np.array(flags)
    # the key is missing in the other episodes
    assert labels(root) == [None, expected, None, None]
    with pytest.raises(UserError, match="no episode has infos/sucess; leave out --option success=sucess"):
        open_source(root, success="sucess")


@pytest.mark.parametrize("kind", ["minari", "robomimic"])
@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.0, 1.0, 0.0, None], [False, True, False, None]),
        ([0.01, 0.02, 0.03, 0.5], [None] * 4),
        ([0.0, 0.0, 0.0, 0.0], [None] * 4),
    ],
)
def test_hdf5_says_by_sparse_rewards_alone(
    tmp_path: Path, kind: str, rewards: list[float | None], expected: list[bool | None]
) -> None:
    path = write(kind, tmp_path / "set")
    name, steps = ("episode", LENGTH - 1) if kind == "minari" else ("data/demo", LENGTH)
    with h5py.File(path / "data/main_data.hdf5" if kind == "minari" else path, "a") as file:
        for number, last in enumerate(rewards):
            if last is not None:
                file[f"{name}_{number}/rewards"] = np.eye(steps)[-1] * last
    assert labels(path) == expected


def test_a_store_says_true_false_or_null_and_an_older_one_without_it_nothing(tmp_path: Path) -> None:
    path = write("store", tmp_path / "set") / "store.json"
    about = json.loads(path.read_text())
    for segment, success in zip(about["segments"], (True, False, None, "missing"), strict=True):
        segment["success"] = success
    del about["segments"][3]["success"]
    # where files have one
    about.pop("seal", None)
    path.write_text(json.dumps(about))
    assert labels(path.parent) == [True, False, None, None]
    about["segments"][0]["success"] = "yes"
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"store\.json.*success"):
        open_source(path.parent)


# ---- partial sets


def damaged(kind: str, path: Path) -> str:
    """Damage episode 1 of a set; gives what has to be said of it."""
    if kind == "calvin":
        (path / "training" / f"episode_{LENGTH + 5:07d}.npz").unlink()
        return f"episode_{LENGTH + 5:07d}.npz is missing"
    if kind == "lerobot 2.1":
        (path / "data/chunk-000/episode_000001.parquet").unlink()
        return "episode_000001.parquet is missing"
    if kind == "lerobot 3.0":
        file = path / "data/chunk-000/file-000.parquet"
        whole = parquet.read_table(file)
        parquet.write_table(pa.concat_tables([whole[: LENGTH + 4], whole[2 * LENGTH :]]), file)
        return f"has 4 frames of episode 1, {path}/meta says {LENGTH}"
    with h5py.File(path / "data/main_data.hdf5" if kind == "minari" else path, "a") as file:
        group = file["episode_1"] if kind == "minari" else file["data/demo_1"]
        actions = group["actions"][:-2]
        del group["actions"]
        group["actions"] = actions
    return "episode_1: observations/" if kind == "minari" else "data/demo_1 has arrays of"


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "store"])
def test_one_bad_episode_does_not_cost_the_others(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write(kind, tmp_path / "set")
    message = re.escape(damaged(kind, path))
    with pytest.raises(UserError, match=message):
        open_source(path, strict=True)
    source = open_source(path)
    assert re.search(message, source.skipped[0])
    assert "damaged or missing and left out (refused with --strict)" in caplog.text
    lengths = [episode.length for episode in source.episodes]
    # a CALVIN episode is parted where a frame is missing
    assert lengths == ([12, 5, 6, 12, 12] if kind == "calvin" else [12, 12, 12])
    camera = CAMERA.get(kind, "view")
    (block,) = source.blocks(len(lengths) - 1, image_size=SIDE)
    np.testing.assert_array_equal(block[camera][:, 0, 0, 0], frames(3).level)
    assert re.search(rf"left out.*\n.*{message}", describe(source))
    store = convert(source, tmp_path / "store", image_size=SIDE)
    assert [episode.length for episode in store.episodes] == lengths
    again = open_source(tmp_path / "store")
    assert list(again.skipped) == list(source.skipped)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "store", strict=True)


def unreadable(kind: str, path: Path) -> None:
    """Damage a frame of episode 1 in a way that is seen when it is read, and not before."""
    if kind == "calvin":
        (path / "training" / f"episode_{LENGTH + 5:07d}.npz").write_bytes(b"no archive")
    elif kind.startswith("lerobot"):
        file = sorted(path.glob("data/*/*.parquet"))[1 if kind == "lerobot 2.1" else 0]
        whole = parquet.read_table(file)
        values = whole.column("action").to_pylist()
        values[5 if kind == "lerobot 2.1" else LENGTH + 5] = [float("nan")] * 7
        at = whole.column_names.index("action")
        parquet.write_table(whole.set_column(at, "action", pa.array(values, pa.list_(pa.float32(), 7))), file)
    else:
        with h5py.File(path / "data/main_data.hdf5" if kind == "minari" else path, "a") as file:
            file["episode_1/actions" if kind == "minari" else "data/demo_1/actions"][5] = np.nan


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "store"])
def test_an_episode_that_cannot_be_read_is_left_out_of_a_conversion(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pieces and checkpoints within an episode, so that something of it has been written before
    monkeypatch.setattr("worldaction.play.convert.CHECKPOINT", 4)
    for name in ("minari", "robomimic", "lerobot"):
        monkeypatch.setattr(f"worldaction.play.readers.{name}.piece", lambda _: 3)
    monkeypatch.setattr("worldaction.play.readers.calvin.PIECE", 3)
    path = write(kind, tmp_path / "set")
    unreadable(kind, path)
    source = open_source(path)
    assert source.skipped == []
    with pytest.raises(UserError, match=r"damaged|NaN"):
        convert(source, tmp_path / "strict", image_size=SIDE, strict=True)
    store = convert(source, tmp_path / "store", image_size=SIDE)
    store.verify()
    camera = CAMERA.get(kind, "view")
    wanted = np.concatenate([frames(number).level for number in (0, 2, 3)])
    np.testing.assert_array_equal(store.frames[camera][:, 0, 0, 0], wanted)
    (line,) = store.meta.config["skipped"]
    assert re.search("damaged|NaN", line)
    assert "one thing is damaged or missing and left out" in caplog.text
    assert [s.start for s in store.segments] == [0, LENGTH, 2 * LENGTH]


def test_a_store_is_whole_or_refused(tmp_path: Path) -> None:
    path = write("store", tmp_path / "set") / "frames/action.memmap"
    path.write_bytes(path.read_bytes()[:-28])
    with pytest.raises(UserError, match=r"action\.memmap has .* bytes, not .*: it was truncated or changed; make the"):
        open_source(path.parent.parent)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "store"])
def test_a_set_of_which_nothing_can_be_read_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(kind, tmp_path / "set", which=[0])
    if kind == "calvin":
        for file in (path / "training").glob("episode_*.npz"):
            file.write_bytes(b"")
    elif kind.startswith("lerobot"):
        next(path.glob("data/*/*.parquet")).write_bytes(b"")
    else:
        with h5py.File(path / "data/main_data.hdf5" if kind == "minari" else path, "a") as file:
            del file["episode_0/actions" if kind == "minari" else "data/demo_0/actions"]
    with pytest.raises(UserError, match=r"is damaged|has no array actions"):
        open_source(path)


def test_an_odd_first_demo_is_the_one_that_is_left_out(tmp_path: Path) -> None:
    path = write("robomimic", tmp_path / "set")
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/view_image"]
    source = open_source(path)
    assert source.layout.cameras == ("view",)
    assert [e.where.rpartition("/")[2] for e in source.episodes] == ["demo_1", "demo_2", "demo_3"]
    assert "data/demo_0 has no array view_image" in source.skipped[0]


def test_observations_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = write("robomimic", tmp_path / "set")
    with h5py.File(path, "a") as file:
        for number in range(4):
            file[f"data/demo_{number}/obs/depth"] = np.zeros((LENGTH, 4, 4, 1))
    left_out: tuple[str, ...] = getattr(open_source(path), "left_out", ())
    assert left_out == ("depth (float64 (4, 4, 1))",)


def test_a_demo_that_a_mask_names_and_nobody_has_is_missed(tmp_path: Path) -> None:
    path = write("robomimic", tmp_path / "set", validation=[3])
    with h5py.File(path, "a") as file:
        del file["data/demo_3"]
    assert "data/demo_3 is missing, a mask names it" in open_source(path).skipped[0]


@pytest.mark.parametrize("kind", ["lerobot 2.1", "lerobot 3.0"])
def test_more_rows_than_the_list_says_are_not_cut_in_silence(tmp_path: Path, kind: str) -> None:
    root = write(kind, tmp_path / "set", which=[0])
    file = next(root.glob("data/*/*.parquet"))
    parquet.write_table(rows(frames(0, LENGTH + 2), 0, 0), file)
    with pytest.raises(UserError, match=rf"{file.name} has 14 frames of episode 0, .*meta says 12"):
        open_source(root)


def test_an_episode_that_was_removed_by_hand_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write("lerobot 2.1", tmp_path / "set")
    lines = (root / "meta/episodes.jsonl").read_text().splitlines()
    (root / "meta/episodes.jsonl").write_text("\n".join([lines[0], "no JSON", lines[3]]))
    (root / "data/chunk-000/episode_000001.parquet").unlink()
    source = open_source(root)
    assert [levels(source, n)[0] for n in range(2)] == [frames(0).level[0], frames(3).level[0]]
    assert "episodes.jsonl, line 2 is damaged" in source.skipped[0]
    assert "2 missing (1 to 2)" in source.skipped[1]
    assert "2 things are damaged or missing" in caplog.text


def test_an_episode_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    root = write("lerobot 2.1", tmp_path / "set")
    path = root / "meta/episodes.jsonl"
    path.write_text(path.read_text() + "\n" + path.read_text().splitlines()[2])
    with pytest.raises(UserError, match="lists episode 2 twice"):
        open_source(root)


def test_windows_that_lie_in_no_episode_are_left_out_of_a_calvin_set(tmp_path: Path) -> None:
    path = write("calvin", tmp_path / "set")
    damaged("calvin", path)
    source = open_source(path)
    assert [len(episode.segments) for episode in source.episodes] == [1, 0, 0, 1, 1]
    assert "the annotated window 12 to 23 (lift) lies in no episode" in source.skipped[1]


# ---- leaks


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "minari"])
def test_an_episode_that_is_in_both_splits_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(kind, tmp_path / "set", which=[0, 1, 2, 1], validation=[3])
    source = open_source(path)
    message = "episode 3 of validation has 12 frames of episode 1 of training"
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}: {message}; leave one of the two out"):
        convert(source, tmp_path / "store", image_size=SIDE)
    assert not (tmp_path / "store").exists()
    assert message in check_frames(open_source(path), lambda _: None).problems
    # the same frames twice in training test nothing, but teach
    path = write(kind, tmp_path / "twice", which=[0, 1, 1, 2], validation=[3])
    convert(open_source(path), tmp_path / "store", image_size=SIDE)


def test_minari_which_has_no_splits_is_held_to_those_that_a_study_makes(tmp_path: Path) -> None:
    from worldaction.play.held_out import HeldOut

    path = write("minari", tmp_path / "set", which=[0, 1, 2, 1])
    with pytest.raises(UserError, match="episode 3 of validation has 12 frames of episode 1 of training"):
        convert(HeldOut(open_source(path)), tmp_path / "store", image_size=SIDE)


@pytest.mark.parametrize("kind", ["lerobot 2.1", "lerobot 3.0"])
def test_splits_of_lerobot_that_overlap_are_refused(tmp_path: Path, kind: str) -> None:
    root = write(kind, tmp_path / "set")
    about = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(about | {"splits": {"train": "0:3", "val": "1:4"}}))
    with pytest.raises(UserError, match=r"info\.json: episodes 1 to 2 are in training and in validation; correct its"):
        open_source(root)


def test_masks_of_robomimic_that_overlap_are_refused(tmp_path: Path) -> None:
    path = write("robomimic", tmp_path / "set", validation=[3])
    with h5py.File(path, "a") as file:
        del file["mask/train"]
        file["mask/train"] = np.array([b"demo_1", b"demo_3"])
    with pytest.raises(UserError, match="demo_3 are in mask/train and in mask/valid"):
        open_source(path)


def test_frames_of_a_calvin_set_that_are_in_both_splits_are_refused(tmp_path: Path) -> None:
    path = write("calvin", tmp_path / "set", which=[0])
    shutil.copytree(path / "training", path / "validation")
    np.save(path / "validation/ep_start_end_ids.npy", np.array([[5, 11]]))
    (path / "validation/lang_annotations/auto_lang_ann.npy").unlink()
    with pytest.raises(UserError, match="frames 5 to 11 are in training and in validation; leave them out of one"):
        open_source(path)


def test_starts_that_are_alike_are_no_leak(tmp_path: Path) -> None:
    from worldaction.play.leaks import leaks, marks

    def of(made: Frames) -> Any:
        return marks({"robot_obs": made.state, "action": made.action})

    one, other = of(frames(0, 40)), of(frames(1, 40))
    alike = np.concatenate([one[:15], other[15:]])
    still = np.concatenate([one[:1].repeat(30), other[:10]])
    assert leaks({0: ("training", one), 1: ("validation", alike), 2: ("validation", still)}) == []
    assert leaks({0: ("training", one), 5: ("validation", one[10:20])}) == [
        "episode 5 of validation has 10 frames of episode 0 of training"
    ]
    assert leaks({5: ("validation", one)}) == []

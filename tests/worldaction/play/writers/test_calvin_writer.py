"""Written CALVIN sets are what upstream's code and our reader expect, whatever the size of the pieces they came in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listed_source import ListedSource, episode, small_set

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.layout import Segment
from worldaction.play.readers.calvin import CalvinSource
from worldaction.play.readers.restricted import load_object_array
from worldaction.play.writers.base import copy
from worldaction.play.writers.calvin import CalvinWriter


def write(path: Path, source: ListedSource, **options: Any) -> Path:
    with CalvinWriter(path, layout=source.layout, **options) as sink:
        copy(source, sink, image_size=source.image_size)
    return path


def frame(path: Path, number: int) -> dict[str, np.ndarray]:
    (found,) = path.glob(f"*/episode_{number:07d}.npz")
    with np.load(found, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("calvin") / "set", small_set(), sentences={"open_drawer": "pull the handle"})


def test_a_frame_keeps_every_bit_and_the_types_of_the_published_files(root: Path) -> None:
    source, number = small_set(), 0
    for arrays in source.arrays:
        for row in range(len(arrays[spec.ACTION])):
            found = frame(root, number)
            for key, name in ((spec.ROBOT, "robot_obs"), (spec.SCENE, "scene_obs"), (spec.ACTION, "rel_actions")):
                assert found[name].dtype == np.float64
                np.testing.assert_array_equal(found[name], arrays[key][row])
            for camera in spec.CAMERAS:
                assert found[camera].tobytes() == arrays[camera][row].tobytes()
            number += 1
    assert len(list(root.glob("*/episode_*.npz"))) == number == 121


def test_absolute_actions_are_the_next_pose_with_the_command_of_the_gripper(root: Path) -> None:
    first, number = small_set().arrays[0], 0
    for number in range(69):
        expected = [*first[spec.ROBOT][number + 1][:6], first[spec.ACTION][number][6]]
        np.testing.assert_array_equal(frame(root, number)["actions"], expected)
    # nobody knows where the last one led: it is moved by what was commanded
    last, moved = frame(root, 69), np.repeat([0.02, 0.05], 3)
    np.testing.assert_allclose(last["actions"][:6], last["robot_obs"][:6] + moved * last["rel_actions"][:6], atol=1e-12)
    assert frame(root, 69)["actions"][6] == last["rel_actions"][6]


def test_angles_of_the_last_absolute_action_stay_between_minus_pi_and_pi(tmp_path: Path) -> None:
    arrays = episode(3)
    arrays[spec.ROBOT][2, 3:6] = [3.14, -3.14, 0.0]
    arrays[spec.ACTION][2, 3:6] = [1.0, -1.0, 1.0]
    root = write(tmp_path / "set", ListedSource([arrays]))
    angles = frame(root, 2)["actions"][3:6]
    np.testing.assert_allclose(angles, [3.19 - 2 * np.pi, 2 * np.pi - 3.19, 0.05])


def test_the_small_files_say_where_episodes_windows_and_scenes_are(root: Path) -> None:
    ranges = {split: np.load(root / split / "ep_start_end_ids.npy") for split in ("training", "validation")}
    np.testing.assert_array_equal(ranges["training"], [[0, 69], [90, 120]])
    np.testing.assert_array_equal(ranges["validation"], [[70, 89]])
    np.testing.assert_array_equal(np.load(root / "training/ep_lens.npy"), [70, 31])
    assert load_object_array(root / "training/scene_info.npy") == {
        "calvin_scene_D": [0, 89],
        "calvin_scene_A": [90, 120],
    }
    found = load_object_array(root / "training/lang_annotations/auto_lang_ann.npy")
    # failed segments are no annotations, and upstream's windows hold their last frame
    assert found["language"]["task"] == ["open_drawer", "turn_on_led", "open_drawer"]
    assert found["language"]["ann"] == ["pull the handle", "turn on led", "pull the handle"]
    assert found["info"]["indx"] == [(3, 39), (30, 64), (90, 120)]
    assert "emb" not in found["language"]


def test_the_reader_gives_back_splits_scenes_and_successful_segments(root: Path) -> None:
    found = CalvinSource(root)
    assert [(e.length, e.split, e.scene) for e in found.episodes] == [
        (70, "training", "calvin_scene_D"), (31, "training", "calvin_scene_A"), (20, "validation", "calvin_scene_D"),
    ]  # fmt: skip
    assert found.episodes[0].segments == (
        Segment("open_drawer", 3, 40, success=True, sentence="pull the handle"),
        Segment("turn_on_led", 30, 65, success=True, sentence="turn on led"),
    )


def test_annotations_name_only_what_old_and_new_numpy_know(root: Path) -> None:
    for path in root.rglob("*.npy"):
        assert b"numpy._core" not in path.read_bytes()
    # NumPy's own reading, which checks the lengths that were changed
    found = np.load(root / "training/lang_annotations/auto_lang_ann.npy", allow_pickle=True).item()
    assert found == load_object_array(root / "training/lang_annotations/auto_lang_ann.npy")


def test_embeddings_are_written_where_somebody_makes_them(tmp_path: Path) -> None:
    def embed(sentences: Any) -> np.ndarray:
        return np.arange(3 * len(sentences), dtype=np.float32).reshape(-1, 1, 3)

    root = write(tmp_path / "set", small_set(), embed=embed)
    path = root / "training/lang_annotations/auto_lang_ann.npy"
    for found in (load_object_array(path), np.load(path, allow_pickle=True).item()):
        np.testing.assert_array_equal(found["language"]["emb"], embed(["a", "b", "c"]))


def test_statistics_are_those_of_the_training_frames(root: Path) -> None:
    arrays = [small_set().arrays[i] for i in (0, 2)]
    text = (root / "validation/statistics.yaml").read_text()
    assert text == (root / "training/statistics.yaml").read_text()
    rows = [np.array([float(n) for n in line.partition("[")[2].rstrip("]").split(",")])
            for line in text.splitlines() if "[" in line]  # fmt: skip
    values = [np.concatenate([a[key] for a in arrays]) for key in (spec.ROBOT, spec.SCENE)]
    actions = np.stack([frame(root, n)["actions"] for n in (*range(70), *range(90, 121))])
    expected = [v for each in values for v in (each.mean(0), each.std(0))] + [actions.max(0), actions.min(0)]
    for row, wanted in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row, wanted, atol=1e-6)


def test_the_size_of_the_pieces_makes_no_difference(tmp_path: Path) -> None:
    arrays = episode(9)
    for name, size in (("one", 1), ("four", 4), ("all", 9)):
        with CalvinWriter(tmp_path / name) as sink:
            sink.begin_episode(kind="play")
            for first in range(0, 9, size):
                sink.append({key: array[first : first + size] for key, array in arrays.items()})
            sink.end_episode()
    for number in range(9):
        one, four, whole = (frame(tmp_path / name, number) for name in ("one", "four", "all"))
        for key in whole:
            np.testing.assert_array_equal(one[key], whole[key])
            np.testing.assert_array_equal(four[key], whole[key])


def test_a_scene_that_comes_back_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = small_set()
    source.episodes = [replace(r, scene=s) for r, s in zip(source.episodes, ("A", "D", "A"), strict=True)]
    with pytest.raises(UserError, match=r"set: scene A comes twice; a CALVIN set holds a scene in one run"):
        write(tmp_path / "set", source)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a CALVIN set needs rgb_static"):
        CalvinWriter(tmp_path / "set", layout=replace(spec.CALVIN, robot=8))
    with pytest.raises(UserError, match="a CALVIN set needs rgb_static"):
        CalvinWriter(tmp_path / "set", layout=replace(spec.CALVIN, cameras=(spec.GRIPPER,)))
    assert list(tmp_path.iterdir()) == []


def write_one(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with CalvinWriter(path) as sink:
        sink.begin_episode(kind="play")
        sink.append(arrays)
        sink.end_episode()


def damaged(**changes: Any) -> dict[str, np.ndarray]:
    return {key: value for key, value in (episode(4) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (damaged(robot_obs=None), "has the keys"),
        (damaged(scene_obs=np.zeros((4, 23))), r"scene_obs has shape \(4, 23\)"),
        (damaged(action=np.full((4, 7), np.nan)), "action holds NaN or infinity at frame 0"),
        (damaged(action=np.full((4, 7), 1.1)), "action reaches 1.1"),
        (damaged(robot_obs=np.zeros((4, 15), np.int64)), "robot_obs is int64"),
        (damaged(rgb_static=np.zeros((4, 8, 8, 3))), "rgb_static is float64"),
        (damaged(rgb_static=np.zeros((4, 8, 8, 1), np.uint8)), "rgb_static has shape"),
        ({key: value[:0] for key, value in episode(4).items()}, "has no frames"),
    ],
)
def test_frames_that_do_not_fit_are_refused_and_nothing_is_left(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        write_one(tmp_path / "set", arrays)
    assert list(tmp_path.iterdir()) == []


def test_calls_out_of_order_are_refused(tmp_path: Path) -> None:
    sink = CalvinWriter(tmp_path / "set")
    with pytest.raises(UserError, match="no episode has begun"):
        sink.append(episode(2))
    sink.begin_episode(kind="play")
    with pytest.raises(UserError, match="episode 0 has not ended"):
        sink.begin_episode(kind="play")
    with pytest.raises(UserError, match="episode 0 has no frames"):
        sink.end_episode()
    sink.append(episode(2))
    with pytest.raises(UserError, match=r"segment lift \(0 to 3\) lies outside episode 0 of 2 frames"):
        sink.end_episode([Segment("lift", 0, 3, success=True)])
    with pytest.raises(UserError, match="was not written: episode 0 has not ended"):
        sink.close()
    with pytest.raises(UserError, match="was not written: no episode was added"):
        CalvinWriter(tmp_path / "set").close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match="exists already"):
        CalvinWriter(tmp_path / "set")

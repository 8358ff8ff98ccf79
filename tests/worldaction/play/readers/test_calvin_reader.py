"""CALVIN sets are read as they are on disk, damaged ones are refused by file, and no pickle runs code."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import DATA

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.convert import convert
from worldaction.play.images import area_mean
from worldaction.play.readers import calvin
from worldaction.play.readers.calvin import CalvinSource, find_calvin
from worldaction.play.readers.restricted import load_object_array
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore, Segment


def frame(number: int, side: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        "actions": rng.normal(size=7),
        "rel_actions": rng.uniform(-1, 1, 7),
        "robot_obs": rng.normal(size=15),
        "scene_obs": rng.normal(size=24),
        "rgb_static": rng.integers(0, 256, (side, side, 3), np.uint8),
        "rgb_gripper": rng.integers(0, 256, (side // 2, side // 2, 3), np.uint8),
    }


def frame_path(root: Path, number: int) -> Path:
    return root / ("validation" if number < 10 else "training") / f"episode_{number:07d}.npz"


def annotations(tasks: list[str], windows: list[tuple[int, int]]) -> dict[str, Any]:
    sentences, vectors = [f"please {task}" for task in tasks], np.zeros((len(tasks), 1, 384), np.float32)
    return {"language": {"ann": sentences, "task": tasks, "emb": vectors}, "info": {"episodes": [], "indx": windows}}


def save_object(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(value, dtype=object), allow_pickle=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Validation frames 3 to 9; training frames 10 to 13 and 20 to 25."""
    root = tmp_path / "calvin"
    for split, episodes in (("training", [[10, 13], [20, 25]]), ("validation", [[3, 9]])):
        (root / split).mkdir(parents=True)
        np.save(root / split / "ep_start_end_ids.npy", np.array(episodes))
        for first, last in episodes:
            for number in range(first, last + 1):
                np.savez_compressed(frame_path(root, number), **frame(number))
    save_object(root / "training/scene_info.npy", {"calvin_scene_D": [0, 15], "calvin_scene_A": np.array([16, 99])})
    tasks = annotations(["open_drawer", "lift"], [(11, 13), (20, 22)])
    save_object(root / "training/lang_annotations/auto_lang_ann.npy", tasks)
    save_object(root / "validation/lang_annotations/auto_lang_ann.npy", annotations(["lift"], [(3, 9)]))
    return root


def said(task: str, start: int, stop: int) -> Segment:
    """A window with the sentence that was recorded."""
    return Segment(task, start, stop, success=True, sentence=f"please {task}")


def test_frames_episodes_windows_and_scenes_come_over(root: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    store = convert(find_calvin(root), tmp_path / "s", image_size=4, progress=seen.append)
    numbers = [*range(10, 14), *range(20, 26), *range(3, 10)]
    assert len(store) == len(numbers)
    for row, number in enumerate(numbers):
        expected = frame(number)
        for key, name in ((spec.ROBOT, "robot_obs"), (spec.SCENE, "scene_obs"), (spec.ACTION, "rel_actions")):
            np.testing.assert_array_equal(store.frames[key][row], expected[name].astype(np.float32))
        np.testing.assert_array_equal(store.frames[spec.GRIPPER][row], expected["rgb_gripper"])
        blocks = expected["rgb_static"].reshape(4, 2, 4, 2, 3).mean((1, 3))
        np.testing.assert_array_equal(store.frames[spec.STATIC][row], np.rint(blocks))
    assert [(e.start, e.length, e.split, e.scene) for e in store.episodes] == [
        (0, 4, "training", "calvin_scene_D"),
        (4, 6, "training", "calvin_scene_A"),
        (10, 7, "validation", "calvin_scene_D"),
    ]
    assert store.segments == [said("open_drawer", 1, 4), said("lift", 4, 7), said("lift", 10, 17)]
    assert sum(seen) == len(find_calvin(root)) == 17


def test_a_set_without_the_gripper_camera_or_annotations_is_read(root: Path, tmp_path: Path) -> None:
    for number in (*range(3, 14), *range(20, 26)):
        arrays = {key: value for key, value in frame(number).items() if key != "rgb_gripper"}
        np.savez(frame_path(root, number), **arrays)
    for split in ("training", "validation"):
        (root / split / "lang_annotations" / "auto_lang_ann.npy").unlink()
    (root / "training" / "scene_info.npy").unlink()
    store = convert(find_calvin(root), tmp_path / "s", image_size=8)
    assert store.meta.cameras == (spec.STATIC,)
    assert store.segments == []


def test_another_language_folder_serves_where_the_usual_one_is_missing(root: Path) -> None:
    (root / "training/lang_annotations").rename(root / "training/lang_model")
    assert [segment.task for segment in find_calvin(root).splits[0].segments] == ["open_drawer", "lift"]


def test_the_language_folder_can_be_chosen(root: Path) -> None:
    save_object(root / "training/lang_paraphrase/auto_lang_ann.npy", annotations(["push"], [(20, 25)]))
    assert [segment.task for segment in find_calvin(root).splits[0].segments] == ["open_drawer", "lift"]
    source = open_source(root, language="lang_paraphrase")
    assert [episode.segments for episode in source.episodes] == [(), (said("push", 0, 6),), ()]
    assert source.origin.config["language"] == "lang_paraphrase"
    with pytest.raises(UserError, match=r"unknown language folder in .*; did you mean 'lang_paraphrase'"):
        CalvinSource(root, language="lang_paraphrases")


@pytest.mark.parametrize(("split", "frames"), [("training", 10), ("validation", 7)])
def test_a_set_with_one_of_the_two_folders_is_read(root: Path, tmp_path: Path, split: spec.Split, frames: int) -> None:
    other: spec.Split = "training" if split == "validation" else "validation"
    shutil.rmtree(root / other)
    store = convert(open_source(root), tmp_path / "s", image_size=4)
    assert len(store) == frames
    assert {episode.split for episode in store.episodes} == {split}
    with pytest.raises(UserError, match=f"has no folder {other}"):
        find_calvin(root).split(other)


def test_reading_may_begin_at_any_frame_and_leave_the_images_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calvin, "PIECE", 2)
    source = open_source(root)
    assert (source.format, source.rate, source.image_size, source.layout) == ("CALVIN", 30, 4, spec.CALVIN)
    for start in range(6):
        blocks = list(source.blocks(1, image_size=0, start=start))
        assert set(blocks[0]) == set(spec.CALVIN.vectors)
        found = np.concatenate([block[spec.ACTION] for block in blocks])
        np.testing.assert_array_equal(found, [frame(number)["rel_actions"] for number in range(20 + start, 26)])


def test_threads_keep_the_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calvin, "PIECE", 1)
    source = CalvinSource(root)
    monkeypatch.setattr(source, "image_size", 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    blocks = list(source.blocks(2, image_size=4))
    for number, block in zip(range(3, 10), blocks, strict=True):
        np.testing.assert_array_equal(block[spec.GRIPPER][0], frame(number)["rgb_gripper"])


def broken_npz(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flipped_npz(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for position in range(300, len(content), 7):
        content[position] ^= 0xFF
    path.write_bytes(content)


def no_zip(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)


def with_change(**changes: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        arrays = frame(12) | changes
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})

    return save


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "is missing"),
        (broken_npz, "is damaged"),
        (flipped_npz, "is damaged"),
        (no_zip, "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (with_change(rel_actions=None), "has no rel_actions"),
        (with_change(rgb_gripper=None), "has no rgb_gripper"),
        (with_change(rel_actions=np.zeros(6)), r"rel_actions is float64 \(6,\), not float \(7,\)"),
        (with_change(scene_obs=np.zeros(24, np.int64)), "scene_obs is int64"),
        (with_change(robot_obs=np.full(15, np.nan)), "robot_obs holds NaN"),
        (with_change(rel_actions=np.full(7, 3.0)), r"rel_actions leaves \[-1, 1\]"),
        (with_change(rgb_static=np.zeros((4, 8, 3), np.uint8)), r"rgb_static is uint8 \(4, 8, 3\)"),
        (with_change(rgb_static=np.zeros((8, 8, 3))), "rgb_static is float64"),
        (with_change(rel_actions=np.array({"a": 1}, dtype=object)), "is damaged"),
    ],
)
def test_a_damaged_frame_is_refused_by_its_file_and_no_store_is_left(
    root: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(frame_path(root, 12))
    with pytest.raises(UserError, match=rf"episode_0000012\.npz.*{message}"):
        convert(find_calvin(root), tmp_path / "s", image_size=4, strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calvin"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros((0, 2), np.int64), "lists no episodes"),
        (np.array([[5, 3]]), "ends before it starts"),
        (np.array([[10.0, 13.0]]), "not integers"),
        (np.array([10, 13]), "not integers"),
        (np.array([[10, 14]]), r"episode_0000014\.npz is missing"),
        (np.array([[10, 12]]), r"window 11 to 13 \(open_drawer\) lies in no episode"),
    ],
)
def test_frame_numbers_that_make_no_sense_are_refused(root: Path, ids: np.ndarray, message: str) -> None:
    np.save(root / "training/ep_start_end_ids.npy", ids)
    with pytest.raises(UserError, match=message):
        find_calvin(root)


def test_a_folder_that_is_no_calvin_set_is_refused_with_the_likely_one(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        find_calvin(tmp_path / "absent")
    for near in (root / "training", tmp_path):
        for reader in (find_calvin, open_source):
            with pytest.raises(UserError, match=f"did you mean {root}"):
                reader(near)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="give the folder that holds"):
        find_calvin(root / "training" / "lang_annotations")
    for path in (root / "training").glob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match="holds no frames"):
        find_calvin(root)


def test_images_are_not_blown_up(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose an image size of at most 4"):
        convert(find_calvin(root), tmp_path / "s", image_size=8)


class Attack:
    """Unpickled the ordinary way, this runs a command."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call = call
        self.arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


def test_a_malicious_pickle_is_refused_by_the_name_it_asks_for_and_runs_nothing(root: Path, tmp_path: Path) -> None:
    path, mark = root / "training/lang_annotations/auto_lang_ann.npy", tmp_path / "owned"
    attacks = {
        r"posix\.system": Attack(os.system, f"touch {mark}"),
        r"builtins\.exec": Attack(exec, f"open({str(mark)!r}, 'w')"),
        r"builtins\.getattr": Attack(getattr, mark, "touch"),
        r"numpy\.fromfile": Attack(np.fromfile, str(mark)),
    }
    for name, attack in attacks.items():
        save_object(path, {"language": attack})
        with pytest.raises(UserError, match=rf"auto_lang_ann\.npy asks for .*{name.split('.')[-1]}"):
            find_calvin(root)
        assert not mark.exists()
    # the same file does harm where it is trusted, so the test would notice
    save_object(path, {"language": attacks[r"posix\.system"]})
    np.load(path, allow_pickle=True)
    assert mark.exists()


def pickled(path: Path, program: bytes) -> Path:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(header.getvalue() + program)
    return path


def test_a_dtype_that_calls_bytes_pointers_is_refused(tmp_path: Path) -> None:
    # NumPy itself would take these bytes for the address of an object
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8I00\nI01\ntR(I3\nX\x01\x00\x00\x00|NNNI8\nI8\nI0\ntb"
    state = b"(I1\n(I1\nt" + dtype + b"I00\nC\x08AAAAAAAAtb."
    with pytest.raises(UserError, match="objects was given as raw bytes"):
        load_object_array(pickled(tmp_path / "a.npy", reconstruct + state))


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"\x80\x04\x95",
        b"(lp0\ng0\na.",
        b"cnumpy\ndtype\n.",
        b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.",
        b"cnumpy.core.multiarray\nscalar\n(tR.",
        b"cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        b"(I1\nI2\nd" * 3,
        b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
)
def test_pickles_that_are_damaged_or_make_no_data_are_refused(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(UserError, match=r"a\.npy is damaged"):
        load_object_array(pickled(tmp_path / "a.npy", program))


def test_a_truncated_annotation_file_is_refused_wherever_it_ends(root: Path) -> None:
    path = root / "training/lang_annotations/auto_lang_ann.npy"
    whole = path.read_bytes()
    for length in (*range(0, 200, 13), *range(200, len(whole) - 1, 97)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"auto_lang_ann\.npy is damaged"):
            find_calvin(root)


@pytest.mark.parametrize("content", [{"language": {}}, [1, 2], annotations(["a"], []), annotations(["a"], [(1, 2, 3)])])
def test_annotations_in_another_form_are_refused(root: Path, content: object) -> None:
    save_object(root / "training/lang_annotations/auto_lang_ann.npy", {"x": content} if content == [1, 2] else content)
    with pytest.raises(UserError, match="no annotations in CALVIN's form"):
        find_calvin(root)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_honest_pickles_of_every_protocol_come_back_equal(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "big endian": np.arange(6, dtype=">f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros((0, 3), np.int64),
        "text": np.array(["open", "close"]),
        "flags": np.array([True, False]),
    }
    others = {"scalar": np.float64(0.1), "index": (np.int64(3), 4), "rest": [None, True, 1.5, b"x", {"a": ()}]}
    objects = {"objects": np.array([["a", 2], [None, [3]]], dtype=object)}
    found = load_object_array(pickled(tmp_path / "a.npy", pickle.dumps(arrays | others | objects, protocol)))
    for key, expected in arrays.items():
        assert found[key].dtype == expected.dtype
        np.testing.assert_array_equal(found[key], expected)
    assert {key: found[key] for key in others} == others
    assert found["objects"] == ["a", 2, None, [3]]


def test_area_mean_weighs_pixels_by_the_area_that_is_covered() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3), np.uint8)
    # every pixel repeated 3 x 3 times lies on a grid that divides evenly
    fine = image.repeat(3, 1).repeat(3, 2).astype(np.float64)
    expected = fine.reshape(1, 3, 5, 3, 7, 3).mean((2, 4))
    np.testing.assert_array_equal(area_mean(image, 3), np.rint(expected))
    np.testing.assert_array_equal(area_mean(np.full((2, 200, 200, 3), 255, np.uint8), 64), 255)


@pytest.mark.parametrize(("name", "size", "frames"), [("calvin_sample_native", 32, 32), ("calvin_sample_64", 32, 44)])
def test_recordings_of_the_real_simulator_are_read(tmp_path: Path, name: str, size: int, frames: int) -> None:
    root = DATA / name
    first = 50 if name == "calvin_sample_native" else 42
    store = convert(find_calvin(root), tmp_path / "s", image_size=size)
    store.verify()
    assert len(PlayStore.open(tmp_path / "s")) == len(find_calvin(root)) == frames
    assert {episode.split for episode in store.episodes} == {"training", "validation"}
    for segment in store.demonstrations("open_drawer"):
        drawer = store.frames[spec.SCENE][segment.start : segment.stop, spec.SCENE_FIELDS["drawer"]]
        assert drawer[-1] - drawer[0] > 0.12
    with np.load(root / "training" / f"episode_{first + 3:07d}.npz") as arrays:
        np.testing.assert_array_equal(store.frames[spec.ROBOT][3], arrays["robot_obs"].astype(np.float32))
        np.testing.assert_array_equal(store.frames[spec.GRIPPER][3], area_mean(arrays["rgb_gripper"][None], size)[0])

"""A few bytes that would take all memory or all time, pipes in the place of files, links that lead out of a set."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_sets import write_robomimic, write_v30

from worldaction.errors import UserError
from worldaction.io.fingerprint import content_of
from worldaction.play.convert import convert
from worldaction.play.layout import Segment
from worldaction.play.readers import restricted
from worldaction.play.readers.parquet import read_table
from worldaction.play.readers.restricted import load_object_array
from worldaction.play.readers.source import open_source

pytestmark = pytest.mark.timeout(60)
FRAME = "training/episode_0000010.npz"
ANNOTATIONS = "training/lang_annotations/auto_lang_ann.npy"


def nested(kind: Callable[[Any], Any], depth: int = 60) -> Any:
    """A value of `depth` pairs, each of the same one twice: small in memory, without end for whoever walks through."""
    value = kind(["a"])
    for _ in range(depth):
        value = kind([value, value])
    return value


def object_array(program: bytes) -> bytes:
    """A `.npy` file of an object that a pickle makes."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": ()})
    return head.getvalue() + program


KEY = b"\x80\x02}" + pickle.dumps(nested(tuple), 2)[2:-1] + b"K\x01s."
"""A dict whose key has a hash that takes for ever; written by hand, because Python would need the hash for it."""


@pytest.fixture
def calvin(tmp_path: Path) -> Path:
    """A small set, whose frames 10 to 13 are an episode of training."""
    root = tmp_path / "calvin"
    (root / "training/lang_annotations").mkdir(parents=True)
    np.save(root / "training/ep_start_end_ids.npy", np.array([[10, 13]]))
    for number in range(10, 14):
        np.savez_compressed(root / f"training/episode_{number:07d}.npz", **frame())
    annotate(root, ["lift"])
    return root


def frame(**other: np.ndarray) -> dict[str, np.ndarray]:
    sizes = {"rel_actions": 7, "robot_obs": 15, "scene_obs": 24}
    images = {"rgb_static": np.zeros((8, 8, 3), np.uint8)}
    return {name: np.zeros(size) for name, size in sizes.items()} | images | other


def annotate(root: Path, tasks: Any) -> None:
    found = {"language": {"task": tasks, "ann": ["lift it"]}, "info": {"indx": [(10, 13)]}}
    (root / ANNOTATIONS).write_bytes(object_array(pickle.dumps(found, 2)))


def test_a_set_of_the_fixture_is_read(calvin: Path, tmp_path: Path) -> None:
    store = convert(open_source(calvin), tmp_path / "store", image_size=8)
    assert store.segments == [Segment("lift", 0, 4, success=True, sentence="lift it")]


def test_a_key_whose_hash_would_take_for_ever_is_refused(calvin: Path) -> None:
    (calvin / "training/scene_info.npy").write_bytes(object_array(KEY))
    with pytest.raises(UserError, match=r"scene_info\.npy is damaged .*more than 10000 parts"):
        open_source(calvin)


def test_a_task_whose_text_would_take_for_ever_is_refused(calvin: Path) -> None:
    annotate(calvin, [nested(list)])
    with pytest.raises(UserError, match="a list where text should be"):
        open_source(calvin)


def test_ordinary_tuples_and_shared_values_are_read(tmp_path: Path) -> None:
    shared = [(1, 2), (3, (4, 5))]
    value = {"a": shared, "b": [shared] * 100, ("k", 1): np.arange(3), "s": {"n": np.float64(2.0)}}
    for protocol in range(3, 6):
        path = tmp_path / f"{protocol}.npy"
        path.write_bytes(object_array(pickle.dumps(value, protocol)))
        found = load_object_array(path)
        assert found["b"][7] == shared
        assert found["k", 1].tolist() == [0, 1, 2]


def test_the_parts_of_a_tuple_are_counted_as_often_as_they_occur(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restricted, "PARTS", 100)
    for depth, fits in ((3, True), (6, False)):
        (tmp_path / "x.npy").write_bytes(object_array(pickle.dumps({nested(tuple, depth): 1})))
        if fits:
            assert list(load_object_array(tmp_path / "x.npy").values()) == [1]
        else:
            with pytest.raises(UserError, match="more than 100 parts"):
                load_object_array(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["rgb_static", "robot_obs"])
def test_an_array_that_claims_gigabytes_is_refused_before_it_is_unpacked(calvin: Path, name: str) -> None:
    # 3 GB of zeros, in three megabytes
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (30_000, 30_000, 3)})
    with zipfile.ZipFile(calvin / FRAME, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in frame().items():
            with archive.open(f"{key}.npy", "w") as member:
                if key == name:
                    member.write(head.getvalue() + bytes(1 << 20))
                else:
                    np.lib.format.write_array(member, array)
    with pytest.raises(UserError, match=r"episode_0000010\.npz is damaged .*is larger than 67,108,864 bytes"):
        list(open_source(calvin).blocks(0, image_size=8))


def test_an_array_that_is_shorter_or_longer_than_it_says_is_refused(calvin: Path) -> None:
    for extra in (b"", bytes(57)):
        with zipfile.ZipFile(calvin / FRAME, "w") as archive:
            for key, array in frame().items():
                data = io.BytesIO()
                np.lib.format.write_array(data, array)
                whole = data.getvalue()
                archive.writestr(f"{key}.npy", whole if key != "robot_obs" else whole[:-1] + extra)
        with pytest.raises(UserError, match="robot_obs has not the 120 bytes that it says"):
            list(open_source(calvin).blocks(0, image_size=8))


@pytest.mark.parametrize("name", [FRAME, ANNOTATIONS, "training/ep_start_end_ids.npy", "training/scene_info.npy"])
def test_a_pipe_in_the_place_of_a_file_is_refused(calvin: Path, name: str) -> None:
    (calvin / name).unlink(missing_ok=True)
    os.mkfifo(calvin / name)
    with pytest.raises(UserError, match=r"is a pipe, not a file|has none of the formats"):
        list(open_source(calvin).blocks(0, image_size=8))
    with pytest.raises(UserError, match="is a pipe, not a file"):
        content_of(calvin)


# ---- HDF5


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    write_robomimic(tmp_path / "set.hdf5")
    return tmp_path / "set.hdf5"


@pytest.mark.parametrize("name", ["data", "data/demo_2", "data/demo_2/obs/object", "mask"])
def test_links_to_other_files_are_refused_and_not_followed(demos: Path, tmp_path: Path, name: str) -> None:
    h5py = pytest.importorskip("h5py")
    # whoever opens it waits for ever
    os.mkfifo(tmp_path / "outside.hdf5")
    with h5py.File(demos, "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "outside.hdf5"), "x")
    with pytest.raises(UserError, match=rf"/{name} is a link to another file; copy what it leads to into this one"):
        open_source(demos)


def test_arrays_that_were_never_written_are_refused_if_they_are_large(demos: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(demos, "a") as file:
        del file["data/demo_0/rewards"]
        file["data/demo_0"].create_dataset("rewards", shape=(400_000_000,), dtype="f8", chunks=(100_000,))
        del file["data/demo_0/actions"]
        file["data/demo_0"].create_dataset("actions", shape=(400_000_000, 3), dtype="f8", chunks=(100_000, 3))
    with pytest.raises(UserError, match=r"actions would be 9,600,000,000 bytes, made of 0 in the file"):
        open_source(demos)


@pytest.mark.parametrize("name", ["demo_-1", "demo_x", "demo_"])
def test_a_demo_with_another_name_does_not_vanish(demos: Path, name: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(demos, "a") as file:
        file.move("data/demo_2", f"data/{name}")
    with pytest.raises(UserError, match=rf"data/{name} is called like no demo"):
        open_source(demos)


@pytest.mark.parametrize("arguments", ["[" * 5000, "[]", '{"env_name": 3}', '{"env_kwargs": {"control_freq": "x"}}'])
def test_what_a_file_says_of_its_environment_is_checked(demos: Path, arguments: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(demos, "a") as file:
        file["data"].attrs["env_args"] = arguments
    with pytest.raises(UserError, match=r"set\.hdf5: data, env_args is damaged"):
        open_source(demos)


# ---- parquet


def test_a_table_that_says_the_same_ten_million_times_is_refused(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "tasks.parquet"
    with parquet.ParquetWriter(path, pa.schema([("task", pa.string())])) as writer:
        part = pa.table({"task": ["lift"] * 1_000_000})
        for _ in range(10):
            writer.write_table(part)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"tasks\.parquet is damaged .*holds more than 268,435,456 bytes"):
        read_table(path)


def test_episodes_of_a_set_cannot_be_more_than_it_has_room_for(tmp_path: Path) -> None:
    pytest.importorskip("av")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_v30(tmp_path / "set", videos=False)
    path = next((tmp_path / "set/meta/episodes").rglob("*.parquet"))
    row = parquet.read_table(path).slice(0, 1)
    parquet.write_table(row.take(pa.array(np.zeros(2_000_000, np.int64))), path)
    with pytest.raises(UserError, match="where one row is an episode or a task"):
        open_source(tmp_path / "set")


@pytest.mark.parametrize("gap", [False, True])
def test_an_episode_that_claims_more_frames_than_memory_could_count_is_parted_where_frames_are(
    calvin: Path, gap: bool
) -> None:
    np.save(calvin / "training/ep_start_end_ids.npy", np.array([[10, 3 * 10**12]]))
    if gap:
        (calvin / "training/episode_0000012.npz").unlink()
    source = open_source(calvin)
    absent = 3 * 10**12 - 13 + gap
    said = f"episode_{12 if gap else 14:07d}.npz and {absent - 1} more of frames 10 to 3000000000000 is missing"
    assert said in source.skipped[0]
    assert [len(episode.segments) for episode in source.episodes] == ([0, 0] if gap else [1])

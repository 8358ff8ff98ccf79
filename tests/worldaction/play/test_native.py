"""A CALVIN set that is written again keeps the size of its images and what was said; what is lost is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import __main__ as cli
from worldaction import spec
from worldaction.play.action_scaling import Scaled
from worldaction.play.readers.calvin import CalvinSource
from worldaction.play.readers.restricted import load_object_array
from worldaction.play.store import PlayStore

NATIVE = Path(__file__).resolve().parents[2] / "data/calvin_sample_native"


def converted(path: Path, out: Path, *options: str) -> Path:
    cli.command(["data", "convert", str(path), str(out), *options])
    return out


def annotations(path: Path, split: str) -> list[tuple[str, str]]:
    language = load_object_array(path / split / "lang_annotations/auto_lang_ann.npy")["language"]
    return list(zip(language["task"], language["ann"], strict=True))


def test_frames_of_a_calvin_set_are_written_again_to_the_bit_each_camera_in_its_size(tmp_path: Path) -> None:
    again = converted(NATIVE, tmp_path / "again", "--to", "calvin")
    before, after = CalvinSource(NATIVE), CalvinSource(again)
    for one, other in zip(before.splits, after.splits, strict=True):
        for (first, last), (start, stop) in zip(one.episodes, other.episodes, strict=True):
            assert last - first == stop - start
            for offset in range(last - first + 1):
                with np.load(one.path(first + offset)) as recorded, np.load(other.path(start + offset)) as written:
                    assert recorded[spec.STATIC].shape != recorded[spec.GRIPPER].shape
                    for name in (*spec.CAMERAS, "robot_obs", "scene_obs", "rel_actions"):
                        np.testing.assert_array_equal(recorded[name], written[name])


def test_images_are_made_small_only_if_that_is_asked_for(tmp_path: Path) -> None:
    small = converted(NATIVE, tmp_path / "small", "--to", "calvin", "--image-size", "32")
    (block,) = CalvinSource(small).blocks(0, image_size=None)
    assert {block[camera].shape[1:] for camera in spec.CAMERAS} == {(32, 32, 3)}
    (own,) = CalvinSource(NATIVE).blocks(0, image_size=None)
    assert [own[camera].shape[1] for camera in spec.CAMERAS] == [100, 84]


def test_recorded_sentences_come_through_every_format(tmp_path: Path) -> None:
    pytest.importorskip("av")
    parquet = pytest.importorskip("pyarrow.parquet")
    said = {split: annotations(NATIVE, split) for split in ("training", "validation")}
    assert ("open_drawer", "go open the drawer") in said["training"]
    store = converted(NATIVE, tmp_path / "store")
    lerobot = converted(store, tmp_path / "lerobot", "--to", "lerobot")
    again = converted(lerobot, tmp_path / "again", "--to", "calvin")
    assert {split: annotations(again, split) for split in said} == said
    assert {segment.sentence for segment in PlayStore.open(store).segments} == {
        sentence for pairs in said.values() for _, sentence in pairs
    }
    tasks = parquet.read_table(lerobot / "meta/tasks.parquet").column("task").to_pylist()
    assert "go open the drawer" in tasks


def test_a_set_without_sentences_is_given_ours(tmp_path: Path) -> None:
    from listed_source import small_set

    from worldaction.play.convert import convert

    convert(small_set(), tmp_path / "play", image_size=16)
    again = converted(tmp_path / "play", tmp_path / "again", "--to", "calvin")
    assert ("open_drawer", "pull the handle to open the drawer") in annotations(again, "training")


def test_what_is_not_carried_over_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converted(NATIVE, tmp_path / "again", "--to", "calvin")
    assert "not carried over: emb (vectors of the sentences)" in capsys.readouterr().out
    with np.load(NATIVE / "training/episode_0000050.npz") as arrays:
        frame = dict(arrays)
    folder = tmp_path / "set"
    (folder / "training/.hydra").mkdir(parents=True)
    np.savez(folder / "training/episode_0000000.npz", **frame, depth_static=np.zeros((2, 2), np.float32))
    np.save(folder / "training/ep_start_end_ids.npy", [[0, 0]])
    assert CalvinSource(folder).left_out == ("depth_static", ".hydra")
    # what we write has neither
    assert CalvinSource(tmp_path / "again").left_out == ()


def test_files_beside_the_annotations_are_named_and_through_a_scale_too(tmp_path: Path) -> None:
    shutil.copytree(NATIVE, tmp_path / "set")
    np.save(tmp_path / "set/training/lang_annotations/embeddings.npy", np.zeros(3))
    named = ("emb (vectors of the sentences)", "lang_annotations/embeddings.npy")
    source = CalvinSource(tmp_path / "set")
    assert source.left_out == named
    assert Scaled(source, np.full(7, -1.0), np.full(7, 0.5)).left_out == named

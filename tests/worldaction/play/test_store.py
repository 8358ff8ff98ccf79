"""The play store keeps what it was given, publishes all or nothing, and names the file that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io.sealed_json import SEAL
from worldaction.play.convert import convert
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore, Segment, StoreWriter, concatenate
from worldaction.world_model.train import train

SIZE = 4


def episode(length: int, seed: int, cameras: tuple[str, ...] = spec.CAMERAS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (length, SIZE, SIZE, 3), np.uint8) for camera in cameras}
    return images | {
        spec.ROBOT: rng.normal(size=(length, 15)).astype(np.float32),
        spec.SCENE: rng.normal(size=(length, 24)).astype(np.float32),
        spec.ACTION: rng.uniform(-1, 1, (length, 7)).astype(np.float32),
    }


def done(task: str, start: int, stop: int) -> Segment:
    return Segment(task, start, stop, success=True)


def writer(path: Path, **options: Any) -> StoreWriter:
    return StoreWriter(path, **{"image_size": SIZE, "source": "test", "renderer": "none", "seed": 3} | options)


def small(path: Path, seed: int = 0, lengths: tuple[int, ...] = (5, 3)) -> PlayStore:
    with writer(path) as out:
        for i, length in enumerate(lengths):
            out.add_episode(episode(length, seed + i), kind="play", segments=[Segment("lift", 1, 3, i == 0)])
    return PlayStore.open(path)


def same_frames(one: PlayStore, other: PlayStore) -> bool:
    return all(torch.equal(value, other.frames[key]) for key, value in one.frames.items())


def test_frames_come_back_as_they_went_in_with_previous_action_is_init_and_episode(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    first, second = episode(5, 0), episode(3, 1)
    assert len(store) == 8
    for key in (*spec.CAMERAS, spec.ROBOT, spec.SCENE, spec.ACTION):
        expected = torch.from_numpy(np.concatenate([first[key], second[key]]))
        assert torch.equal(store.frames[key], expected)
    null = torch.tensor(spec.NULL_ACTION)
    previous = store.frames[spec.PREVIOUS_ACTION]
    assert torch.equal(previous[0], null)
    assert torch.equal(previous[5], null)
    assert torch.equal(previous[1:5], store.frames[spec.ACTION][0:4])
    assert store.frames[spec.IS_INIT].tolist() == [True, *[False] * 4, True, False, False]
    assert store.frames[spec.EPISODE].tolist() == [0] * 5 + [1] * 3


def test_an_episode_in_pieces_equals_the_episode_at_once(tmp_path: Path) -> None:
    whole = episode(7, 0)
    with writer(tmp_path / "whole") as out:
        out.add_episode(whole, kind="demo", split="validation", segments=[Segment("lift", 0, 7)])
    with writer(tmp_path / "pieces") as out:
        out.begin_episode(kind="demo", split="validation")
        for start, stop in ((0, 1), (1, 5), (5, 7)):
            out.append({key: value[start:stop] for key, value in whole.items()})
        out.end_episode([Segment("lift", 0, 7)])
    one, other = PlayStore.open(tmp_path / "whole"), PlayStore.open(tmp_path / "pieces")
    assert same_frames(one, other)
    assert (one.episodes, one.segments, one.meta) == (other.episodes, other.segments, other.meta)
    assert one.episodes[0].split == "validation"


def test_tensordict_reads_the_frames_without_us(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    theirs = TensorDict.load_memmap(tmp_path / "s" / "frames", allow_pickle=False)
    assert set(theirs.keys()) == set(store.frames.keys())
    assert all(torch.equal(value, store.frames[key]) for key, value in theirs.items())


def test_a_store_may_have_one_camera(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as out:
        out.add_episode(episode(3, 0, cameras=(spec.STATIC,)), kind="play")
        with pytest.raises(UserError, match="rgb_gripper"):
            out.add_episode(episode(3, 0), kind="play")
    store = PlayStore.open(tmp_path / "s")
    assert store.meta.cameras == (spec.STATIC,)
    assert spec.GRIPPER not in set(store.frames.keys())


def test_statistics_are_those_of_a_float64_loop(tmp_path: Path) -> None:
    store = small(tmp_path / "s", lengths=(50, 20))
    values = store.frames[spec.ROBOT].double().numpy()
    mean, std = store.statistics()
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(std, values.std(0), rtol=1e-6)


def test_demonstrations_are_chosen_by_task_success_kind_and_split(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as out:
        out.add_episode(episode(5, 0), kind="demo", segments=[done("lift", 0, 5), done("push", 0, 2)])
        out.add_episode(episode(5, 1), kind="near_miss", segments=[Segment("lift", 1, 5, False)])
        out.add_episode(episode(5, 2), kind="play", segments=[done("lift", 2, 5)], split="validation")
    store = PlayStore.open(tmp_path / "s")
    assert store.demonstrations("lift") == [done("lift", 0, 5), done("lift", 12, 15)]
    assert store.demonstrations("lift", successful=False)[1] == Segment("lift", 6, 10, False)
    assert store.demonstrations("lift", kind="demo") == [done("lift", 0, 5)]
    assert store.demonstrations("lift", split="validation") == [done("lift", 12, 15)]
    with pytest.raises(UserError, match="did you mean 'push'"):
        store.demonstrations("pusj")


def test_joining_shards_equals_writing_them_into_one_store(tmp_path: Path) -> None:
    shards = [small(tmp_path / "a"), small(tmp_path / "b", seed=2)]
    joined = concatenate(shards, tmp_path / "ab", seed=9)
    with writer(tmp_path / "direct", seed=9) as out:
        for i, length in enumerate((5, 3, 5, 3)):
            out.add_episode(episode(length, i), kind="play", segments=[Segment("lift", 1, 3, i % 2 == 0)])
    direct = PlayStore.open(tmp_path / "direct")
    assert same_frames(joined, direct)
    assert (joined.episodes, joined.segments, joined.meta) == (direct.episodes, direct.segments, direct.meta)


def test_stores_that_were_drawn_differently_are_not_joined(tmp_path: Path) -> None:
    with writer(tmp_path / "b", renderer="egl") as out:
        out.add_episode(episode(3, 0), kind="play")
    with pytest.raises(UserError, match="renderer egl"):
        concatenate([small(tmp_path / "a"), PlayStore.open(tmp_path / "b")], tmp_path / "ab")


def test_a_failed_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail_after_an_episode() -> None:
        with writer(tmp_path / "s") as out:
            out.add_episode(episode(3, 0), kind="play")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_an_episode()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no episode was added"), writer(tmp_path / "s"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_writer_whose_disk_was_full_publishes_nothing_afterwards(tmp_path: Path) -> None:
    writing = writer(tmp_path / "store", resume="mine")
    writing.add_episode(episode(5, 0), kind="play")
    writing.checkpoint()
    writing._failed(OSError(28, "No space left on device"))
    for use in (writing.close, writing.checkpoint, lambda: writing.add_episode(episode(5, 0), kind="play")):
        with pytest.raises(UserError, match=r"writing it has failed; what was saved is in .*store\.partial"):
            use()
    with writer(tmp_path / "store", resume="mine") as again:
        assert again.whole == 1
    PlayStore.open(tmp_path / "store").verify()


def test_a_killed_writer_is_reported_and_its_rest_replaced(tmp_path: Path) -> None:
    killed = writer(tmp_path / "s")
    killed.add_episode(episode(3, 0), kind="play")
    with pytest.raises(UserError, match="interrupted"):
        PlayStore.open(tmp_path / "s")
    with pytest.raises(UserError, match="is being written by another process"):
        small(tmp_path / "s")
    del killed
    assert len(small(tmp_path / "s")) == 8


def test_an_existing_store_is_not_overwritten(tmp_path: Path) -> None:
    small(tmp_path / "s")
    with pytest.raises(UserError, match="exists already"):
        writer(tmp_path / "s")


def refused(arrays: dict[str, np.ndarray], change: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
    changed = arrays | change
    return {key: value for key, value in changed.items() if value is not None}


NAN = np.full((3, 15), np.nan, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({spec.ROBOT: NAN}, "robot_obs holds NaN"),
        ({spec.ROBOT: np.zeros((3, 14), np.float32)}, r"robot_obs has shape \(3, 14\), expected \(3, 15\)"),
        ({spec.SCENE: np.zeros((3, 24), np.int64)}, "scene_obs is int64"),
        ({spec.STATIC: np.zeros((3, SIZE, SIZE, 3), np.float32)}, "rgb_static is float32"),
        ({spec.STATIC: np.zeros((3, 8, 8, 3), np.uint8)}, r"rgb_static has shape \(3, 8, 8, 3\)"),
        ({spec.ACTION: np.full((3, 7), 0.5)[:2]}, "expected"),
        ({spec.ACTION: np.full((3, 7), 2.5)}, "actions must be scaled"),
        ({spec.ACTION: None}, "this store needs"),
        ({"reward": np.zeros(3)}, "this store needs"),
        ({key: value[:0] for key, value in episode(3, 0).items()}, "no frames"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_and_leaves_no_frame(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    with writer(tmp_path / "s") as out:
        out.add_episode(episode(2, 0), kind="play")
        with pytest.raises(UserError, match=message):
            out.add_episode(refused(episode(3, 0), change), kind="play")
        out.add_episode(episode(3, 1), kind="play")
    store = PlayStore.open(tmp_path / "s")
    assert [e.length for e in store.episodes] == [2, 3]
    store.verify()


def test_a_segment_outside_its_episode_is_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as out:
        out.add_episode(episode(3, 0), kind="play")
        for start, stop in ((0, 4), (-1, 2), (2, 2)):
            with pytest.raises(UserError, match="lies outside episode 1"):
                out.add_episode(episode(3, 0), kind="play", segments=[Segment("lift", start, stop)])


def edit(path: Path, **changes: Any) -> None:
    """Change a description by hand, as one who means it: without the seal that would say so."""
    content = {name: value for name, value in json.loads(path.read_text()).items() if name != SEAL}
    path.write_text(json.dumps(content | changes))


def test_a_damaged_store_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    frames, described = tmp_path / "s" / "frames", tmp_path / "s" / "store.json"
    small(tmp_path / "s")
    good = described.read_text()

    (frames / "action.memmap").rename(frames / "away")
    with pytest.raises(UserError, match=r"action\.memmap is missing"):
        PlayStore.open(tmp_path / "s")
    (frames / "away").rename(frames / "action.memmap")

    image = (frames / "rgb_static.memmap").read_bytes()
    (frames / "rgb_static.memmap").write_bytes(image[:-1])
    with pytest.raises(UserError, match=r"rgb_static\.memmap has 383 bytes, not 384"):
        PlayStore.open(tmp_path / "s")
    (frames / "rgb_static.memmap").write_bytes(image)

    for changes, message in (
        ({"frames": 9}, "8 frames together, the store says 9"),
        ({"frames": 0, "episodes": []}, "no frames"),
        ({"episodes": [{"start": 0, "length": 8, "kind": "play"}]}, r"is_init\.memmap disagrees"),
        ({"episodes": [{"start": 1, "length": 7, "kind": "play"}]}, "expected 0"),
        ({"episodes": [{"start": 0}]}, "damaged"),
        ({"segments": [{"task": "lift", "start": 2, "stop": 99}]}, "lies outside the 8 frames"),
        ({"image_size": 8}, r"meta\.json: rgb_static"),
        ({"format": "other"}, "does not describe a play store"),
    ):
        edit(described, **changes)
        with pytest.raises(UserError, match=message):
            PlayStore.open(tmp_path / "s")
        described.write_text(good)

    described.write_text(good[:50])
    with pytest.raises(UserError, match=r"store\.json is damaged"):
        PlayStore.open(tmp_path / "s")
    described.write_text(good)
    assert len(PlayStore.open(tmp_path / "s")) == 8


def test_nan_on_disk_is_found_by_opening_and_a_flipped_bit_by_verifying(tmp_path: Path) -> None:
    small(tmp_path / "s")
    scene = tmp_path / "s" / "frames" / "scene_obs.memmap"
    values = np.fromfile(scene, np.float32)
    values[7] = np.nan
    values.tofile(scene)
    with pytest.raises(UserError, match=r"scene_obs\.memmap holds NaN"):
        PlayStore.open(tmp_path / "s")
    values[7] = 0.0
    values.tofile(scene)
    with pytest.raises(UserError, match=r"scene_obs\.memmap has changed"):
        PlayStore.open(tmp_path / "s").verify()


def test_writing_to_opened_frames_never_reaches_the_disk(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    store.frames[spec.STATIC].zero_()
    PlayStore.open(tmp_path / "s").verify()


# ---- episodes that could not be read


def halved(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: value[: len(value) // 2] for key, value in arrays.items()}


def test_what_was_written_of_a_skipped_episode_is_gone_to_the_byte(tmp_path: Path) -> None:
    with writer(tmp_path / "plain") as out:
        out.add_episode(episode(5, 0), kind="play")
        out.add_episode(episode(4, 2), kind="play")
    with writer(tmp_path / "skipped") as out:
        for number, arrays in ((7, episode(6, 7)), (0, episode(5, 0)), (8, episode(6, 8)), (2, episode(4, 2))):
            out.begin_episode(kind="play")
            if number > 6:
                out.append(halved(arrays))
                out.skip_episode(f"episode {number} is damaged")
            else:
                out.append(arrays)
                out.end_episode()
        assert (out.whole, len(out), len(out.skipped)) == (2, 9, 2)
        read = dict(enumerate(vectors for _, vectors in out.vectors()))
        np.testing.assert_array_equal(read[1][spec.ACTION], episode(4, 2)[spec.ACTION])
    plain, skipped = PlayStore.open(tmp_path / "plain"), PlayStore.open(tmp_path / "skipped")
    skipped.verify()
    assert skipped.checksums == plain.checksums
    assert skipped.episodes == plain.episodes
    assert skipped.meta.config["skipped"] == ["episode 7 is damaged", "episode 8 is damaged"]
    assert "skipped" not in plain.meta.config


def test_a_writer_goes_on_after_a_skipped_episode_of_which_some_had_been_saved(tmp_path: Path) -> None:
    out = writer(tmp_path / "s", resume="one")
    out.add_episode(episode(5, 0), kind="play")
    out.begin_episode(kind="play")
    out.append(halved(episode(6, 7)))
    out.checkpoint()
    out.abandon()
    # the rest of it cannot be read
    out = writer(tmp_path / "s", resume="one")
    assert out.begun == 3
    out.skip_episode("episode 1 is damaged")
    out.abandon()
    out = writer(tmp_path / "s", resume="one")
    assert (out.whole, out.begun, out.skipped) == (1, None, ["episode 1 is damaged"])
    out.add_episode(episode(4, 2), kind="play")
    out.close()
    store = PlayStore.open(tmp_path / "s")
    store.verify()
    assert [e.length for e in store.episodes] == [5, 4]
    np.testing.assert_array_equal(store.frames[spec.ACTION][5:], episode(4, 2)[spec.ACTION])


@pytest.mark.parametrize(
    ("checksums", "message"),
    [
        (lambda known: {}, "has no checksum"),
        (lambda known: dict(list(known.items())[1:]), "has no checksum"),
        (lambda known: {**known, "../../x": "0"}, "has a checksum, but is no file of the store"),
        (lambda known: {**known, "/dev/zero": "0"}, "has a checksum, but is no file of the store"),
        (lambda known: dict.fromkeys(known, 3), "is 3, not text"),
    ],
)
def test_a_store_has_the_checksums_of_its_own_files_and_no_others(
    tmp_path: Path, checksums: Callable[[dict[str, str]], dict[str, Any]], message: str
) -> None:
    small(tmp_path / "s")
    path = tmp_path / "s" / "store.json"
    edit(path, checksums=checksums(json.loads(path.read_text())["checksums"]))
    with pytest.raises(UserError, match=message):
        PlayStore.open(tmp_path / "s")


def test_a_damaged_store_is_neither_converted_nor_trained_on(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    path = tmp_path / "s/frames/action.memmap"
    content = bytearray(path.read_bytes())
    content[3] ^= 0x80
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"action\.memmap has changed since it was written"):
        convert(open_source(tmp_path / "s"), tmp_path / "copy", image_size=store.meta.image_size)
    assert not (tmp_path / "copy").exists()
    with pytest.raises(UserError, match=r"action\.memmap has changed since it was written"):
        train(tmp_path / "s")


@pytest.mark.parametrize("value", ["no", 1])
def test_what_is_neither_true_nor_false_is_no_success(tmp_path: Path, value: Any) -> None:
    small(tmp_path / "s")
    edit(tmp_path / "s/store.json", segments=[{"task": "lift", "start": 0, "stop": 2, "success": value}])
    with pytest.raises(UserError, match=r"segments\[0\]\.success is .*, not true or false"):
        PlayStore.open(tmp_path / "s")

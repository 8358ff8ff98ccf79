"""Data that goes through another format comes back: vectors to the bit, images within what video loses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from listed_source import ListedSource, episode, small_set
from paths import DATA

from worldaction import spec
from worldaction.play.convert import convert
from worldaction.play.layout import Segment
from worldaction.play.readers.source import Recording, Source, open_source
from worldaction.play.writers.base import copy
from worldaction.play.writers.calvin import CalvinWriter
from worldaction.play.writers.lerobot import LeRobotWriter

LOSS = 35.0
"""PSNR of the worst frame that the default video leaves (dB); 36.5 was measured on CALVIN's frames at 64 pixels."""


def whole(source: Source, number: int, *, image_size: int) -> dict[str, np.ndarray]:
    """An episode's arrays."""
    blocks = list(source.blocks(number, image_size=image_size))
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def pairs(one: Source, other: Source) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Arrays of the same episodes of two sets."""
    size = one.image_size
    assert (other.image_size, len(other.episodes)) == (size, len(one.episodes))
    for number in range(len(one.episodes)):
        yield whole(one, number, image_size=size), whole(other, number, image_size=size)


def described(source: Source) -> list[tuple[object, ...]]:
    return [(e.length, e.kind, e.split, e.scene, tuple(e.segments)) for e in source.episodes]


def write_calvin(source: Source, path: Path) -> Source:
    with CalvinWriter(path, layout=source.layout) as sink:
        copy(source, sink, image_size=source.image_size)
    return open_source(path)


def write_lerobot(source: Source, path: Path, *, video: str = "h264") -> Source:
    with LeRobotWriter(path, layout=source.layout, video=video) as sink:
        copy(source, sink, image_size=source.image_size)
    return open_source(path)


def write_store(source: Source, path: Path) -> Source:
    convert(source, path, image_size=source.image_size)
    return open_source(path)


def check_calvin(first: Source, folder: Path) -> None:
    """CALVIN, store, CALVIN: all bytes of the images, and of the vectors as the store keeps them."""
    again = write_calvin(write_store(first, folder / "store"), folder / "again")
    assert described(again) == described(first)
    for before, after in pairs(first, again):
        assert before.keys() == after.keys()
        for key, array in before.items():
            kept = array if array.dtype == np.uint8 else array.astype(np.float32)
            assert after[key].astype(kept.dtype).tobytes() == kept.tobytes()
    # and not through a store: all bytes of the vectors, too
    for before, after in pairs(first, write_calvin(first, folder / "copy")):
        for key, array in before.items():
            assert (after[key].dtype, after[key].tobytes()) == (array.dtype, array.tobytes())


def check_lerobot(first: Source, folder: Path, *, video: str, loss: float) -> None:
    """Store, LeRobot, store."""
    again = write_store(write_lerobot(first, folder / "lerobot", video=video), folder / "again")
    assert described(again) == described(first)
    assert again.layout == first.layout
    assert again.rate == first.rate
    for before, after in pairs(first, again):
        for key, array in before.items():
            if array.dtype != np.uint8:
                assert (after[key].dtype, after[key].tobytes()) == (array.dtype, array.tobytes())
                continue
            error = ((array.astype(np.float64) - after[key]) ** 2).mean((1, 2, 3))
            assert error.max() <= 255**2 / 10 ** (loss / 10)


def tiny() -> ListedSource:
    """A training episode and a validation one of scene D, as CALVIN orders them."""
    first = Recording(11, "list", "play", "training", "calvin_scene_D", (Segment("open_drawer", 2, 9, success=True),))
    second = Recording(7, "list", "play", "validation", "calvin_scene_D", (Segment("turn_on_led", 0, 7, success=True),))
    return ListedSource([episode(11, seed=1), episode(7, seed=2)], [first, second])


def test_a_calvin_set_comes_back_from_a_store_byte_for_byte(tmp_path: Path) -> None:
    check_calvin(write_calvin(tiny(), tmp_path / "first"), tmp_path)


def test_every_array_that_the_real_simulator_recorded_comes_back_from_a_store(tmp_path: Path) -> None:
    root = DATA / "calvin_sample_64"
    write_calvin(write_store(open_source(root), tmp_path / "store"), tmp_path / "again")
    numbers = [*range(42, 60), *range(1200, 1208), *range(924, 942)]
    for new, old in enumerate(numbers):
        split = "training" if new < 26 else "validation"
        before = read(root / split / f"episode_{old:07d}.npz")
        after = read(tmp_path / "again" / split / f"episode_{new:07d}.npz")
        assert before.keys() == after.keys()
        if new in (17, 25, 43):
            # the pose that an episode's last action led to is in no frame
            np.testing.assert_allclose(after.pop("actions"), before.pop("actions"), atol=1e-6)
        for key, array in before.items():
            assert after[key].dtype == array.dtype
            kept = array if array.dtype == np.uint8 else array.astype(np.float32)
            assert after[key].astype(kept.dtype).tobytes() == kept.tobytes()


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def test_a_store_comes_back_from_lerobot_but_for_what_video_loses(tmp_path: Path) -> None:
    pytest.importorskip("av")
    check_lerobot(write_store(small_set(), tmp_path / "first"), tmp_path, video="h264", loss=33.0)


def test_a_store_comes_back_from_lossless_video_byte_for_byte(tmp_path: Path) -> None:
    pytest.importorskip("av")
    check_lerobot(write_store(small_set(), tmp_path / "first"), tmp_path, video="lossless", loss=np.inf)


def test_recordings_of_the_real_simulator_come_back_from_lerobot(tmp_path: Path) -> None:
    pytest.importorskip("av")
    check_lerobot(
        write_store(open_source(DATA / "calvin_sample_native"), tmp_path / "first"), tmp_path, video="h264", loss=LOSS
    )


def test_other_robots_come_back_from_lerobot(tmp_path: Path) -> None:
    pytest.importorskip("av")
    layout = spec.Layout(("wrist",), robot=3, scene=0, action=2, null_action=(0.0, -1.0), binary=(1,))
    rng = np.random.default_rng(0)
    arrays = {
        "wrist": episode(9)[spec.STATIC],
        spec.ROBOT: rng.normal(size=(9, 3)),
        spec.ACTION: rng.uniform(-1, 1, (9, 2)),
    }
    first = write_store(ListedSource([arrays], layout=layout), tmp_path / "first")
    check_lerobot(first, tmp_path, video="h264", loss=33.0)

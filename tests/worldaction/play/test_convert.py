"""Conversions invent no pixels and no frames, and go on where they were killed, to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play import convert as module
from worldaction.play.convert import convert, frames
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore, StoreWriter

LENGTHS = (30, 7, 40)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store of 77 frames."""
    with StoreWriter(tmp_path / "source", image_size=8, source="test", renderer="none") as writer:
        for number, length in enumerate(LENGTHS):
            rng = np.random.default_rng(number)
            images = {camera: rng.integers(0, 256, (length, 8, 8, 3), np.uint8) for camera in spec.CAMERAS}
            sizes = spec.CALVIN.vectors.items()
            vectors = {key: rng.uniform(-1, 1, (length, size)).astype(np.float32) for key, size in sizes}
            writer.add_episode(images | vectors, kind="play")
    return tmp_path / "source"


def same(one: Path, other: Path) -> bool:
    """Whether two stores are equal to the byte."""
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    others = sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return names == others and all((one / n).read_bytes() == (other / n).read_bytes() for n in names)


class Stopped(Exception):
    """What interrupts a conversion in these tests."""


def stop_after(count: int) -> Callable[[int], None]:
    """Progress that interrupts after so many frames."""
    done = 0

    def progress(new: int) -> None:
        nonlocal done
        done += new
        if done >= count:
            raise Stopped

    return progress


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint every eight frames, three frames a block."""
    monkeypatch.setattr(module, "CHECKPOINT", 8)
    monkeypatch.setattr("worldaction.play.readers.store.BLOCK", 3)


@pytest.mark.parametrize("count", [30, 36, 77])
@pytest.mark.usefixtures("small_steps")
def test_an_interrupted_conversion_goes_on_to_the_same_bytes(root: Path, tmp_path: Path, count: int) -> None:
    whole = convert(open_source(root), tmp_path / "whole", image_size=4)
    with pytest.raises(Stopped):
        convert(open_source(root), tmp_path / "s", image_size=4, progress=stop_after(count))
    done: list[int] = []
    store = convert(open_source(root), tmp_path / "s", image_size=4, progress=done.append)
    # the first number says what was there already
    assert count - 11 < done[0] <= count + 2
    assert sum(done) == frames(open_source(root)) == 77
    store.verify()
    assert same(whole.path, store.path)
    assert not (tmp_path / "s.partial").exists()


@pytest.mark.usefixtures("small_steps")
def test_what_is_left_of_something_else_is_not_continued(root: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        convert(open_source(root), tmp_path / "s", image_size=4, progress=stop_after(50))
    done: list[int] = []
    convert(open_source(root), tmp_path / "s", image_size=2, progress=done.append)
    assert (done[0], sum(done)) == (3, 77)


@pytest.mark.usefixtures("small_steps")
def test_a_conversion_can_be_told_to_start_again(root: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        convert(open_source(root), tmp_path / "s", image_size=4, progress=stop_after(50))
    done: list[int] = []
    convert(open_source(root), tmp_path / "s", image_size=4, progress=done.append, resume=False)
    assert done[0] == 3


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("damage", ["checkpoint", "frames", "missing"])
def test_a_rest_that_is_damaged_is_begun_again(root: Path, tmp_path: Path, damage: str) -> None:
    with pytest.raises(Stopped):
        convert(open_source(root), tmp_path / "s", image_size=4, progress=stop_after(50))
    partial = tmp_path / "s.partial"
    if damage == "checkpoint":
        content = json.loads((partial / "checkpoint.json").read_text())
        (partial / "checkpoint.json").write_text(json.dumps(content | {"episodes": [{"begin": 0}]}))
    elif damage == "frames":
        os.truncate(partial / "frames/action.memmap", 20)
    else:
        (partial / "frames/action.memmap").unlink()
    store = convert(open_source(root), tmp_path / "s", image_size=4)
    assert same(convert(open_source(root), tmp_path / "whole", image_size=4).path, store.path)


def test_a_short_conversion_that_fails_leaves_nothing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        convert(open_source(root), tmp_path / "s", image_size=4, progress=stop_after(50))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


KILLED = """
import sys, time
from worldaction.play import convert
from worldaction.play.readers import store as source_store
from worldaction.play.readers.source import open_source
convert.CHECKPOINT, source_store.BLOCK = 5, 3
def slowly(_): time.sleep(0.02)
convert.convert(open_source(sys.argv[1]), sys.argv[2], image_size=4, progress=slowly)
"""


def test_a_conversion_that_is_killed_goes_on_to_the_same_bytes(root: Path, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(root), str(tmp_path / "s")])
    checkpoint, deadline = tmp_path / "s.partial/checkpoint.json", time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(UserError, match="is being written by another process"):
        convert(open_source(root), tmp_path / "s", image_size=4)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(UserError, match="its making was interrupted, start it again"):
        PlayStore.open(tmp_path / "s")
    done: list[int] = []
    store = convert(open_source(root), tmp_path / "s", image_size=4, progress=done.append)
    assert 0 < done[0] < 77
    store.verify()
    assert same(convert(open_source(root), tmp_path / "whole", image_size=4).path, store.path)


def test_images_are_not_blown_up(root: Path, tmp_path: Path) -> None:
    for size in (0, 9):
        with pytest.raises(UserError, match="choose an image size of at most 8"):
            convert(open_source(root), tmp_path / "s", image_size=size)


def test_an_episode_that_is_shorter_than_its_description_is_named(root: Path, tmp_path: Path) -> None:
    source = open_source(root)
    first, second, third = source.episodes
    source.episodes = [first, replace(second, length=8), third]
    with pytest.raises(UserError, match="source, episode 1 has 7 frames, not 8"):
        convert(source, tmp_path / "s", image_size=4, strict=True)

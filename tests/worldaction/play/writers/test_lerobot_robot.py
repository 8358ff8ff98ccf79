"""A set with a robot's name, numbers and units, as its own recorder writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from listed_source import pictures

from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json
from worldaction.play.layout import Segment
from worldaction.play.readers.source import open_source
from worldaction.play.writers.lerobot_robot import Robot, RobotSetWriter
from worldaction.spec import ACTION, ROBOT, Layout

pytest.importorskip("av")
parquet = pytest.importorskip("pyarrow.parquet")

LAYOUT = Layout(("front", "wrist"), 2, 0, 2, (0.0, 0.0), absolute=True)
TWO_JOINTS = Robot("two_joints", ("pan.pos", "tilt.pos"))
FRAMES = 12


def write(path: Path, *outcomes: bool | None, tells_success: bool = True) -> Path:
    with RobotSetWriter(path, TWO_JOINTS, layout=LAYOUT, rate=15, tells_success=tells_success) as writer:
        for success in outcomes:
            joints = np.linspace((-90, 10), (90, 80), FRAMES).astype(np.float32)
            writer.begin_episode(kind="demo")
            images = {"front": pictures(FRAMES, 32), "wrist": pictures(FRAMES, 16)}
            writer.append({**images, ROBOT: joints, ACTION: joints + 1})
            writer.end_episode([Segment("wave", 0, FRAMES, success, "wave at the people")])
    return path


def test_numbers_have_the_robots_names_and_units(tmp_path: Path) -> None:
    root = write(tmp_path / "set", True)
    info = read_json(root / "meta/info.json")
    assert (info["robot_type"], info["fps"]) == ("two_joints", 15)
    for name in ("action", "observation.state"):
        assert info["features"][name]["names"] == ["pan.pos", "tilt.pos"]
    assert not (root / "meta/worldaction.json").exists()
    source = open_source(root)
    (block,) = source.blocks(0, image_size=0)
    assert block[ACTION][[0, -1]].tolist() == [[-89, 11], [91, 81]]
    assert source.layout.absolute


def test_success_is_in_the_last_row_and_failures_have_their_sentence_too(tmp_path: Path) -> None:
    root = write(tmp_path / "set", False, True, None)
    table = parquet.read_table(root / "data/chunk-000/file-000.parquet")
    assert np.flatnonzero(table["next.success"].to_numpy()).tolist() == [2 * FRAMES - 1]
    attempts = [segment for episode in open_source(root).episodes for segment in episode.segments]
    assert [(one.task, one.success) for one in attempts] == [
        ("wave at the people", False),
        ("wave at the people", True),
        ("wave at the people", False),
    ]


def test_without_the_column_it_is_not_said_how_attempts_ended(tmp_path: Path) -> None:
    root = write(tmp_path / "set", False, True, tells_success=False)
    assert "next.success" not in read_json(root / "meta/info.json")["features"]
    attempts = [segment for episode in open_source(root).episodes for segment in episode.segments]
    assert [(one.task, one.success) for one in attempts] == [("wave at the people", None)] * 2


def test_numbers_that_are_none_are_refused_as_everywhere(tmp_path: Path) -> None:
    writer = RobotSetWriter(tmp_path / "set", TWO_JOINTS, layout=LAYOUT, rate=15)
    writer.begin_episode(kind="demo")
    with pytest.raises(UserError, match="NaN or infinity"):
        writer.append(
            {
                "front": pictures(1, 32),
                "wrist": pictures(1, 16),
                ROBOT: np.zeros((1, 2)),
                ACTION: np.full((1, 2), np.nan),
            }
        )
    writer.abandon()

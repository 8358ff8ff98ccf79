"""LeRobot sets of both versions are read as their documentation says, and what is missing or damaged is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_sets import LENGTHS, TASKS, Episodes, encode, ramp, write_v21, write_v30

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.convert import convert
from worldaction.play.images import area_mean, centre_square
from worldaction.play.layout import Segment
from worldaction.play.readers.lerobot import LeRobotSource
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("av")

WRITERS: dict[str, Callable[..., Episodes]] = {"2.1": write_v21, "3.0": write_v30}


def joined(made: Episodes, key: str) -> np.ndarray:
    return np.concatenate([episode[key] for episode in made])


def check_frames(store: PlayStore, made: Episodes, size: int) -> None:
    for key in (spec.ROBOT, spec.SCENE, spec.ACTION):
        np.testing.assert_array_equal(store.frames[key], joined(made, key))
    for camera in ("top", "wrist"):
        np.testing.assert_array_equal(store.frames[camera], area_mean(centre_square(joined(made, camera)), size))


@pytest.mark.parametrize(
    ("names", "absolute"),
    [
        (["shoulder.pos", "elbow.pos", "gripper.pos"], True),
        ({"motors": ["shoulder.pos", "elbow.pos", "gripper.pos"]}, True),
        (["shoulder.pos", "elbow.vel", "gripper.pos"], False),
        (["delta_x", "delta_y", "gripper"], False),
        ([], False),
        (None, False),
    ],
)
def test_actions_that_are_called_positions_are_absolute(tmp_path: Path, names: Any, absolute: bool) -> None:
    write_v30(tmp_path / "set", videos=False)
    path = tmp_path / "set/meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["action"]["names"] = names
    path.write_text(json.dumps(info))
    assert open_source(tmp_path / "set").layout.absolute is absolute


@pytest.mark.parametrize("videos", [True, False])
@pytest.mark.parametrize("version", ["2.1", "3.0"])
def test_frames_episodes_tasks_and_splits_come_over(tmp_path: Path, version: str, videos: bool) -> None:
    made = WRITERS[version](tmp_path / "set", videos=videos)
    source = open_source(tmp_path / "set")
    assert (source.format, source.rate, source.image_size) == (f"LeRobot {version}", 10, 16)
    assert source.layout == spec.Layout(("top", "wrist"), 4, 2, 3, (0.0, 0.0, 0.0))
    store = convert(source, tmp_path / "store", image_size=8)
    check_frames(store, made, 8)
    assert [(e.length, e.kind, e.split) for e in store.episodes] == [
        (5, "demo", "training"),
        (3, "demo", "training"),
        (6, "demo", "validation"),
    ]
    drawer, push = TASKS
    runs = [Segment(drawer, 0, 5), Segment(drawer, 5, 6), Segment(push, 6, 8), Segment(push, 8, 14)]
    assert store.segments == runs
    assert store.meta.source == "lerobot"


@pytest.mark.parametrize("version", ["2.1", "3.0"])
def test_reading_may_begin_at_any_frame(tmp_path: Path, version: str) -> None:
    made = WRITERS[version](tmp_path / "set")
    source = open_source(tmp_path / "set")
    for number, length in enumerate(LENGTHS):
        for start in range(length):
            parts = list(source.blocks(number, image_size=16, start=start))
            for key in (spec.ACTION, "wrist"):
                np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), made[number][key][start:])


def test_without_images_no_video_is_opened(tmp_path: Path) -> None:
    made = write_v30(tmp_path / "set")
    shutil.rmtree(tmp_path / "set/videos")
    (block,) = open_source(tmp_path / "set").blocks(2, image_size=0)
    assert set(block) == {spec.ROBOT, spec.SCENE, spec.ACTION}
    np.testing.assert_array_equal(block[spec.ACTION], made[2][spec.ACTION])


def test_long_videos_with_few_key_frames_are_found_from_any_frame(tmp_path: Path) -> None:
    write_v21(tmp_path / "set")
    path = tmp_path / "set/videos/chunk-000/observation.images.wrist/episode_000002.mp4"
    made = ramp(7, 6, 16, 16)
    encode(path, made, 10, {"qp": "0", "g": "100", "bf": "2"})
    for start in range(6):
        (block,) = open_source(tmp_path / "set").blocks(2, image_size=16, start=start)
        np.testing.assert_array_equal(block["wrist"], made[start:])


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_feature_that_serves_as_action_can_be_chosen(tmp_path: Path) -> None:
    made = write_v21(tmp_path / "set")
    source = LeRobotSource(tmp_path / "set", action="observation.state", state="absent")
    assert (source.layout.action, source.layout.robot) == (4, 0)
    (block,) = source.blocks(0, image_size=0)
    np.testing.assert_array_equal(block[spec.ACTION], made[0][spec.ROBOT])
    with pytest.raises(UserError, match="did you mean 'action'"):
        LeRobotSource(tmp_path / "set", action="actions")


def test_depth_maps_are_no_cameras_and_names_become_keys(tmp_path: Path) -> None:
    write_v21(tmp_path / "set")
    found = json.loads((tmp_path / "set/meta/info.json").read_text())["features"]
    found["observation.images.top"]["info"]["video.is_depth_map"] = True
    found["observation.images.arm-left.rgb"] = found.pop("observation.images.wrist")
    edit_info(tmp_path / "set", features=found)
    assert open_source(tmp_path / "set").layout.cameras == ("arm_left_rgb",)


def test_success_is_what_the_frames_say(tmp_path: Path) -> None:
    write_v21(tmp_path / "set", videos=False)
    found = json.loads((tmp_path / "set/meta/info.json").read_text())["features"]
    edit_info(tmp_path / "set", features={**found, "next.success": {"dtype": "bool", "shape": [1]}})
    for number, length in enumerate(LENGTHS):
        path = tmp_path / f"set/data/chunk-000/episode_{number:06d}.parquet"
        said = pa.array(np.arange(length) == (length - 1 if number else -1))
        parquet.write_table(parquet.read_table(path).append_column("next.success", said), path)
    segments = [segment for e in open_source(tmp_path / "set").episodes for segment in e.segments]
    assert [segment.success for segment in segments] == [False, False, True, True]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(column: str, values: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        whole = parquet.read_table(path)
        at = whole.column_names.index(column)
        parquet.write_table(whole.set_column(at, column, pa.array(values)), path)

    return damage


def drop(column: str) -> Callable[[Path], None]:
    return lambda path: parquet.write_table(parquet.read_table(path).drop_columns([column]), path)


def shorten(path: Path) -> None:
    parquet.write_table(parquet.read_table(path)[:-1], path)


ROWS = "data/chunk-000/episode_000000.parquet"
FILM = "videos/chunk-000/observation.images.top/episode_000000.mp4"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (ROWS, Path.unlink, "is missing"),
        (ROWS, cut, "is damaged"),
        (ROWS, shorten, "ends 1 frames too early"),
        (ROWS, drop("action"), "has no column action"),
        (ROWS, change("frame_index", [0, 1, 3, 4, 5]), r"has \[0, 3\] where frame 2 of episode 0 should be"),
        (ROWS, change("episode_index", [0, 0, 1, 1, 1]), "where frame 2 of episode 0"),
        (ROWS, change("action", [[0.0] * 3] * 4 + [[np.nan] * 3]), "action of episode 0 holds NaN"),
        (ROWS, change("action", [[0.0] * 3] * 4 + [[0.0] * 2]), "action is damaged .lists are missing or differ"),
        (ROWS, change("action", [[0.0] * 3] * 4 + [None]), "action is damaged"),
        (ROWS, change("action", [[0.0] * 4] * 5), r"action of episode 0 is float64 \(5, 4\)"),
        (ROWS, change("action", ["a"] * 5), "action of episode 0 is object"),
        (FILM, Path.unlink, "is missing"),
        (FILM, cut, "is damaged"),
        (FILM, lambda path: encode(path, ramp(0, 4, 16, 24), 10), "ends after 4 of 5 frames"),
        (FILM, lambda path: encode(path, ramp(0, 5, 16, 24), 5), "frame 1 at 0.100 s is not there"),
        (FILM, lambda path: encode(path, ramp(0, 5, 16, 16), 10), r"has images \(16, 16, 3\), info.json says"),
    ],
)
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    write_v21(tmp_path / "set")
    damage(tmp_path / "set" / name)
    with pytest.raises(UserError, match=rf"{Path(name).name}.*{message}"):
        convert(open_source(tmp_path / "set", strict=True), tmp_path / "store", image_size=8, strict=True)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, "version 'v1.6'; versions v2.0, v2.1, v3.0 are read"),
        ({"fps": 0}, "fps is 0"),
        ({"features": {}}, "unknown feature"),
        ({"total_frames": 15}, "says 3 episodes of 15 frames, the list of episodes beside it has 3 of 14"),
        ({"data_path": "../other/{episode_index}"}, "leads out of the folder"),
        ({"data_path": "{episode_index.__class__}"}, "data_path is"),
        ({"data_path": 3}, "data_path is 3"),
        ({"splits": {"val": "x"}}, "is damaged"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_v21(tmp_path / "set")
    edit_info(tmp_path / "set", **changes)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "set", strict=True)


def test_an_episode_that_the_list_leaves_out_is_missed(tmp_path: Path) -> None:
    write_v30(tmp_path / "set")
    path = tmp_path / "set/meta/episodes/chunk-000/file-000.parquet"
    parquet.write_table(parquet.read_table(path)[:2], path)
    with pytest.raises(UserError, match=r"says 3 episodes of 14 frames, .* has 2 of 8"):
        open_source(tmp_path / "set", strict=True)
    shutil.rmtree(path.parent)
    with pytest.raises(UserError, match="holds no parquet files"):
        open_source(tmp_path / "set")


def test_images_outside_of_the_rows_or_of_another_size_are_refused(tmp_path: Path) -> None:
    write_v21(tmp_path / "set", videos=False)
    path = tmp_path / "set" / ROWS
    whole = path.read_bytes()
    for bad, message in (
        ({"bytes": None, "path": "/etc/passwd"}, "holds no image bytes"),
        ({"bytes": b"no image", "path": ""}, "is damaged"),
        ({"bytes": whole[:10], "path": ""}, "is damaged"),
    ):
        path.write_bytes(whole)
        change("observation.images.top", [bad] * 5)(path)
        with pytest.raises(UserError, match=message):
            list(open_source(tmp_path / "set").blocks(0, image_size=8))


def test_torchrl_reads_the_same_numbers_from_the_same_columns(tmp_path: Path) -> None:
    replay = pytest.importorskip("torchrl.data.datasets.lerobot")
    write_v21(tmp_path / "set", videos=False)
    whole = parquet.read_table(tmp_path / "set" / ROWS)
    columns = {name: torch.tensor(whole[name].to_pylist()) for name in ("action", "observation.state")}
    theirs = replay.lerobot_columns_to_tensordict(columns)
    (ours,) = open_source(tmp_path / "set").blocks(0, image_size=0)
    np.testing.assert_array_equal(theirs["action"], ours[spec.ACTION])
    np.testing.assert_array_equal(theirs["observation", "state"], ours[spec.ROBOT])

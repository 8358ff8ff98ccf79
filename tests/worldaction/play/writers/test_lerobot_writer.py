"""Written LeRobot sets keep to the documented schema, and every frame is found by the rule of LeRobot's own reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listed_source import ListedSource, episode, pictures, robot, small_set

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json
from worldaction.play import lerobot_layout
from worldaction.play.layout import Segment
from worldaction.play.lerobot_layout import EXTRA, Extra, read_extra, write_extra
from worldaction.play.writers import lerobot as lerobot_writer
from worldaction.play.writers import lerobot_video
from worldaction.play.writers.base import copy
from worldaction.play.writers.lerobot import LeRobotWriter
from worldaction.play.writers.lerobot_stats import count_levels, image_stats, merge, vector_stats

av = pytest.importorskip("av")
parquet = pytest.importorskip("pyarrow.parquet")

LENGTHS = [70, 20, 31]
BOUND = 33
"""PSNR of the worst frame of small smooth pictures (dB)."""
TOLERANCE = 1e-4
"""How far LeRobot lets a frame be from the time it is asked for (s)."""


def write(path: Path, listed: ListedSource, **options: Any) -> Path:
    with LeRobotWriter(path, layout=listed.layout, **options) as sink:
        copy(listed, sink, image_size=listed.image_size)
    return path


def rows(root: Path, folder: str) -> list[dict[str, Any]]:
    return [row for path in sorted((root / folder).rglob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def found(root: Path, video: str, seconds: float) -> np.ndarray:
    """The frame nearest to a time, as LeRobot looks for it: from the key frame before, compared in float32."""
    with av.open(str(root / video)) as container:
        stream = container.streams.video[0]
        container.seek(round(seconds / stream.time_base) - 1, backward=True, any_frame=False, stream=stream)
        near = []
        for frame in container.decode(stream):
            at = float(frame.pts * stream.time_base)
            near.append((abs(np.float32(at) - np.float32(seconds)), frame.to_ndarray(format="rgb24")))
            if at >= seconds:
                break
    apart, image = min(near, key=lambda pair: pair[0])
    assert apart <= TOLERANCE
    return image


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(((one.astype(float) - other) ** 2).mean())
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def check_every_frame(root: Path, source: ListedSource, bound: float) -> None:
    """LeRobot's way to each frame: the row, its episode's description, the video's file, the time in it."""
    described = rows(root, "meta/episodes")
    for row in rows(root, "data"):
        one = described[row["episode_index"]]
        for camera in source.layout.cameras:
            name = f"videos/observation.images.{camera}"
            file = f"{name}/chunk-{one[f'{name}/chunk_index']:03d}/file-{one[f'{name}/file_index']:03d}.mp4"
            seconds = one[f"{name}/from_timestamp"] + float(np.float32(row["timestamp"]))
            assert seconds <= one[f"{name}/to_timestamp"]
            recorded = source.arrays[row["episode_index"]][camera][row["frame_index"]]
            assert psnr(recorded, found(root, file, seconds)) >= bound


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sentences = {"open_drawer": "pull the handle"}
    path = tmp_path_factory.mktemp("lerobot") / "set"
    return write(path, small_set(), sentences=sentences, source="list", renderer="waves")


def test_rows_hold_the_vectors_to_the_bit_and_count_frames_episodes_and_seconds(root: Path) -> None:
    source, table = small_set(), rows(root, "data")
    names = {spec.ROBOT: "observation.state", spec.SCENE: "observation.environment_state", spec.ACTION: "action"}
    for key, name in names.items():
        expected = np.concatenate([arrays[key] for arrays in source.arrays]).astype(np.float32)
        np.testing.assert_array_equal(np.array([row[name] for row in table], np.float32), expected)
    frames = [(e, f) for e, length in enumerate(LENGTHS) for f in range(length)]
    assert [(row["episode_index"], row["frame_index"]) for row in table] == frames
    assert [row["index"] for row in table] == list(range(sum(LENGTHS)))
    times = np.array([f / 30 for _, f in frames], np.float32)
    np.testing.assert_array_equal(np.array([row["timestamp"] for row in table], np.float32), times)


def test_types_of_the_columns_are_those_that_the_description_gives(root: Path) -> None:
    features = read_json(root / "meta/info.json")["features"]
    schema = parquet.read_schema(root / "data/chunk-000/file-000.parquet")
    in_rows = {name: feature for name, feature in features.items() if feature["dtype"] != "video"}
    assert set(schema.names) == set(in_rows)
    for name, feature in in_rows.items():
        (size,) = feature["shape"]
        dtype = feature["dtype"].replace("float32", "float")
        wanted = dtype if size == 1 else f"fixed_size_list<element: {dtype}>[{size}]"
        assert str(schema.field(name).type) == wanted


def test_the_description_has_the_entries_of_version_3(root: Path) -> None:
    info = read_json(root / "meta/info.json")
    assert {key: info[key] for key in info if key != "features"} == {
        "codebase_version": "v3.0",
        "fps": 30,
        "total_episodes": 3,
        "total_frames": 121,
        "total_tasks": 3,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "robot_type": None,
        "splits": {"train": "0:3"},
    }
    camera = info["features"]["observation.images.rgb_static"]
    assert (camera["dtype"], camera["shape"], camera["names"]) == (
        "video",
        [16, 16, 3],
        ["height", "width", "channels"],
    )
    assert camera["info"]["video.codec"] == "h264"
    assert camera["info"]["video.fps"] == 30
    assert all(
        len(f["names"]) == f["shape"][0] for f in info["features"].values() if f["names"] and len(f["shape"]) == 1
    )


def test_every_frame_is_found_where_lerobot_looks_for_it(root: Path) -> None:
    check_every_frame(root, small_set(), bound=BOUND)


def test_lossless_video_keeps_every_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = episode(12) | {spec.STATIC: rng.integers(0, 256, (12, 15, 15, 3), np.uint8)}
    arrays[spec.GRIPPER] = arrays[spec.STATIC][::-1]
    source = ListedSource([arrays])
    check_every_frame(write(tmp_path / "set", source, video="lossless"), source, bound=np.inf)


@pytest.mark.parametrize("video", ["h264-420", "av1"])
def test_other_codecs_can_be_chosen(tmp_path: Path, video: str) -> None:
    if lerobot_video.CODECS[video].name not in av.codecs_available:
        pytest.skip(f"this PyAV cannot encode {video}")
    source = ListedSource([episode(12, size=64)])
    check_every_frame(write(tmp_path / "set", source, video=video), source, bound=25)


def test_a_frame_has_the_task_of_the_later_successful_segment_or_play(root: Path) -> None:
    table = parquet.read_table(root / "meta/tasks.parquet").to_pydict()
    names = dict(zip(table["task_index"], table["task"], strict=True))
    assert sorted(names) == [0, 1, 2]
    said = [names[row["task_index"]] for row in rows(root, "data")]
    first = 3 * ["play"] + 27 * ["pull the handle"] + 35 * ["turn on led"] + 5 * ["play"]
    assert said == first + 20 * ["play"] + 31 * ["pull the handle"]
    assert [row["tasks"] for row in rows(root, "meta/episodes")] == [
        ["play", "pull the handle", "turn on led"], ["play"], ["pull the handle"],
    ]  # fmt: skip


def test_pandas_is_told_that_the_sentence_is_the_index_of_a_task(root: Path) -> None:
    note = json.loads(parquet.read_schema(root / "meta/tasks.parquet").metadata[b"pandas"])
    assert note["index_columns"] == ["task"]
    assert [column["name"] for column in note["columns"]] == ["task_index", "task"]


def test_descriptions_of_episodes_join_without_gaps(root: Path) -> None:
    table, frame = rows(root, "meta/episodes"), 0
    for number, (row, length) in enumerate(zip(table, LENGTHS, strict=True)):
        assert (row["episode_index"], row["length"]) == (number, length)
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (frame, frame + length)
        for camera in spec.CAMERAS:
            name = f"videos/observation.images.{camera}"
            assert row[f"{name}/from_timestamp"] == pytest.approx(frame / 30)
            assert row[f"{name}/to_timestamp"] == pytest.approx((frame + length) / 30)
        frame += length


def test_statistics_are_those_of_all_frames(root: Path) -> None:
    source, stats, table = small_set(), read_json(root / "meta/stats.json"), rows(root, "meta/episodes")
    state = np.concatenate([a[spec.ROBOT] for a in source.arrays]).astype(np.float32).astype(np.float64)
    image = np.concatenate([a[spec.STATIC] for a in source.arrays]) / 255
    for name, values, axes in (("observation.state", state, 0), ("observation.images.rgb_static", image, (0, 1, 2))):
        for key, function in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
            expected = function(values, axis=axes)
            given = np.array(stats[name][key])
            assert given.shape == (expected.shape if values.ndim == 2 else (3, 1, 1))
            np.testing.assert_allclose(given.ravel(), expected, atol=1e-9)
        assert stats[name]["count"] == [121]
        assert (np.array(stats[name]["q01"]) <= np.array(stats[name]["q50"])).all()
    second = source.arrays[1][spec.ACTION].astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(table[1]["stats/action/q10"], np.quantile(second, 0.1, axis=0))
    assert table[1]["stats/observation.images.rgb_gripper/count"] == [20]


def test_merged_statistics_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(3, 2, (5000, 4))
    merged, whole = merge(vector_stats(values[:1300]), vector_stats(values[1300:])), vector_stats(values)
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], whole[name])
    # quantiles of the whole lie inside those that are kept, up to how they are interpolated
    assert (merged["q10"] <= whole["q10"] + 0.01).all()
    assert (merged["q90"] >= whole["q90"] - 0.01).all()


def test_statistics_of_images_are_taken_from_every_pixel() -> None:
    images = np.random.default_rng(1).integers(20, 90, (5, 7, 6, 3), np.uint8)
    stats, pixels = image_stats(count_levels(images), 5), images.reshape(-1, 3) / 255
    np.testing.assert_allclose(stats["mean"].ravel(), pixels.mean(0))
    np.testing.assert_allclose(stats["std"].ravel(), pixels.std(0))
    for name, q in (("min", 0.0), ("max", 1.0), ("q50", 0.5), ("q99", 0.99)):
        wanted = np.quantile(pixels, q, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(stats[name].ravel(), wanted)


def test_files_are_bounded_and_frames_are_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_video, "SECONDS", 1.0)
    monkeypatch.setattr(lerobot_layout, "CHUNK_FILES", 2)
    monkeypatch.setattr(lerobot_writer, "TABLE_MEGABYTES", 1e-6)
    monkeypatch.setattr(lerobot_writer, "EPISODES_AT_ONCE", 2)
    source = ListedSource([episode(length, seed=i) for i, length in enumerate((40, 20, 20, 35, 5))])
    root = write(tmp_path / "set", source)
    videos = sorted(
        p.relative_to(root / "videos/observation.images.rgb_static").as_posix() for p in root.glob("videos/*static/*/*")
    )
    assert videos == [
        "chunk-000/file-000.mp4",
        "chunk-000/file-001.mp4",
        "chunk-001/file-000.mp4",
        "chunk-001/file-001.mp4",
    ]
    assert len(list(root.glob("data/*/*.parquet"))) == 5
    table = rows(root, "meta/episodes")
    assert [row["data/chunk_index"] for row in table] == [0, 0, 1, 1, 2]
    assert [(row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]) for row in table] == [
        (0, 0), (0, 0), (0, 1), (0, 1), (1, 0),
    ]  # fmt: skip
    check_every_frame(root, source, bound=BOUND)


def test_sets_without_cameras_and_with_single_numbers_are_written(tmp_path: Path) -> None:
    layout = spec.Layout((), robot=3, scene=0, action=1, null_action=(0.0,))
    arrays = {spec.ACTION: np.linspace(-1, 1, 9)[:, None], spec.ROBOT: np.ones((9, 3))}
    root = write(tmp_path / "set", ListedSource([arrays], layout=layout), rate=20)
    table = rows(root, "data")
    assert [row["action"] for row in table] == pytest.approx(np.linspace(-1, 1, 9))
    assert table[8]["timestamp"] == pytest.approx(0.4)
    info = read_json(root / "meta/info.json")
    assert info["video_path"] is None
    assert info["features"]["action"]["shape"] == [1]


# ---- what LeRobot has no place for


def test_kinds_splits_scenes_and_segments_come_back_from_the_extra_file(root: Path) -> None:
    extra = read_extra(root, LENGTHS)
    assert extra is not None
    source = small_set()
    assert extra.layout == source.layout
    assert list(zip(extra.kind, extra.split, extra.scene, strict=True)) == [
        (r.kind, r.split, r.scene) for r in source.episodes
    ]
    assert [tuple(segments) for segments in extra.segments] == [r.segments for r in source.episodes]
    assert (extra.source, extra.renderer) == ("list", "waves")


def test_a_set_of_others_has_no_extra_file(tmp_path: Path) -> None:
    assert read_extra(tmp_path, [3]) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "worldaction extra 9"}, "is damaged"),
        ({"layout": {"cameras": []}}, "is damaged"),
        ({"segments": [["x"]]}, "is damaged"),
        ({"kind": ["play", "play"]}, "kind has 2 entries, the set 1 episodes"),
        ({"kind": ["film"]}, r"kind\[0\] is 'film', not one of play, near_miss, demo"),
        ({"scene": [3]}, r"scene\[0\] is 3, not text"),
        (
            {"segments": [[{"task": "lift", "start": 0, "stop": 4, "success": True}]]},
            r"segment lift \(0 to 4\) lies outside",
        ),
        (
            {"segments": [[{"task": "lift", "start": 0.5, "stop": 2, "success": True}]]},
            r"segments\[0\]\[0\].start is 0.5, not a whole number",
        ),
        (
            {"segments": [[{"task": "lift", "start": 0, "stop": 2, "success": "no"}]]},
            r"success is 'no', not true or false",
        ),
    ],
)
def test_a_damaged_extra_file_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_extra(tmp_path, Extra(spec.CALVIN, ["play"], ["training"], ["D"], [[Segment("lift", 0, 3)]]))
    assert read_extra(tmp_path, [3]) is not None
    write_json(tmp_path / EXTRA, read_json(tmp_path / EXTRA) | change)
    with pytest.raises(UserError, match=rf"worldaction\.json.*{message}"):
        read_extra(tmp_path, [3])


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 29.97}, "a whole number of frames per second, not 29.97"),
        ({"rate": 0}, "a whole number of frames per second, not 0"),
        ({"video": "h265"}, "unknown video 'h265'"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LeRobotWriter(tmp_path / "set", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_codec_for_even_sides_refuses_odd_ones_and_leaves_nothing(tmp_path: Path) -> None:
    source = ListedSource(
        [robot(3) | {spec.STATIC: pictures(3, 15)}], layout=replace(spec.CALVIN, cameras=(spec.STATIC,))
    )
    with pytest.raises(UserError, match="images of 15 x 15 pixels; yuv420p needs even sides"):
        write(tmp_path / "set", source, video="h264-420")
    assert list(tmp_path.iterdir()) == []

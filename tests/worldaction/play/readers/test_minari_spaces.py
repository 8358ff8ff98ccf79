"""Minari's spaces that are no Box of numbers, its pictures in other orders, and its Arrow files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from foreign_sets import box, ramp

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.convert import convert
from worldaction.play.images import area_mean, centre_square
from worldaction.play.readers.source import Source, open_source

h5py = pytest.importorskip("h5py")
STEPS = 4


def write(root: Path, spaces: dict[str, Any], seen: dict[str, Any], *, jpeg: bool = False) -> Source:
    """A set of one episode with these observations [STEPS + 1, ...], or a list of files."""
    (root / "data").mkdir(parents=True)
    about = {
        "total_episodes": 1, "data_format": "hdf5", "jpeg_encoding": jpeg,
        "observation_space": json.dumps({"type": "Dict", "subspaces": spaces}),
        "action_space": json.dumps(box([2], "float32", -1, 1)),
    }  # fmt: skip
    (root / "data/metadata.json").write_text(json.dumps(about))
    with h5py.File(root / "data/main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["actions"] = np.zeros((STEPS, 2), np.float32)
        for name, value in seen.items():
            if isinstance(value, list):
                kept = group.create_dataset(f"observations/{name}", (STEPS + 1,), h5py.vlen_dtype(np.uint8))
                for row, data in enumerate(value):
                    kept[row] = np.frombuffer(data, np.uint8)
            else:
                group[f"observations/{name}"] = value
    return open_source(root)


def test_discrete_and_binary_observations_are_numbers(tmp_path: Path) -> None:
    spaces = {
        "a": {"type": "Discrete", "dtype": "int64", "start": 0, "n": 9},
        "b": {"type": "MultiBinary", "n": 2},
        "c": {"type": "MultiDiscrete", "dtype": "int64", "nvec": [3, 4], "start": [0, 0]},
        "d": box([1], "float32"),
    }
    gate, toggles, choices = np.arange(5), np.eye(5, 2, dtype=np.int8), np.arange(10).reshape(5, 2) % 3
    seen = {"a": gate, "b": toggles, "c": choices, "d": np.full((5, 1), 0.5, np.float32)}
    source = write(tmp_path / "set", spaces, seen)
    (block,) = source.blocks(0, image_size=0)
    np.testing.assert_array_equal(block[spec.ROBOT], np.column_stack([gate, toggles, choices, seen["d"]]))


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((3, 16, 24), lambda pictures: np.moveaxis(pictures, 3, 1)),
        ((16, 24, 3), lambda pictures: pictures),
        ((16, 24, 1), lambda pictures: pictures[..., :1]),
        ((1, 16, 24), lambda pictures: pictures[None, ..., 0].swapaxes(0, 1)),
        ((16, 24), lambda pictures: pictures[..., 0]),
    ],
)
def test_pictures_are_cameras_wherever_their_channels_are(tmp_path: Path, shape: tuple[int, ...], order: Any) -> None:
    pictures = ramp(1, STEPS + 1, 16, 24)
    if 3 not in shape:
        pictures = pictures[..., :1].repeat(3, axis=3)
    source = write(
        tmp_path / "set", {"view": box(shape, "uint8", 0, 255), "state": box([2])},
        {"view": order(pictures), "state": np.zeros((STEPS + 1, 2))},
    )  # fmt: skip
    assert (source.layout.cameras, source.layout.robot, source.image_size) == (("view",), 2, 16)
    (block,) = source.blocks(0, image_size=8, start=2)
    np.testing.assert_array_equal(block["view"], area_mean(centre_square(pictures[2:]), 8))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_that_are_kept_as_jpeg_may_be_grey(tmp_path: Path, channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = ramp(1, STEPS + 1, 40, 32)
    shape = (40, 32, 3) if channels == 3 else (40, 32)
    files = []
    for picture in pictures:
        image.fromarray(picture if channels == 3 else picture[..., 0]).save(tmp_path / "one.jpg", quality=95)
        files.append((tmp_path / "one.jpg").read_bytes())
    source = write(tmp_path / "set", {"view": box(shape, "uint8", 0, 255)}, {"view": files}, jpeg=True)
    (block,) = source.blocks(0, image_size=None)
    wanted = pictures if channels == 3 else pictures[..., :1].repeat(3, axis=3)
    assert np.abs(block["view"].astype(int) - centre_square(wanted)).mean() < 9


def test_what_is_not_read_is_named_and_never_thousands_of_numbers(tmp_path: Path) -> None:
    spaces = {
        "words": {"type": "Text", "max_length": 9, "min_length": 0, "charset": "abc"},
        "stack": box([4, 16, 16], "uint8", 0, 255),
        "float": box([3, 16, 16], "float32", 0, 1),
        "graph": {"type": "Graph"},
        "state": box([2]),
    }
    seen = {"state": np.zeros((STEPS + 1, 2)), "stack": np.zeros((STEPS + 1, 4, 16, 16), np.uint8)}
    source = write(tmp_path / "set", spaces, seen)
    assert (source.layout.cameras, source.layout.robot) == ((), 2)
    left_out: tuple[str, ...] = getattr(source, "left_out", ())
    assert [line.partition(" ")[0] for line in left_out] == ["words", "stack", "float", "graph"]
    assert "only pictures of bytes with one or three channels are read" in left_out[1]


def arrow_set(root: Path, *, parquet: bool = False) -> list[dict[str, np.ndarray]]:
    """A set as Minari's ArrowStorage writes it: observations and actions of one length, the last action a filler."""
    pa = pytest.importorskip("pyarrow")
    (root / "data").mkdir(parents=True)
    spaces = {
        "pixels": box([16, 16, 3], "uint8", 0, 255),
        "arm": {"type": "Tuple", "subspaces": [box([2], "float32"), {"type": "Discrete", "n": 9, "dtype": "int64"}]},
    }
    about = {
        "total_episodes": 2, "data_format": "parquet" if parquet else "arrow", "jpeg_encoding": True,
        "observation_space": json.dumps({"type": "Dict", "subspaces": spaces}),
        "action_space": json.dumps(box([3], "float32", -1, 1)), "env_spec": json.dumps({"id": "Reach-v1"}),
    }  # fmt: skip
    (root / "data/metadata.json").write_text(json.dumps(about))
    made = []
    for number in range(2):
        rng, folder = np.random.default_rng(number), root / "data" / str(number)
        folder.mkdir()
        pixels = ramp(number, STEPS + 1, 16, 16)
        place, choice = rng.normal(size=(STEPS + 1, 2)).astype(np.float32), rng.integers(0, 9, STEPS + 1)
        action = rng.uniform(-1, 1, (STEPS + 1, 3)).astype(np.float32)
        action[-1] = 0

        def lists(values: np.ndarray) -> Any:
            flat = values.reshape(len(values), -1)
            return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])

        arm = pa.StructArray.from_arrays([lists(place), pa.array(choice)], names=["0", "1"])
        success = pa.array([bool(number), False, False, False, bool(number)])
        batch = pa.RecordBatch.from_pydict(
            {
                "observations": pa.StructArray.from_arrays([arm, lists(pixels)], names=["arm", "pixels"]),
                "actions": lists(action),
                "rewards": pa.array(np.zeros(STEPS + 1)),
                "infos": pa.StructArray.from_arrays([success], names=["success"]),
            }
        )
        if parquet:
            pytest.importorskip("pyarrow.parquet").write_table(
                pa.Table.from_batches([batch]), folder / "part-0.parquet"
            )
        else:
            with pa.OSFile(str(folder / "part-0.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(batch)
        (folder / "metadata.json").write_text(json.dumps({"id": number}))
        made.append({"pixels": pixels, spec.ROBOT: np.column_stack([place, choice]), spec.ACTION: action})
    return made


@pytest.mark.parametrize("parquet", [False, True])
def test_arrow_files_are_read_as_hdf5_is(tmp_path: Path, parquet: bool) -> None:
    made = arrow_set(tmp_path / "set", parquet=parquet)
    source = open_source(tmp_path / "set")
    assert source.layout == spec.Layout(("pixels",), 3, 0, 3, (0.0,) * 3)
    assert [s.success for e in source.episodes for s in e.segments] == [False, True]
    store = convert(source, tmp_path / "store", image_size=16)
    for key in ("pixels", spec.ROBOT, spec.ACTION):
        np.testing.assert_array_equal(store.frames[key], np.concatenate([e[key] for e in made]).astype(np.float32))


def test_damaged_arrow_files_are_left_out(tmp_path: Path) -> None:
    arrow_set(tmp_path / "set")
    path = tmp_path / "set/data/0/part-0.arrow"
    path.write_bytes(path.read_bytes()[:100])
    source = open_source(tmp_path / "set")
    assert len(source.episodes) == 1
    assert "data/0 is damaged" in source.skipped[0]
    path.unlink()
    with pytest.raises(UserError, match=r"data/0 holds no file \*\.arrow; copy the set again"):
        open_source(tmp_path / "set", strict=True)


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
def test_what_the_real_package_writes_is_read(tmp_path: Path, kind: str) -> None:
    storage = pytest.importorskip("minari.dataset.minari_storage")
    buffer = pytest.importorskip("minari.data_collector.episode_buffer")
    spaces = gymnasium.spaces
    observations = spaces.Dict(
        {
            "chw": spaces.Box(0, 255, (3, 20, 24), np.uint8),
            "grey": spaces.Box(0, 255, (20, 24), np.uint8),
            "which": spaces.Discrete(5),
            "on": spaces.MultiBinary(2),
            "pair": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([3, 4]))),
        }
    )
    action = spaces.Box(-1, 1, (3,), np.float32)
    rng, pictures = np.random.default_rng(0), ramp(0, STEPS + 1, 20, 24)
    seen = {
        "chw": np.ascontiguousarray(np.moveaxis(pictures, 3, 1)),
        "grey": np.ascontiguousarray(pictures[..., 0]),
        "which": np.arange(5),
        "on": np.eye(5, 2, dtype=np.int8),
        "pair": (rng.uniform(-1, 1, (5, 2)).astype(np.float32), np.arange(10).reshape(5, 2) % 3),
    }
    actions = rng.uniform(-1, 1, (STEPS, 3)).astype(np.float32)
    steps = {"rewards": [0.0] * 3 + [1.0], "terminations": [False] * 4, "truncations": [False] * 3 + [True]}
    made = buffer.EpisodeBuffer(id=None, observations=seen, actions=actions, infos={}, **steps)
    (tmp_path / "set/data").mkdir(parents=True)
    new = storage.MinariStorage.new(tmp_path / "set/data", observations, action, data_format=kind)
    new.update_episodes([made])
    source = open_source(tmp_path / "set")
    assert (source.layout.cameras, source.layout.robot) == (("chw", "grey"), 7)
    assert [s.success for e in source.episodes for s in e.segments] == [True]
    (block,) = source.blocks(0, image_size=None)
    np.testing.assert_array_equal(block["chw"], centre_square(pictures))
    np.testing.assert_array_equal(block[spec.ACTION][:STEPS], actions)
    numbers = np.column_stack([seen["on"], *seen["pair"], seen["which"]]).astype(np.float32)
    np.testing.assert_array_equal(block[spec.ROBOT], numbers)

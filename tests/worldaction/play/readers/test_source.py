"""A data set's format is found by its look, stores are data sets like others, and scaled actions say so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from foreign_sets import episodes, write_minari, write_robomimic, write_v21, write_v30

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.action_scaling import RECORDED, Scaled, scale_to_range
from worldaction.play.convert import convert, frames
from worldaction.play.images import area_mean, centre_square
from worldaction.play.layout import Segment
from worldaction.play.readers.source import FORMATS, open_source, recognise
from worldaction.play.store import PlayStore, StoreWriter

LAYOUT = spec.Layout(("wrist",), 4, 2, 3, (0.0, 0.5, 0.0), binary=(2,))


def write_store(path: Path, *, lengths: tuple[int, ...] = (5, 3), config: dict[str, object] | None = None) -> PlayStore:
    with StoreWriter(
        path, image_size=16, source="test", renderer="none", seed=4, config=config, layout=LAYOUT
    ) as writer:
        for number, made in enumerate(episodes(lengths, cameras={"wrist": (16, 16)})):
            split: spec.Split = "validation" if number else "training"
            writer.add_episode(made, kind="near_miss", split=split, scene="A", segments=[Segment("lift", 1, 3, False)])
    return PlayStore.open(path)


MAKERS: dict[str, Callable[[Path], object]] = {
    "lerobot": write_v30,
    "robomimic": write_robomimic,
    "minari": write_minari,
    "store": write_store,
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_format_is_found_by_its_look_alone_and_one_folder_away(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sets" / "one.hdf5"
    path.parent.mkdir()
    MAKERS[name](path)
    assert recognise(path) == name
    if path.is_dir():
        with pytest.raises(UserError, match=rf"has none of the formats .*; did you mean {path}\?"):
            open_source(path.parent)


def test_what_has_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is nothing at"):
        open_source(tmp_path / "absent")
    (tmp_path / "a.hdf5").write_bytes(b"no HDF5")
    for path in (tmp_path, tmp_path / "a.hdf5"):
        with pytest.raises(UserError, match="has none of the formats calvin, store, lerobot, robomimic, minari; see"):
            open_source(path)
    with pytest.raises(UserError, match="unknown format 'lerobo'; did you mean 'lerobot'"):
        open_source(tmp_path, format="lerobo")
    with pytest.raises(UserError, match=r"info\.json is missing"):
        open_source(tmp_path, format="lerobot")


def test_options_are_those_of_the_format(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    with pytest.raises(UserError, match="the format store has no options; leave language out"):
        open_source(tmp_path / "s", language="lang_x")
    write_robomimic(tmp_path / "r.hdf5")
    with pytest.raises(UserError, match="unknown option of the format robomimic 'robots'; did you mean 'robot'"):
        open_source(tmp_path / "r.hdf5", robots="x")


@pytest.mark.parametrize(
    ("package", "write"), [("pyarrow", write_v21), ("h5py", write_minari), ("h5py", write_robomimic)]
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, write: Callable[[Path], object]
) -> None:
    write(tmp_path / "set.hdf5")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'needs {package}; run pip install "worldaction\[data\]"'):
        open_source(tmp_path / "set.hdf5")


def test_readers_are_imported_without_the_optional_packages() -> None:
    import subprocess

    names = [target.partition(":")[0] for target in FORMATS.values()]
    code = f"import sys; import {', '.join(names)}; print({{'pyarrow', 'av', 'h5py', 'PIL'}} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() in ("set()", "{'PIL'}")


def test_a_store_is_a_source_that_gives_back_what_it_holds(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", config={"note": 1, "rate": 12.5})
    source = open_source(tmp_path / "s")
    assert (source.layout, source.image_size, source.rate, frames(source)) == (LAYOUT, 16, 12.5, 8)
    copy = convert(source, tmp_path / "copy", image_size=16)
    assert (copy.meta, copy.episodes, copy.segments) == (store.meta, store.episodes, store.segments)
    for key, value in store.frames.items():
        np.testing.assert_array_equal(value, copy.frames[key])
    small = convert(source, tmp_path / "small", image_size=4)
    np.testing.assert_array_equal(small.frames["wrist"], area_mean(store.frames["wrist"].numpy(), 4))


def test_squares_are_cut_from_the_middle() -> None:
    images = np.arange(2 * 3 * 6 * 3, dtype=np.uint8).reshape(2, 3, 6, 3)
    np.testing.assert_array_equal(centre_square(images), images[:, :, 1:4])
    np.testing.assert_array_equal(centre_square(images.swapaxes(1, 2)), images.swapaxes(1, 2)[:, 1:4])


# --- scaled actions


def absolute(path: Path) -> list[np.ndarray]:
    """A LeRobot set whose actions are joint angles, of which the last never moves."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    made = write_v30(path, videos=False)
    actions = []
    for name, numbers in (("file-000", (0, 1)), ("file-001", (2,))):
        whole = parquet.read_table(path / f"data/chunk-000/{name}.parquet")
        moved = np.concatenate([made[n][spec.ACTION] for n in numbers]) * [3, 0.5, 0] + [7, 0, 2]
        actions += list(moved.astype(np.float32))
        at = whole.column_names.index("action")
        column = pa.array([row.tolist() for row in moved], pa.list_(pa.float32()))
        parquet.write_table(whole.set_column(at, "action", column), path / f"data/chunk-000/{name}.parquet")
    return actions


def test_actions_out_of_range_are_refused_until_they_are_scaled(tmp_path: Path) -> None:
    actions = np.stack(absolute(tmp_path / "set")).astype(np.float64)
    source = open_source(tmp_path / "set")
    with pytest.raises(UserError, match=r"action reaches \d.*--scale minmax"):
        convert(source, tmp_path / "s", image_size=8)
    store = convert(scale_to_range(source), tmp_path / "s", image_size=8)
    found = store.frames[spec.ACTION].double().numpy()
    assert found[:, :2].min(0).tolist() == [-1, -1]
    assert found[:, :2].max(0).tolist() == [1, 1]
    assert (found[:, 2] == 0).all()
    recorded = store.meta.config[RECORDED]
    low, high = np.array(recorded["low"]), np.array(recorded["high"])
    np.testing.assert_allclose(low + (found + 1) * (high - low) / 2, actions, atol=1e-5)


def test_scaling_happens_once_and_not_for_nothing(tmp_path: Path) -> None:
    absolute(tmp_path / "set")
    convert(scale_to_range(open_source(tmp_path / "set")), tmp_path / "s", image_size=8)
    with pytest.raises(UserError, match="its actions were scaled already"):
        scale_to_range(open_source(tmp_path / "s"))
    write_store(tmp_path / "unit")
    with pytest.raises(UserError, match=r"lie in \[-1, 1\] already"):
        scale_to_range(open_source(tmp_path / "unit"))
    for low, high in (([0, 0], [1, 1]), ([0, 0, 2], [1, 1, 1]), ([0, 0, np.nan], [1, 1, 1])):
        with pytest.raises(UserError, match="do not bound its actions"):
            Scaled(open_source(tmp_path / "unit"), np.array(low), np.array(high))


def test_the_null_action_is_scaled_too_and_a_sign_that_scaling_moves_is_no_command(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    source = open_source(tmp_path / "s")
    kept = Scaled(source, np.array([-2, 0, -2]), np.array([2, 1, 2])).layout
    assert (kept.null_action, kept.binary) == ((0.0, 0.0, 0.0), (2,))
    assert Scaled(source, np.array([-2, 0, -2]), np.array([2, 1, 4])).layout.binary == ()

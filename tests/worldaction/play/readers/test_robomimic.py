"""robomimic files are read demo by demo; what their masks, rewards and arguments say comes over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_sets import Episodes, write_robomimic

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.convert import convert
from worldaction.play.images import area_mean, centre_square
from worldaction.play.layout import Segment
from worldaction.play.readers.robomimic import RobomimicSource
from worldaction.play.readers.source import open_source

h5py = pytest.importorskip("h5py")


def joined(made: Episodes, key: str) -> np.ndarray:
    return np.concatenate([episode[key] for episode in made])


def test_demos_come_over_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    made = write_robomimic(tmp_path / "set.hdf5")
    source = open_source(tmp_path / "set.hdf5")
    assert (source.format, source.rate, source.image_size) == ("robomimic HDF5", 20, 16)
    assert source.layout == spec.Layout(("agentview", "robot0_eye_in_hand"), 4, 2, 3, (0.0,) * 3)
    store = convert(source, tmp_path / "store", image_size=8)
    for key in (spec.ROBOT, spec.SCENE, spec.ACTION):
        np.testing.assert_array_equal(store.frames[key], joined(made, key))
    np.testing.assert_array_equal(store.frames["agentview"], area_mean(centre_square(joined(made, "agentview")), 8))
    assert [(e.length, e.kind, e.split) for e in store.episodes] == [
        (5, "demo", "training"),
        (3, "demo", "training"),
        (6, "demo", "validation"),
    ]
    assert store.segments == [
        Segment("Lift", 0, 5, success=True),
        Segment("Lift", 5, 8, success=True),
        Segment("Lift", 8, 14, success=False),
    ]


def test_states_can_be_chosen_and_keep_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    made = write_robomimic(tmp_path / "set.hdf5")
    source = RobomimicSource(tmp_path / "set.hdf5", robot="robot0_gripper_qpos robot0_eef_pos", scene="")
    (block,) = source.blocks(1, image_size=0, start=1)
    np.testing.assert_array_equal(block[spec.ROBOT], np.roll(made[1][spec.ROBOT], 1, axis=1)[1:])
    assert spec.SCENE not in block
    with pytest.raises(UserError, match="did you mean 'robot0_eef_pos'"):
        RobomimicSource(tmp_path / "set.hdf5", robot="robot_eef_pos")
    with pytest.raises(UserError, match="has no array actions_abs"):
        RobomimicSource(tmp_path / "set.hdf5", action="actions_abs")


@pytest.mark.parametrize(("delta", "absolute"), [(True, False), (False, True), (None, False)])
def test_a_controller_that_was_told_poses_makes_absolute_actions(
    tmp_path: Path, delta: bool | None, absolute: bool
) -> None:
    write_robomimic(tmp_path / "set.hdf5")
    with h5py.File(tmp_path / "set.hdf5", "a") as file:
        about = json.loads(file["data"].attrs["env_args"])
        about["env_kwargs"]["controller_configs"] = {} if delta is None else {"control_delta": delta}
        file["data"].attrs["env_args"] = json.dumps(about)
        for name in ("demo_0", "demo_2", "demo_10"):
            file["data"][name]["actions_abs"] = file["data"][name]["actions"][:]
    assert open_source(tmp_path / "set.hdf5").layout.absolute is absolute
    # by its name in robomimic's own sets
    assert RobomimicSource(tmp_path / "set.hdf5", action="actions_abs").layout.absolute


def replaced(name: str, value: Any) -> Callable[[Any], None]:
    def damage(file: Any) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replaced("data/demo_2/actions", None), "data/demo_2 has no array actions"),
        (replaced("data/demo_2/obs/object", None), "data/demo_2 has no array object"),
        (replaced("data/demo_2/actions", np.zeros((4, 3))), r"data/demo_2 has arrays of \[3, 4\] frames"),
        (replaced("data/demo_2/actions", np.zeros((3, 4))), "data/demo_2 has other sizes than data/demo_0"),
        (replaced("data/demo_2/actions", np.full((3, 3), np.nan)), "data/demo_2/actions holds NaN"),
        (replaced("data/demo_2/obs/agentview_image", np.zeros((3, 16, 24, 3))), "agentview_image is float64"),
        (replaced("data/demo_2/obs", None), r"data/demo_2 has no observations \(obs\)"),
        (replaced("data", None), "has no group data"),
    ],
)
def test_a_demo_that_does_not_fit_is_named(tmp_path: Path, damage: Callable[[Any], None], message: str) -> None:
    write_robomimic(tmp_path / "set.hdf5")
    with h5py.File(tmp_path / "set.hdf5", "a") as file:
        damage(file)
    with pytest.raises(UserError, match=rf"set\.hdf5.*{message}"):
        convert(RobomimicSource(tmp_path / "set.hdf5", strict=True), tmp_path / "store", image_size=8, strict=True)


def test_values_that_are_kept_in_other_files_are_refused(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "set.hdf5")
    (tmp_path / "secret").write_bytes(bytes(1000))
    with h5py.File(tmp_path / "set.hdf5", "a") as file:
        del file["data/demo_0/actions"]
        outside = [(str(tmp_path / "secret"), 0, 120)]
        file.create_dataset("data/demo_0/actions", (5, 3), "f8", external=outside)
    with pytest.raises(UserError, match="keeps its values in other files"):
        RobomimicSource(tmp_path / "set.hdf5")

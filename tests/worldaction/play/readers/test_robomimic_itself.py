"""With the robomimic package: what it makes of a file is what we read, and what its tools write is read by us.

We write nothing in this format; `write_robomimic` stands in for it elsewhere, and here its own reader says how well.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_sets import LENGTHS, Episodes, write_robomimic

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.readers.robomimic import RobomimicSource
from worldaction.play.readers.source import open_source

h5py = pytest.importorskip("h5py")
# it says on the way that macros have not been set up
with contextlib.redirect_stdout(io.StringIO()):
    pytest.importorskip("robomimic.utils.dataset", reason="the robomimic package is not installed here")
    from robomimic.scripts.split_train_val import split_train_val_from_hdf5
    from robomimic.utils import file_utils, obs_utils
    from robomimic.utils.dataset import SequenceDataset

DEMOS = ("demo_0", "demo_2", "demo_10")
STATES = ("robot0_eef_pos", "robot0_gripper_qpos")
CAMERAS = ("agentview_image", "robot0_eye_in_hand_image")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Episodes]:
    path = tmp_path / "set.hdf5"
    return path, write_robomimic(path)


def as_robomimic_reads(path: Path, filter_key: str | None = None) -> list[dict[str, Any]]:
    """Its own items, a frame each."""
    obs_utils.initialize_obs_utils_with_obs_specs(
        obs_modality_specs={"obs": {"low_dim": [*STATES, "object"], "rgb": list(CAMERAS)}}
    )
    keys = (*STATES, "object", *CAMERAS)
    data = SequenceDataset(
        hdf5_path=str(path),
        obs_keys=keys,
        dataset_keys=("actions", "rewards"),
        hdf5_use_swmr=False,
        filter_by_attribute=filter_key,
        load_next_obs=False,
    )
    return [data[index] for index in range(len(data))]


def ours(path: Path, episodes: Sequence[int]) -> dict[str, np.ndarray]:
    """Frames of some demos, the pictures as recorded."""
    source = open_source(path)
    blocks = [block for number in episodes for block in source.blocks(number, image_size=None)]
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


@pytest.mark.parametrize(("split", "which"), [("train", "training"), ("valid", "validation")])
def test_its_own_reader_gives_the_same_frames_of_each_split(
    made: tuple[Path, Episodes], split: str, which: str
) -> None:
    path, _ = made
    episodes = [n for n, one in enumerate(open_source(path).episodes) if one.split == which]
    found, theirs = ours(path, episodes), as_robomimic_reads(path, split)
    assert len(theirs) == len(found[spec.ACTION]) > 0
    state = np.stack([np.concatenate([one["obs"][key][0] for key in STATES]) for one in theirs])
    np.testing.assert_allclose(found[spec.ROBOT], state, atol=1e-6)
    np.testing.assert_allclose(found[spec.SCENE], [one["obs"]["object"][0] for one in theirs], atol=1e-6)
    np.testing.assert_allclose(found[spec.ACTION], [one["actions"][0] for one in theirs], atol=1e-6)
    # theirs are as recorded; the square in the middle is ours
    pictures = np.stack([one["obs"]["agentview_image"][0] for one in theirs])
    assert pictures.shape[1:] == (16, 24, 3)
    np.testing.assert_array_equal(found["agentview"], pictures[:, :, 4:20])
    wrist = np.stack([one["obs"]["robot0_eye_in_hand_image"][0] for one in theirs])
    np.testing.assert_array_equal(found["robot0_eye_in_hand"], wrist)


def test_success_is_where_its_own_rewards_are_one(made: tuple[Path, Episodes]) -> None:
    path, _ = made
    rewards = np.split([one["rewards"][0] for one in as_robomimic_reads(path)], np.cumsum(LENGTHS)[:-1])
    assert [one.segments[0].success for one in open_source(path).episodes] == [bool(max(each)) for each in rewards]


def test_the_environment_is_what_its_own_tools_say(made: tuple[Path, Episodes]) -> None:
    path, _ = made
    about = file_utils.get_env_metadata_from_dataset(dataset_path=str(path))
    source = open_source(path)
    assert source.episodes[0].segments[0].task == about["env_name"]
    assert source.rate == about["env_kwargs"]["control_freq"]


@pytest.mark.parametrize("seed", range(3))
def test_a_split_by_its_own_script_is_the_split_that_is_read(made: tuple[Path, Episodes], seed: int) -> None:
    path, _ = made
    np.random.seed(seed)  # noqa: NPY002 - its script draws from the global generator
    with contextlib.redirect_stdout(io.StringIO()):
        split_train_val_from_hdf5(hdf5_path=str(path), val_ratio=0.4)
    held = set(file_utils.get_demos_for_filter_key(str(path), "valid"))
    assert len(held) == 1
    read = {name: one.split for name, one in zip(DEMOS, open_source(path).episodes, strict=True)}
    assert {name for name, split in read.items() if split == "validation"} == held


def test_a_filter_of_its_own_tools_that_is_no_split_changes_nothing(made: tuple[Path, Episodes]) -> None:
    path, _ = made
    before = open_source(path).episodes
    file_utils.create_hdf5_filter_key(hdf5_path=str(path), demo_keys=["demo_0"], key_name="better")
    assert open_source(path).episodes == before


def test_what_its_script_makes_of_a_raw_recording_has_no_observations_and_is_refused_with_the_way_out(
    made: tuple[Path, Episodes],
) -> None:
    path, _ = made
    with h5py.File(path, "a") as file:
        data = file["data"]
        data.attrs["env"], data.attrs["repository_version"] = "Lift", "1.4.1"
        data.attrs["env_info"] = json.dumps({"control_freq": 20})
        del data.attrs["env_args"], file["mask"]
        for name in DEMOS:
            del data[name]["obs"]
            data[name].attrs["model_file"] = "<mujoco/>"
    script = [sys.executable, "-m", "robomimic.scripts.conversion.convert_robosuite", "--dataset", str(path)]
    said = subprocess.run(script, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    with pytest.raises(UserError, match=r"has no observations .*robomimic's dataset_states_to_obs script"):
        RobomimicSource(path)
    # its environment was kept by the script as we read it
    with h5py.File(path, "a") as file:
        for name in DEMOS:
            file["data"][name]["obs/eef"] = np.zeros((len(file["data"][name]["actions"]), 3))
    source = open_source(path)
    assert (source.rate, source.episodes[0].segments[0].task) == (20, "Lift")


def test_its_own_script_describes_a_file_that_we_read(made: tuple[Path, Episodes]) -> None:
    path, _ = made
    script = [sys.executable, "-m", "robomimic.scripts.get_dataset_info", "--dataset", str(path)]
    said = subprocess.run(script, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    source = open_source(path)
    assert f"total trajectories: {len(source.episodes)}" in said.stdout
    assert f"total transitions: {sum(one.length for one in source.episodes)}" in said.stdout

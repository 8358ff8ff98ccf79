"""Minari sets are read without Minari: those written by hand, and those that the real package wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from foreign_sets import box, ramp, write_minari

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.convert import convert
from worldaction.play.images import area_mean, centre_square
from worldaction.play.layout import Segment
from worldaction.play.readers.source import open_source

h5py = pytest.importorskip("h5py")


def test_every_observation_is_kept_and_the_last_one_is_no_example_of_acting(tmp_path: Path) -> None:
    made = write_minari(tmp_path / "set")
    source = open_source(tmp_path / "set")
    assert source.layout == spec.Layout(("pixels",), 4, 0, 3, (0.0,) * 3)
    store = convert(source, tmp_path / "store", image_size=8)
    assert [e.length for e in store.episodes] == [5, 3, 6]
    for key in (spec.ROBOT, spec.ACTION):
        np.testing.assert_array_equal(store.frames[key], np.concatenate([e[key] for e in made]))
    pixels = np.concatenate([e["pixels"] for e in made])
    np.testing.assert_array_equal(store.frames["pixels"], area_mean(centre_square(pixels), 8))
    reach = "Reach-v1"
    assert store.segments == [
        Segment(reach, 0, 4, success=False),
        Segment(reach, 5, 7, success=True),
        Segment(reach, 8, 13, success=True),
    ]


def test_reading_may_begin_at_any_frame(tmp_path: Path) -> None:
    made = write_minari(tmp_path / "set")
    for start in range(3):
        (block,) = open_source(tmp_path / "set").blocks(1, image_size=16, start=start)
        np.testing.assert_array_equal(block[spec.ACTION], made[1][spec.ACTION][start:])
        np.testing.assert_array_equal(block[spec.ROBOT], made[1][spec.ROBOT][start:])


def test_sets_of_the_real_package_are_read(tmp_path: Path) -> None:
    storage = pytest.importorskip("minari.dataset.minari_storage")
    buffer = pytest.importorskip("minari.data_collector.episode_buffer")
    spaces = gymnasium.spaces
    state = spaces.Dict({"b": spaces.Box(-1, 1, (2,)), "a": spaces.Box(-1, 1, (3, 2), np.float64)})
    large, small = spaces.Box(0, 255, (40, 48, 3), np.uint8), spaces.Box(0, 255, (8, 8, 3), np.uint8)
    observations = spaces.Dict({"large": large, "small": small, "state": state})
    rng = np.random.default_rng(0)
    episodes = []
    for seed in range(2):
        vectors = {"b": rng.uniform(-1, 1, (5, 2)), "a": rng.uniform(-1, 1, (5, 3, 2))}
        seen = {"large": ramp(seed, 5, 40, 48), "small": ramp(seed + 9, 5, 8, 8), "state": vectors}
        steps = {"rewards": [0.0] * 4, "terminations": [False] * 4, "truncations": [False] * 3 + [True]}
        infos = {"success": np.arange(5) * seed > 3}
        actions = rng.uniform(-1, 1, (4, 3)).astype(np.float32)
        episodes.append(
            buffer.EpisodeBuffer(id=None, seed=seed, observations=seen, actions=actions, infos=infos, **steps)
        )
    (tmp_path / "set/data").mkdir(parents=True)
    action = spaces.Box(-1, 1, (3,), np.float32)
    written = storage.MinariStorage.new(tmp_path / "set/data", observation_space=observations, action_space=action)
    written.update_episodes(episodes)

    source = open_source(tmp_path / "set")
    assert source.layout == spec.Layout(("large", "small"), 8, 0, 3, (0.0,) * 3)
    assert [s.success for e in source.episodes for s in e.segments] == [False, True]
    for number, episode in enumerate(episodes):
        (block,) = source.blocks(number, image_size=8)
        flat = np.concatenate([episode.observations["state"]["a"].reshape(5, 6), episode.observations["state"]["b"]], 1)
        np.testing.assert_allclose(block[spec.ROBOT], flat, rtol=1e-6)
        np.testing.assert_array_equal(block[spec.ACTION][:4], episode.actions)
        np.testing.assert_array_equal(block["small"], episode.observations["small"])
        # what Minari keeps as JPEG has lost a little
        large_images = area_mean(centre_square(episode.observations["large"]), 8)
        assert np.abs(block["large"].astype(int) - large_images).mean() < 4


def edit(root: Path, **changes: Any) -> None:
    path = root / "data/metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DISCRETE = json.dumps({"type": "Discrete", "n": 4, "start": 0, "dtype": "int64"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_space": DISCRETE}, "actions are Discrete; only a Box"),
        ({"observation_space": None}, "metadata.json is damaged"),
        ({"data_format": "zarr"}, "the data are in 'zarr'"),
        ({"total_episodes": 4}, "holds 3 episodes, the description says 4"),
        ({"action_space": json.dumps(box([2]))}, r"episode_0 has actions \(4, 3\), not \(T, 2\)"),
        ({"observation_space": json.dumps(box([3]))}, "observations"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_minari(tmp_path / "set")
    edit(tmp_path / "set", **changes)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "set", strict=True)


def test_an_episode_with_too_few_observations_is_named(tmp_path: Path) -> None:
    write_minari(tmp_path / "set")
    with h5py.File(tmp_path / "set/data/main_data.hdf5", "a") as file:
        states = file["episode_1/observations/state"][:-1]
        del file["episode_1/observations/state"]
        file["episode_1/observations/state"] = states
    with pytest.raises(UserError, match=r"episode_1: observations/state is \(2, 3\), not \(3, 3\)"):
        open_source(tmp_path / "set", strict=True)

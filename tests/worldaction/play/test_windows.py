"""Windows are uniform, stay inside their episode, keep every frame as it is, and go on after a restart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.store import Episode, PlayStore, StoreWriter
from worldaction.play.windows import WindowSampler, window_batches


def numbered_store(path: Path, lengths: tuple[int, ...], validation: tuple[int, ...] = ()) -> PlayStore:
    """A store in which robot_obs[0] is the number of the frame."""
    number = 0
    with StoreWriter(path, image_size=2, source="test", renderer="none") as out:
        for i, length in enumerate(lengths):
            robot = np.zeros((length, 15), np.float32)
            robot[:, 0] = np.arange(number, number + length)
            number += length
            arrays = {
                spec.STATIC: np.full((length, 2, 2, 3), i, np.uint8),
                spec.ROBOT: robot,
                spec.SCENE: np.zeros((length, 24)),
                spec.ACTION: np.full((length, 7), i / 100),
            }
            out.add_episode(arrays, kind="play", split="validation" if i in validation else "training")
    return PlayStore.open(path)


def test_every_window_is_consecutive_frames_of_one_episode(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "s", (7, 3, 5, 4))
    batches = window_batches(store, batch=64, length=4, seed=0)
    batch = batches.sample()
    assert batch.shape == (64, 4)
    number = batch[spec.ROBOT][..., 0].long()
    assert torch.equal(number, number[:, :1] + torch.arange(4))
    assert (batch[spec.EPISODE] == batch[spec.EPISODE][:, :1]).all()
    for key, value in batch.items():
        assert torch.equal(value, store.frames[key][number]), key


def test_all_windows_are_equally_likely() -> None:
    # 4 + 1 + 2 windows of 4 frames; the second episode is too short
    episodes = [Episode(0, 7), Episode(7, 3), Episode(10, 4), Episode(14, 5)]
    sampler = WindowSampler(episodes, length=4, seed=1)
    assert sampler.windows == 7
    draws = 14_000
    index, _ = sampler.sample(None, draws * 4)
    counts = Counter(index.view(-1, 4)[:, 0].tolist())
    assert set(counts) == {0, 1, 2, 3, 10, 14, 15}
    chi_square = sum((n - draws / 7) ** 2 / (draws / 7) for n in counts.values())
    assert chi_square < 22.5  # 6 degrees of freedom, p = 0.001


def test_episodes_shorter_than_a_window_are_counted_and_none_usable_is_an_error(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "s", (7, 3, 5))
    assert window_batches(store, batch=2, length=5, seed=0).skipped_frames == 3
    with pytest.raises(UserError, match="the longest of 3 episodes has 7"):
        window_batches(store, batch=2, length=8, seed=0)


def test_a_window_as_long_as_its_episode_is_found(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "s", (6,))
    batch = window_batches(store, batch=3, length=6, seed=0).sample()
    assert batch[spec.ROBOT][..., 0].tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def test_only_episodes_of_the_split_are_drawn(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "s", (9, 9, 9), validation=(1,))
    drawn = {
        split: set(
            window_batches(store, batch=99, length=3, seed=0, split=split).sample()[spec.EPISODE].flatten().tolist()
        )
        for split in ("training", "validation")
    }
    assert drawn == {"training": {0, 2}, "validation": {1}}
    with pytest.raises(UserError, match="no validation episodes"):
        window_batches(numbered_store(tmp_path / "t", (9,)), batch=1, length=3, seed=0, split="validation")


def test_a_restored_sampler_draws_the_same_batches(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "s", (50, 30))
    batches = window_batches(store, batch=8, length=5, seed=2)
    batches.sample()
    state = batches.state_dict()
    expected = [batches.sample() for _ in range(3)]
    other = window_batches(store, batch=8, length=5, seed=77)
    other.load_state_dict(state)
    for batch in expected:
        assert (other.sample() == batch).all()


def test_the_seed_alone_decides_the_batches_whatever_else_is_random(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "s", (50, 30))
    one = window_batches(store, batch=8, length=5, seed=2)
    two = window_batches(store, batch=8, length=5, seed=2)
    first = one.sample()
    torch.rand(3)
    assert (two.sample() == first).all()
    assert not (one.sample()[spec.ROBOT] == first[spec.ROBOT]).all()


def test_keys_that_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "s", (9,))
    batch = window_batches(store, batch=2, length=3, seed=0, keys=(spec.ACTION, spec.IS_INIT)).sample()
    assert set(batch.keys()) == {spec.ACTION, spec.IS_INIT}


def test_a_batch_may_be_changed_without_changing_the_store(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "s", (9,))
    batch = window_batches(store, batch=2, length=3, seed=0).sample()
    batch[spec.ACTION] += 1.0
    assert (store.frames[spec.ACTION] == 0).all()


def test_the_state_survives_torchrls_own_saving(tmp_path: Path) -> None:
    episodes = [Episode(0, 100)]
    sampler = WindowSampler(episodes, length=4, seed=1)
    sampler.dumps(tmp_path)
    expected, _ = sampler.sample(None, 40)
    other = WindowSampler(episodes, length=4, seed=5)
    other.loads(tmp_path)
    assert torch.equal(other.sample(None, 40)[0], expected)

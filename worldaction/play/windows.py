"""Uniform sampling of fixed-length windows from a play store, through TorchRL's replay buffer.

TorchRL's `SliceSampler` draws an episode first, so the frames of short episodes come too often, and it marks the start
of every slice as an episode start. This one is uniform over all windows inside one episode, and changes nothing.

Measured on one core, 16 windows of 24 frames with two 32 x 32 cameras: 1.2 ms through TorchRL's storage, which indexes,
0.2 ms through `FrameStorage`, which selects whole rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import TensorDictReplayBuffer, TensorStorage
from torchrl.data.replay_buffers.samplers import Sampler
from torchrl.data.replay_buffers.storages import Storage

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io.atomic import load_checkpoint, save_checkpoint
from worldaction.play.store import Episode, PlayStore


class WindowSampler(Sampler):
    """Draws windows of `length` frames, each window inside one episode, all of them equally likely.

    A TorchRL sampler for a storage of frames: a batch of `n` frames is `n / length` windows.

    Args:
        episodes: where the episodes lie in the storage.
        length: frames T of a window.
        seed: of the sampler's own generator.

    Attributes:
        skipped_frames: frames of episodes that are shorter than a window.

    Raises:
        UserError: no episode is long enough.
    """

    def __init__(self, episodes: Sequence[Episode], *, length: int, seed: int) -> None:
        usable = [episode for episode in episodes if episode.length >= length]
        if length < 1 or not usable:
            longest = max((episode.length for episode in episodes), default=0)
            raise UserError(f"no window of {length} frames fits: the longest of {len(episodes)} episodes has {longest}")
        self.length = length
        self.skipped_frames = sum(episode.length for episode in episodes) - sum(e.length for e in usable)
        self._first = torch.tensor([episode.start for episode in usable])
        # windows up to and including each episode
        self._cumulative = torch.tensor([episode.length - length + 1 for episode in usable]).cumsum(0)
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def windows(self) -> int:
        """How many different windows there are."""
        return int(self._cumulative[-1])

    def sample(self, storage: Storage | None, batch_size: int) -> tuple[Tensor, dict[str, Any]]:
        """Frame numbers of the next batch, window after window.

        Args:
            storage: not used; windows are known from the episodes.
            batch_size: frames in the batch, a multiple of `length`.

        Returns:
            [batch_size] int64, and no further information.
        """
        if batch_size % self.length:
            raise UserError(f"a batch of {batch_size} frames is no whole number of windows of {self.length}")
        chosen = torch.randint(self.windows, (batch_size // self.length,), generator=self._generator)
        episode = torch.searchsorted(self._cumulative, chosen, right=True)
        # counted from the last window backwards, so that no window count before the episode is needed
        start = self._first[episode] + self._cumulative[episode] - 1 - chosen
        # [B, T]
        index = start[:, None] + torch.arange(self.length)
        return index.flatten(), {}

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as the sampler did that gave this state."""
        self._generator.set_state(state_dict["generator"])

    def dumps(self, path: Path | str) -> None:
        """Save the state in a folder, for TorchRL."""
        save_checkpoint(Path(path) / "windows.safetensors", self.state_dict())

    def loads(self, path: Path | str) -> None:
        """Load the state that `dumps` saved."""
        self.load_state_dict(load_checkpoint(Path(path) / "windows.safetensors").state)

    def _empty(self) -> None:
        """TorchRL empties a sampler with its buffer; a play store is never emptied."""


class FrameStorage(TensorStorage):
    """Read-only storage of frames: selects rows, five times as fast as TorchRL's indexing."""

    def get(self, index: Tensor) -> TensorDict:
        """The frames with the numbers `index` [n], as a TensorDict [n]."""
        rows = {key: value.index_select(0, index) for key, value in self._storage.items()}
        return TensorDict(rows, batch_size=index.shape)


class WindowBatches:
    """Batches of windows, the same ones again after `load_state_dict`; made by `window_batches`.

    Args:
        buffer: frames behind a `WindowSampler`.
        batch: windows B per batch.
    """

    def __init__(self, buffer: TensorDictReplayBuffer, *, batch: int) -> None:
        self.buffer = buffer
        self.batch = batch

    @property
    def sampler(self) -> WindowSampler:
        """What draws the windows."""
        sampler: WindowSampler = self.buffer.sampler
        return sampler

    @property
    def skipped_frames(self) -> int:
        """Frames of episodes that are too short for a window."""
        return self.sampler.skipped_frames

    def sample(self) -> TensorDict:
        """The next batch, a TensorDict [B, T]."""
        frames: TensorDict = self.buffer.sample()
        return frames.exclude("index").reshape(self.batch, self.sampler.length)

    def state_dict(self) -> dict[str, Any]:
        """Where the order of batches stands, for `save_checkpoint`."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.sampler.load_state_dict(state)


def window_batches(
    store: PlayStore,
    *,
    batch: int,
    length: int,
    seed: int,
    split: spec.Split = "training",
    keys: Sequence[str] | None = None,
    also: Mapping[str, Tensor] | None = None,
) -> WindowBatches:
    """Batches of windows from a store, uniform over all windows of the split.

    Args:
        store: the frames.
        batch: windows B per batch.
        length: frames T per window.
        seed: of the order.
        split: which episodes.
        keys: which keys of the store; all by default. Images that nobody looks at need not be read.
        also: further rows [N, ...] by key, of the store's frames.

    Raises:
        UserError: no episode of the split is long enough.
    """
    episodes = [episode for episode in store.episodes if episode.split == split]
    if not episodes:
        raise UserError(f"{store.path} has no {split} episodes; hold some out when the data are made")
    frames = store.frames if keys is None else store.frames.select(*keys)
    if also:
        frames = TensorDict({**dict(frames.items()), **also}, frames.batch_size)
    sampler = WindowSampler(episodes, length=length, seed=seed)
    buffer = TensorDictReplayBuffer(storage=FrameStorage(frames), sampler=sampler, batch_size=batch * length)
    return WindowBatches(buffer, batch=batch)

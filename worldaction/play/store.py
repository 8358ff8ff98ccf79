"""The play store: frames as a memory-mapped TensorDict, with the episodes and annotated segments they form.

Layout: `frames/<key>.memmap` are raw arrays [N, ...] with tensordict's `meta.json` beside them, and `store.json` holds
the rest. A store is written under `<path>.partial` and renamed when it is whole. Every reader and the generator write
through `StoreWriter`; training reads through `PlayStore`.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction import spec
from worldaction.errors import UserError, unknown
from worldaction.io.files import sha256_of
from worldaction.io.sealed_json import read_json
from worldaction.play.layout import Description, Episode, Segment, StoreMeta, read_description, recorded, rows
from worldaction.play.writers.store import StoreWriter
from worldaction.spec import Kind

__all__ = ["Episode", "Kind", "PlayStore", "Segment", "Statistics", "StoreMeta", "StoreWriter", "concatenate"]

# frames handled at once, where a whole store or episode may not fit into memory
BLOCK = 4096


class Statistics(NamedTuple):
    """Of `robot_obs`, for normalisation."""

    mean: Tensor
    """[15] float32."""
    std: Tensor
    """[15] float32, never below 1e-4, so that a number that never moves can be divided by it."""


class PlayStore:
    """Frames on disk, mapped into memory: opening costs nothing, and rows are read as they are used.

    Use `PlayStore.open(path)`.

    Attributes:
        path: the folder.
        frames: TensorDict [N] with the keys of `spec.py`. A private map: writing to it never reaches the disk.
        episodes: in the order of their frames, without gaps.
        segments: annotated frame ranges.
        meta: where the frames come from.
    """

    def __init__(self, path: Path, frames: TensorDict, description: Description) -> None:
        self.path = path
        self.frames = frames
        self.meta = description.meta
        self.episodes = description.episodes
        self.segments = description.segments
        self.checksums = description.checksums
        self._starts = [episode.start for episode in self.episodes]

    @classmethod
    def open(cls, path: Path | str) -> PlayStore:
        """Open a store and check everything but the checksums, for which there is `verify`.

        Raises:
            UserError: a file is missing, truncated or contradicts the others; a vector holds NaN.
        """
        path = Path(path)
        if not path.is_dir():
            partial = path.with_name(path.name + ".partial").exists()
            hint = "its making was interrupted, start it again" if partial else "generate or convert the data first"
            raise UserError(f"there is no play store at {path}; {hint}")
        description = read_description(path)
        frames = _map_frames(path / "frames", description)
        store = cls(path, frames, description)
        store._check_values()
        return store

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    def __repr__(self) -> str:
        """What it holds, in a few lines."""
        meta = self.meta
        kinds, splits = (Counter(getattr(e, name) for e in self.episodes) for name in ("kind", "split"))
        side = f", {meta.image_size} x {meta.image_size} pixels" if meta.cameras else ""
        lines = {
            "episodes": f"{_counts(kinds)}; {_counts(splits)}",
            "cameras": f"{', '.join(meta.cameras) or 'none'}{side}",
            "numbers": ", ".join(f"{key} [{size}]" for key, size in meta.layout.vectors.items()),
            "tasks": ", ".join(self.tasks) or "none annotated",
        }
        head = f"PlayStore at {self.path}: {len(self):,} frames from {meta.source}"
        return "\n".join([head, *(f"  {name:<10}{text}" for name, text in lines.items())])

    @property
    def tasks(self) -> list[str]:
        """The tasks that have segments, sorted."""
        return sorted({segment.task for segment in self.segments})

    def episode_of(self, frame: int) -> Episode:
        """The episode in which a frame lies."""
        return self.episodes[bisect.bisect_right(self._starts, frame) - 1]

    def demonstrations(
        self, task: str, *, successful: bool = True, kind: Kind | None = None, split: spec.Split | None = None
    ) -> list[Segment]:
        """The segments in which a task is done.

        Args:
            task: its name.
            successful: leave out those that failed or of which nobody knows.
            kind: only those in episodes of this kind.
            split: only those in episodes of this split.

        Raises:
            UserError: the store has no segment of this task at all.
        """
        if task not in (tasks := self.tasks):
            raise unknown(f"task in {self.path}", task, tasks) if tasks else UserError(f"{self.path} has no segments")
        return [
            segment
            for segment in self.segments
            if segment.task == task
            and (segment.success or not successful)
            and kind in (None, self.episode_of(segment.start).kind)
            and split in (None, self.episode_of(segment.start).split)
        ]

    def statistics(self) -> Statistics:
        """Mean and standard deviation of `robot_obs` over all frames."""
        values = self.frames[spec.ROBOT]
        mean = sum(block.double().sum(0) for block in values.split(BLOCK)) / len(values)
        variance = sum((block.double() - mean).square().sum(0) for block in values.split(BLOCK)) / len(values)
        return Statistics(mean.float(), variance.sqrt().clamp(min=1e-4).float())

    def verify(self) -> None:
        """Read every byte and compare with the checksums taken when the store was written.

        Raises:
            UserError: a file has changed since.
        """
        for name, checksum in self.checksums.items():
            if sha256_of(self.path / name) != checksum:
                raise UserError(f"{self.path / name} has changed since it was written; make the store again")

    def _check_values(self) -> None:
        starts = self.frames[spec.IS_INIT].nonzero()[:, 0].tolist()
        if starts != self._starts:
            raise UserError(f"{self.path}/frames/{spec.IS_INIT}.memmap disagrees with store.json; make the store again")
        for key in (*self.meta.layout.vectors, spec.PREVIOUS_ACTION):
            if any(not block.isfinite().all() for block in self.frames[key].split(BLOCK)):
                raise UserError(f"{self.path}/frames/{key}.memmap holds NaN or infinity; make the store again")


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "none"


def _map_frames(folder: Path, description: Description) -> TensorDict:
    """The raw files as tensors over private maps, which a read-only disk allows and which no code path can spoil."""
    schema = rows(description.meta.image_size, description.meta.layout)
    leaves: dict[str, Any] = read_json(folder / "meta.json", dict[str, Any], remedy="make the store again")
    mapped = {}
    for key, row in schema.items():
        shape = (description.frames, *row.shape)
        if (leaf := leaves.get(key)) != recorded(shape, row.dtype):
            said = str(leaf)[:200]
            raise UserError(f"{folder}/meta.json: {key} is {said}, not {row.dtype} {list(shape)}; make the store again")
        mapped[key] = _map(folder / f"{key}.memmap", shape, row.dtype)
    return TensorDict(mapped, batch_size=[description.frames])


def _map(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    wanted = math.prod(shape) * dtype.itemsize
    if not path.is_file():
        raise UserError(f"{path} is missing; generate or convert the data again")
    if (size := path.stat().st_size) != wanted:
        raise UserError(f"{path} has {size} bytes, not {wanted}: it was truncated or changed; make the store again")
    return torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=dtype).reshape(shape)


def concatenate(
    stores: Sequence[PlayStore],
    path: Path | str,
    *,
    seed: int | None = None,
    config: Mapping[str, Any] | None = None,
    splits: Sequence[spec.Split] | None = None,
) -> PlayStore:
    """Join stores into one, in order, in constant memory.

    Args:
        stores: at least one; all with the same image size, layout, source and renderer.
        path: the folder to create.
        seed: recorded with the result; that of the first store by default.
        config: recorded with the result; that of the first store by default.
        splits: of all episodes in order; their own by default.

    Raises:
        UserError: the stores do not fit together.
    """
    if not stores:
        raise UserError(f"nothing to join into {path}: no stores were given")
    first = stores[0].meta
    for store in stores:
        for name in ("image_size", "layout", "source", "renderer"):
            if (one := getattr(store.meta, name)) != (other := getattr(first, name)):
                raise UserError(f"cannot join {store.path} ({name} {one}) to {stores[0].path} ({name} {other})")
    writer = StoreWriter(
        path,
        image_size=first.image_size,
        source=first.source,
        renderer=first.renderer,
        seed=first.seed if seed is None else seed,
        config=first.config if config is None else config,
        layout=first.layout,
    )
    own = [episode.split for store in stores for episode in store.episodes]
    chosen = iter(own if splits is None else splits)
    with writer:
        for store in stores:
            _copy_episodes(store, writer, chosen)
    return PlayStore.open(path)


def _copy_episodes(store: PlayStore, writer: StoreWriter, splits: Iterator[spec.Split]) -> None:
    keys = [*store.meta.cameras, *store.meta.layout.vectors]
    segments: dict[int, list[Segment]] = {}
    for segment in store.segments:
        start = store.episode_of(segment.start).start
        relative = replace(segment, start=segment.start - start, stop=segment.stop - start)
        segments.setdefault(start, []).append(relative)
    for episode in store.episodes:
        writer.begin_episode(kind=episode.kind, split=next(splits), scene=episode.scene)
        for start in range(episode.start, episode.stop, BLOCK):
            block = store.frames[start : min(start + BLOCK, episode.stop)]
            writer.append({key: block[key].numpy() for key in keys})
        writer.end_episode(segments.get(episode.start, ()))

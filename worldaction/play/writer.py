"""Writes a play store: streams episodes to raw files and publishes the folder when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, get_args

import numpy as np
from tensordict import TensorDict

from worldaction import spec
from worldaction.artefact import fsync_folder, write_json
from worldaction.errors import UserError, unknown
from worldaction.play.layout import (
    MAX_ACTION,
    Description,
    Episode,
    Kind,
    Row,
    Segment,
    StoreMeta,
    recorded,
    rows,
    write_description,
)


class StoreWriter:
    """Writes a store, episode by episode or in pieces of episodes, in constant memory.

    As a context manager it publishes the store when the block ends, and leaves nothing behind when the block fails.

    Args:
        path: the folder to create; it must not exist.
        image_size: side of the images in pixels.
        source: what makes the frames, such as "playtable" or "calvin".
        renderer: what draws the images.
        seed: the seed of generated data; None for recordings.
        config: the settings that make the frames.
        layout: what a frame holds; the first frames decide which of its cameras the store has.

    Raises:
        UserError: `path` exists or cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        image_size: int,
        source: str,
        renderer: str,
        seed: int | None = None,
        config: Mapping[str, Any] | None = None,
        layout: spec.Layout = spec.CALVIN,
    ) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise UserError(f"{self.path} exists already; delete it or choose another path")
        self._meta = StoreMeta(image_size, source, renderer, seed, layout, dict(config or {}))
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._files: dict[str, BinaryIO] = {}
        self._hashes: dict[str, Any] = {}
        self._schema: dict[str, Row] = {}
        self._frames = 0
        self._episodes: list[Episode] = []
        self._segments: list[Segment] = []
        self._current: Episode | None = None
        self._last_action = self._null_action
        # what an interrupted writer left cannot be continued: its store.json was never written
        shutil.rmtree(self._partial, ignore_errors=True)
        try:
            (self._partial / "frames").mkdir(parents=True)
        except OSError as error:
            raise UserError(f"cannot create {self._partial}: {error.strerror}; choose another path") from error

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def __len__(self) -> int:
        return self._frames

    @property
    def _null_action(self) -> np.ndarray:
        return np.array(self._meta.layout.null_action, np.float32)

    def add_episode(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        kind: Kind,
        segments: Sequence[Segment] = (),
        split: spec.Split = "training",
        scene: str = "",
    ) -> None:
        """Append a whole episode.

        Args:
            arrays: cameras [T, H, W, 3] uint8, and the vectors of the layout as floats: for CALVIN's, robot_obs
                [T, 15], scene_obs [T, 24] and action [T, 7].
            kind: play, near_miss or demo.
            segments: annotated ranges, counted from the first frame of the episode.
            split: training or validation.
            scene: which table it was recorded on.

        Raises:
            UserError: the arrays do not fit the store; nothing of the episode is kept.
        """
        length = len(next(iter(arrays.values()), ()))
        _check_segments(segments, length, len(self._episodes))
        self.begin_episode(kind=kind, split=split, scene=scene)
        try:
            self.append(arrays)
        except UserError:
            self._current = None
            raise
        self.end_episode(segments)

    def begin_episode(self, *, kind: Kind, split: spec.Split = "training", scene: str = "") -> None:
        """Start an episode that comes in pieces; arguments as for `add_episode`."""
        if self._current is not None:
            raise UserError(f"{self.path}: episode {len(self._episodes)} has not ended; call end_episode first")
        if kind not in get_args(Kind):
            raise unknown("kind of episode", kind, get_args(Kind))
        if split not in get_args(spec.Split):
            raise unknown("split", split, get_args(spec.Split))
        self._current = Episode(self._frames, 0, kind, split, scene)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append frames to the episode that has begun; arguments as for `add_episode`."""
        if self._current is None:
            raise UserError(f"{self.path}: no episode has begun; call begin_episode first")
        number, first = len(self._episodes), self._current.length == 0
        block = self._checked(arrays, f"{self.path}: episode {number}")
        action = block[spec.ACTION]
        previous = self._null_action if first else self._last_action
        block[spec.PREVIOUS_ACTION] = np.concatenate([previous[None], action[:-1]])
        block[spec.IS_INIT] = np.arange(len(action)) == (0 if first else -1)
        block[spec.EPISODE] = np.full(len(action), number, np.int64)
        self._write(block)
        self._last_action = action[-1].copy()
        self._current = replace(self._current, length=self._current.length + len(action))
        self._frames += len(action)

    def end_episode(self, segments: Sequence[Segment] = ()) -> None:
        """Finish the episode that has begun.

        Args:
            segments: annotated ranges, counted from the first frame of the episode.
        """
        episode = self._current
        if episode is None or episode.length == 0:
            raise UserError(f"{self.path}: episode {len(self._episodes)} has no frames; append some before it ends")
        _check_segments(segments, episode.length, len(self._episodes))
        self._segments += [replace(s, start=s.start + episode.start, stop=s.stop + episode.start) for s in segments]
        self._episodes.append(episode)
        self._current = None

    def close(self) -> None:
        """Publish the store under its name.

        Raises:
            UserError: there are no frames, an episode has not ended, or the disk is full.
        """
        if not self._episodes or self._current is not None:
            reason = f"episode {len(self._episodes)} has not ended" if self._current else "no episode was added"
            self.abandon()
            raise UserError(f"{self.path} was not written: {reason}")
        try:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            self._describe()
            os.rename(self._partial, self.path)
            fsync_folder(self.path.parent)
        except OSError as error:
            raise self._failed(error) from error

    def abandon(self) -> None:
        """Delete what was written so far."""
        for file in self._files.values():
            # closing flushes, which fails again on the full disk that may have led here
            with contextlib.suppress(OSError):
                file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _failed(self, error: OSError) -> UserError:
        self.abandon()
        return UserError(f"cannot write {self.path}: {error.strerror}; free the disk or choose another path")

    def _describe(self) -> None:
        leaves = {key: recorded((self._frames, *row.shape), row.dtype) for key, row in self._schema.items()}
        own = {"shape": [self._frames], "device": "cpu", "_type": str(TensorDict)}
        write_json(self._partial / "frames" / "meta.json", leaves | own)
        checksums = {f"frames/{key}.memmap": value.hexdigest() for key, value in self._hashes.items()}
        write_description(
            self._partial, Description(self._frames, self._meta, self._episodes, self._segments, checksums)
        )

    def _write(self, block: Mapping[str, np.ndarray]) -> None:
        for key, array in block.items():
            data = np.ascontiguousarray(array).data.cast("B")
            self._hashes[key].update(data)
            try:
                self._files[key].write(data)
            except OSError as error:
                raise self._failed(error) from error

    def _checked(self, arrays: Mapping[str, np.ndarray], label: str) -> dict[str, np.ndarray]:
        """The arrays in the types of the store, or a UserError that says what is wrong with them."""
        # the first frames decide which cameras the store has
        layout = self._meta.layout
        if not self._files:
            layout = replace(layout, cameras=tuple(camera for camera in layout.cameras if camera in arrays))
        given = [*layout.cameras, *layout.vectors]
        if arrays.keys() != set(given):
            raise UserError(f"{label} has the keys {sorted(arrays)}, this store needs {sorted(given)}")
        length = len(arrays[spec.ACTION])
        if length == 0:
            raise UserError(f"{label} has no frames")
        schema = rows(self._meta.image_size, layout)
        block = {key: _checked_array(arrays[key], (length, *schema[key].shape), f"{label}, {key}") for key in given}
        if (largest := np.abs(block[spec.ACTION]).max()) > MAX_ACTION:
            raise UserError(f"{label}, {spec.ACTION} reaches {largest:.4g}; actions must be scaled to [-1, 1]")
        if not self._files:
            self._open_files(layout)
        return block

    def _open_files(self, layout: spec.Layout) -> None:
        self._meta = replace(self._meta, layout=layout)
        self._schema = rows(self._meta.image_size, layout)
        for key in self._schema:
            self._files[key] = open(self._partial / "frames" / f"{key}.memmap", "wb")  # noqa: SIM115 (closed in close)
            self._hashes[key] = hashlib.sha256()


def _checked_array(array: np.ndarray, shape: tuple[int, ...], label: str) -> np.ndarray:
    """An array as the store keeps it: uint8 images, finite float32 vectors."""
    if array.shape != shape:
        raise UserError(f"{label} has shape {array.shape}, expected {shape}")
    if len(shape) == 4:
        if array.dtype != np.uint8:
            raise UserError(f"{label} is {array.dtype}; images must be uint8 from 0 to 255")
        return array
    if array.dtype not in (np.float32, np.float64):
        raise UserError(f"{label} is {array.dtype}; vectors must be float32 or float64")
    if not np.isfinite(array).all():
        raise UserError(f"{label} holds NaN or infinity at frame {int((~np.isfinite(array)).any(1).argmax())}")
    return array.astype(np.float32)


def _check_segments(segments: Sequence[Segment], length: int, episode: int) -> None:
    for segment in segments:
        if not 0 <= segment.start < segment.stop <= length:
            where = f"{segment.start} to {segment.stop}"
            raise UserError(f"segment {segment.task} ({where}) lies outside episode {episode} of {length} frames")

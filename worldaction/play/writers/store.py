"""Writes a play store: streams episodes to raw files and publishes the folder when it is whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import math
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, get_args

import numpy as np
from tensordict import TensorDict

from worldaction import spec
from worldaction.errors import UserError, unknown
from worldaction.io.atomic import fsync_folder, write_json
from worldaction.io.disk import cannot_write
from worldaction.io.sealed_json import read_json
from worldaction.play.layout import (
    MAX_ACTION,
    SKIPPED,
    Description,
    Episode,
    Row,
    Segment,
    StoreMeta,
    recorded,
    rows,
    write_description,
)
from worldaction.spec import Kind

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.json"


@dataclass(frozen=True)
class _Saved:
    """What a writer goes on from."""

    resume: str | None
    frames: int
    layout: spec.Layout
    current: Episode | None
    last_action: list[float]
    episodes: list[Episode]
    segments: list[Segment]
    skipped: list[str]


class StoreWriter:
    """Writes a store, episode by episode or in pieces of episodes, in constant memory.

    As a context manager it publishes the store when the block ends, and leaves nothing behind when the block fails,
    except what a later writer can go on from.

    Args:
        path: the folder to create; it must not exist.
        image_size: side of the images in pixels.
        source: what makes the frames, such as "playtable" or "calvin".
        renderer: what draws the images.
        seed: the seed of generated data; None for recordings.
        config: the settings that make the frames.
        layout: what a frame holds; the first frames decide which of its cameras the store has.
        resume: a name for all that is going to be written. What a writer with the same one had saved with `checkpoint`
            when it was interrupted is kept: go on from `whole` and `begun`. None starts afresh.
        irreplaceable: the frames cannot be made again: what was saved and cannot be gone on with is refused, where it
            would be deleted else.

    Raises:
        UserError: `path` exists or cannot be written, or another process is writing it.
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
        resume: str | None = None,
        irreplaceable: bool = False,
    ) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise UserError(f"{self.path} exists already; delete it or choose another path")
        self._meta = StoreMeta(image_size, source, renderer, seed, layout, dict(config or {}))
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._files: dict[str, BinaryIO] = {}
        self._hashes: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._schema: dict[str, Row] = {}
        self._frames = 0
        self._episodes: list[Episode] = []
        self._segments: list[Segment] = []
        self._skipped: list[str] = []
        self._current: Episode | None = None
        self._last_action = self._null_action
        self._resume, self._irreplaceable = resume, irreplaceable
        self._saved = False
        self.ended = False
        """Nothing more can be written: the store was closed or abandoned, or writing it has failed."""
        try:
            self._claim()
        except OSError as error:
            raise cannot_write(self._partial, error) from error

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
    def whole(self) -> int:
        """Episodes that have ended."""
        return len(self._episodes)

    @property
    def skipped(self) -> list[str]:
        """Why episodes were left out with `skip_episode`, one line each."""
        return list(self._skipped)

    @property
    def begun(self) -> int | None:
        """Frames of the episode that has begun; None if none has."""
        return self._current.length if self._current else None

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
        self._check_open()
        if self._current is not None:
            raise UserError(f"{self.path}: episode {len(self._episodes)} has not ended; call end_episode first")
        if kind not in get_args(Kind):
            raise unknown("kind of episode", kind, get_args(Kind))
        if split not in get_args(spec.Split):
            raise unknown("split", split, get_args(spec.Split))
        self._current = Episode(self._frames, 0, kind, split, scene)
        self._before = {key: value.copy() for key, value in self._hashes.items()}

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append frames to the episode that has begun; arguments as for `add_episode`."""
        self._check_open()
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

    def skip_episode(self, reason: str) -> None:
        """Leave out an episode that could not be read, with what was written of it.

        Args:
            reason: a line that names it; `store.json` keeps it.
        """
        episode, self._current = self._current, None
        self._skipped.append(reason)
        if episode is not None and episode.length:
            self._frames = episode.start
            try:
                for key, file in self._files.items():
                    file.flush()
                    file.truncate(self._bytes(key, self._frames))
            except OSError as error:
                raise self._failed(error) from error
            self._hashes = {key: self._before.get(key) or _digest(self._frames_of(key)) for key in self._files}
        if self._saved:
            # what was saved may have been cut off
            self.checkpoint()

    def vectors(self) -> Iterator[tuple[Episode, dict[str, np.ndarray]]]:
        """The vectors [T, n] of all episodes so far, read back."""
        for file in self._files.values():
            file.flush()
        for episode in self._episodes:
            yield (
                episode,
                {
                    key: np.fromfile(
                        self._frames_of(key), np.float32, episode.length * size, offset=self._bytes(key, episode.start)
                    ).reshape(-1, size)
                    for key, size in self._meta.layout.vectors.items()
                },
            )

    def checkpoint(self) -> None:
        """Save what was written so far, so that a writer with the same `resume` goes on from here.

        Raises:
            UserError: the disk is full.
        """
        self._check_open()
        try:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
            last = self._last_action.tolist()
            of = (self._episodes, self._segments, self._skipped)
            saved = _Saved(self._resume, self._frames, self._meta.layout, self._current, last, *of)
            write_json(self._partial / CHECKPOINT, saved)
            self._saved = True
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Publish the store under its name.

        Raises:
            UserError: there are no frames, an episode has not ended, the disk is full, or writing it failed before.
        """
        self._check_open()
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
            # not before: killed in between, a writer goes on from it
            (self.path / CHECKPOINT).unlink(missing_ok=True)
            self._release()
            self.ended = True
        except OSError as error:
            raise self._failed(error) from error

    def abandon(self) -> None:
        """Stop, and delete what was written, unless some of it was saved with `checkpoint`."""
        for file in self._files.values():
            # closing flushes, which fails again on the full disk that may have led here
            with contextlib.suppress(OSError):
                file.close()
        self._files, self.ended = {}, True
        if not self._saved:
            shutil.rmtree(self._partial, ignore_errors=True)
        self._release()

    def _check_open(self) -> None:
        """What was cut off in the middle must not be added to, nor published."""
        if self.ended:
            kept = f"; what was saved is in {self._partial}" if self._saved and self._partial.exists() else ""
            raise UserError(f"{self.path} is closed, or writing it has failed{kept}; begin another writer")

    def _claim(self) -> None:
        """The folder under its temporary name, for this process alone: empty, or as an interrupted writer saved it."""
        self._partial.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._partial, os.O_RDONLY)
        self._release = weakref.finalize(self, os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise UserError(f"{self.path} is being written by another process; wait for it, or stop it") from None
        if self._resume is not None and (self._partial / CHECKPOINT).exists() and self._went_on():
            return
        for entry in self._partial.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (self._partial / "frames").mkdir()

    def _went_on(self) -> bool:
        """Take over what was saved, if it is whole and of the same making."""
        try:
            saved: _Saved = read_json(self._partial / CHECKPOINT, _Saved)
            if saved.resume != self._resume:
                raise ValueError("it is part of something else")
            self._cut(saved.frames, saved.layout)
        except (UserError, ValueError) as error:
            if self._irreplaceable:
                self._release()
                raise UserError(f"{self._partial} cannot be gone on with ({error}); move it away first") from error
            logger.warning("%s cannot be continued (%s): starting again", self._partial, error)
            return False
        self._frames, self._episodes, self._segments = saved.frames, saved.episodes, saved.segments
        self._skipped = saved.skipped
        self._current, self._last_action = saved.current, np.array(saved.last_action, np.float32)
        self._open_files(saved.layout)
        self._saved = True
        return True

    def _cut(self, frames: int, layout: spec.Layout) -> None:
        """Remove what was written after it was saved."""
        for key, row in rows(self._meta.image_size, layout).items():
            path, size = self._frames_of(key), frames * math.prod(row.shape) * row.dtype.itemsize
            if not path.is_file() or path.stat().st_size < size:
                raise ValueError(f"{path.name} is missing or truncated")
            os.truncate(path, size)

    def _bytes(self, key: str, frames: int) -> int:
        row = self._schema[key]
        return frames * math.prod(row.shape) * row.dtype.itemsize

    def _frames_of(self, key: str) -> Path:
        return self._partial / "frames" / f"{key}.memmap"

    def _failed(self, error: OSError) -> UserError:
        self.abandon()
        return cannot_write(self.path, error)

    def _describe(self) -> None:
        leaves = {key: recorded((self._frames, *row.shape), row.dtype) for key, row in self._schema.items()}
        own = {"shape": [self._frames], "device": "cpu", "_type": str(TensorDict)}
        # a file of tensordict's
        write_json(self._partial / "frames" / "meta.json", leaves | own, sealed=False)
        checksums = {f"frames/{key}.memmap": value.hexdigest() for key, value in self._hashes.items()}
        meta, before = self._meta, self._meta.config.get(SKIPPED, [])
        if self._skipped:
            meta = replace(meta, config={**meta.config, SKIPPED: [*before, *self._skipped]})
        write_description(self._partial, Description(self._frames, meta, self._episodes, self._segments, checksums))

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
            remedy = "actions must be scaled to [-1, 1], as by worldaction data convert --scale minmax"
            raise UserError(f"{label}, {spec.ACTION} reaches {largest:.4g}; {remedy}")
        if not self._files:
            self._open_files(layout)
        return block

    def _open_files(self, layout: spec.Layout) -> None:
        self._meta = replace(self._meta, layout=layout)
        self._schema = rows(self._meta.image_size, layout)
        try:
            for key in self._schema:
                path = self._frames_of(key)
                self._files[key] = open(path, "ab")  # noqa: SIM115 (closed in close)
                self._hashes[key] = _digest(path)
        except OSError as error:
            raise self._failed(error) from error


def begun_as(path: Path | str) -> str | None:
    """What an interrupted writer of a store was writing, its `resume`; None where nothing was saved.

    Raises:
        UserError: what was saved is damaged.
    """
    path = Path(path)
    saved = path.with_name(path.name + ".partial") / CHECKPOINT
    if path.exists() or not saved.exists():
        return None
    found: _Saved = read_json(saved, _Saved)
    return found.resume


def _digest(path: Path) -> Any:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256")


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

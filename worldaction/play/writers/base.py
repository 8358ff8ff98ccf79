"""What recorded episodes are written to: one protocol for every format, and what the writers of folders share.

A format is one file beside this one with a class that keeps to `DatasetWriter`, as `StoreWriter` does.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, get_args

import numpy as np

from worldaction import spec
from worldaction.errors import UserError, unknown
from worldaction.io.atomic import fsync_folder
from worldaction.io.disk import cannot_write
from worldaction.play.layout import MAX_ACTION, Segment
from worldaction.play.readers.source import Source, check_intact
from worldaction.spec import Kind


class DatasetWriter(Protocol):
    """A data set that is being written, episode by episode and block by block; its name exists once it is whole."""

    path: Path

    def begin_episode(self, *, kind: Kind, split: spec.Split = "training", scene: str = "") -> None:
        """Start an episode; arguments as for `StoreWriter.add_episode`."""
        ...

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append frames to the episode that has begun; arguments as for `StoreWriter.add_episode`."""
        ...

    def end_episode(self, segments: Sequence[Segment] = ()) -> None:
        """Finish the episode; segments count from its first frame."""
        ...

    def close(self) -> None:
        """Publish the set under its name."""
        ...

    def abandon(self) -> None:
        """Delete what was written so far."""
        ...


class Begun(NamedTuple):
    """The episode that is being written."""

    kind: Kind
    split: spec.Split
    scene: str
    length: int = 0
    """Frames so far."""


class FolderWriter(ABC):
    """The part of a writer that every folder needs: a temporary name, checked frames, and a clean end.

    As a context manager it publishes the folder when the block ends, and leaves nothing behind when the block fails.

    Args:
        path: the folder to create; it must not exist.
        layout: what a frame holds; the first frames decide which of its cameras the set has.

    Raises:
        UserError: `path` exists or cannot be written.
    """

    def __init__(self, path: Path | str, *, layout: spec.Layout) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise UserError(f"{self.path} exists already; delete it or choose another path")
        self.layout = layout
        self.largest_action = MAX_ACTION
        """Beyond it actions are refused, which we want in [-1, 1]; a format for a robot's own units sets it."""
        self.images: dict[str, tuple[int, ...]] = {}
        """Shape [H, W, 3] of each camera's images, once frames have come."""
        self.episodes = 0
        self.current: Begun | None = None
        self.partial = self.path.with_name(self.path.name + ".partial")
        # a set that was left unfinished cannot be continued
        shutil.rmtree(self.partial, ignore_errors=True)
        try:
            self.partial.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(self.partial, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    # ---- what a format does

    def _begin(self, episode: Begun) -> None:  # noqa: B027 (most formats need nothing here)
        """An episode starts."""

    @abstractmethod
    def _append(self, block: dict[str, np.ndarray]) -> None:
        """Checked frames: images uint8 [T, H, W, 3], vectors float32 or float64 [T, n]."""

    @abstractmethod
    def _end(self, episode: Begun, segments: Sequence[Segment]) -> None:
        """An episode is whole."""

    @abstractmethod
    def _finish(self) -> None:
        """Every episode is whole: write what describes them."""

    def _release(self) -> None:  # noqa: B027 (most formats need nothing here)
        """Close files, before the folder is published or deleted."""

    # ---- the protocol

    def begin_episode(self, *, kind: Kind, split: spec.Split = "training", scene: str = "") -> None:
        """Start an episode; arguments as for `StoreWriter.add_episode`."""
        if self.current is not None:
            raise UserError(f"{self.path}: episode {self.episodes} has not ended; call end_episode first")
        if kind not in get_args(Kind):
            raise unknown("kind of episode", kind, get_args(Kind))
        if split not in get_args(spec.Split):
            raise unknown("split", split, get_args(spec.Split))
        self.current = Begun(kind, split, scene)
        with self._writing():
            self._begin(self.current)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append frames to the episode that has begun; arguments as for `StoreWriter.add_episode`."""
        if self.current is None:
            raise UserError(f"{self.path}: no episode has begun; call begin_episode first")
        block = self._checked(arrays, f"{self.path}: episode {self.episodes}")
        with self._writing():
            self._append(block)
        self.current = self.current._replace(length=self.current.length + len(block[spec.ACTION]))

    def end_episode(self, segments: Sequence[Segment] = ()) -> None:
        """Finish the episode; segments count from its first frame."""
        episode = self.current
        if episode is None or episode.length == 0:
            raise UserError(f"{self.path}: episode {self.episodes} has no frames; append some before it ends")
        for segment in segments:
            if not 0 <= segment.start < segment.stop <= episode.length:
                where = f"{segment.task} ({segment.start} to {segment.stop})"
                raise UserError(f"segment {where} lies outside episode {self.episodes} of {episode.length} frames")
        with self._writing():
            self._end(episode, segments)
        self.episodes += 1
        self.current = None

    def close(self) -> None:
        """Publish the set under its name.

        Raises:
            UserError: there are no frames, an episode has not ended, the format needs what is missing, or the disk is
                full.
        """
        if not self.episodes or self.current is not None:
            reason = f"episode {self.episodes} has not ended" if self.current else "no episode was added"
            self.abandon()
            raise UserError(f"{self.path} was not written: {reason}")
        with self._writing():
            self._finish()
            self._release()
            os.rename(self.partial, self.path)
            fsync_folder(self.path.parent)

    def abandon(self) -> None:
        """Delete what was written so far."""
        try:
            self._release()
        except OSError:
            # closing flushes, which fails again on the full disk that may have led here
            pass
        finally:
            shutil.rmtree(self.partial, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A full disk and what a format refuses leave nothing behind."""
        try:
            yield
        except OSError as error:
            self.abandon()
            raise cannot_write(self.path, error) from error
        except UserError:
            self.abandon()
            raise

    def _checked(self, arrays: Mapping[str, np.ndarray], label: str) -> dict[str, np.ndarray]:
        """The arrays as formats take them, or a UserError that says what is wrong with them."""
        if not self.images:
            cameras = tuple(camera for camera in self.layout.cameras if camera in arrays)
            self.layout = replace(self.layout, cameras=cameras)
            self.images = {camera: arrays[camera].shape[1:] for camera in cameras}
        shapes = self.images | {key: (size,) for key, size in self.layout.vectors.items()}
        if arrays.keys() != shapes.keys():
            raise UserError(f"{label} has the keys {sorted(arrays)}, this set needs {sorted(shapes)}")
        length = len(arrays[spec.ACTION])
        if length == 0:
            raise UserError(f"{label} has no frames")
        block = {key: _checked_array(arrays[key], (length, *shape), f"{label}, {key}") for key, shape in shapes.items()}
        if (largest := np.abs(block[spec.ACTION]).max()) > self.largest_action:
            raise UserError(f"{label}, {spec.ACTION} reaches {largest:.4g}; actions must be scaled to [-1, 1]")
        return block


def copy(
    source: Source,
    writer: DatasetWriter,
    *,
    image_size: int | None,
    order: Sequence[int] | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write every episode of a source in another format, in constant memory; closing the writer is left to the caller.

    Args:
        source: what `open_source` gave.
        writer: for sets of the source's layout.
        image_size: side of the images in pixels, at most that of the source; None keeps each camera's own.
        order: numbers of the episodes to write; all in their order by default.
        progress: called with the number of frames just done.

    Raises:
        UserError: a file of the source is missing or damaged, or its frames do not fit the writer.
    """
    check_intact(source)
    for number in range(len(source.episodes)) if order is None else order:
        recording = source.episodes[number]
        writer.begin_episode(kind=recording.kind, split=recording.split, scene=recording.scene)
        for block in source.blocks(number, image_size=image_size):
            writer.append(block)
            if progress is not None:
                progress(len(block[spec.ACTION]))
        writer.end_episode(recording.segments)


def _checked_array(array: np.ndarray, shape: tuple[int, ...], label: str) -> np.ndarray:
    """uint8 images, finite vectors."""
    if array.shape != shape or (len(shape) == 4 and shape[3] != 3):
        raise UserError(f"{label} has shape {array.shape}, expected {shape}")
    if len(shape) == 4:
        if array.dtype != np.uint8:
            raise UserError(f"{label} is {array.dtype}; images must be uint8 from 0 to 255")
        return array
    if array.dtype not in (np.float32, np.float64):
        raise UserError(f"{label} is {array.dtype}; vectors must be float32 or float64")
    if not np.isfinite(array).all():
        raise UserError(f"{label} holds NaN or infinity at frame {int((~np.isfinite(array)).any(1).argmax())}")
    return array

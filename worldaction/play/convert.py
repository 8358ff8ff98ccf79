"""From any source to a play store: streamed in constant memory, and continued where it was killed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from worldaction.errors import UserError
from worldaction.io.atomic import plain
from worldaction.play.inspect.watch import Judge, Watched
from worldaction.play.layout import SKIPPED
from worldaction.play.leaks import marks, refuse_leaks
from worldaction.play.readers.source import Source, check_intact, in_short
from worldaction.play.store import PlayStore, StoreWriter
from worldaction.spec import ACTION

logger = logging.getLogger(__name__)

CHECKPOINT: Final = 4096
"""Frames after which what was written is saved: what is lost at most when a conversion is killed."""
RULE: Final = 2
"""Raised when sets are read in another way, so that what was converted before is not taken for the same."""


def convert(
    source: Source,
    path: Path | str,
    *,
    image_size: int,
    progress: Callable[[int], object] | None = None,
    resume: bool = True,
    strict: bool = False,
    judge: Judge | None = None,
) -> PlayStore:
    """Make a play store of a data set, in constant memory. What is wrong with its frames is warned of by name.

    An episode that cannot be read is left out, counted in a warning and named in the store's `config["skipped"]`.

    Args:
        source: what `open_source` gave.
        path: the store to create.
        image_size: side of the store's images in pixels, at most that of the source.
        progress: called with the number of frames just done, first with those of an interrupted conversion;
            `frames(source)` is their total.
        resume: go on where a conversion of the same set to the same path was interrupted; otherwise start again.
            Frames that were converted before are not looked at again.
        strict: refuse a set of which an episode cannot be read.
        judge: says whether a window's task was done, where somebody can; for the warnings.

    Raises:
        UserError: the store exists, images would have to be blown up, no episode can be read or one cannot and `strict`
            is set, frames are in training and in validation, or a set that has checksums is not as it was written. What
            was converted before is kept, and the next call goes on from there.
    """
    if not 1 <= image_size <= source.image_size and source.layout.cameras:
        raise UserError(f"{source.path}: {image_size} pixels; choose an image size of at most {source.image_size}")
    # a store of damaged numbers must not become one whose checksums fit them
    check_intact(source)
    origin = source.origin
    writer = StoreWriter(
        path,
        image_size=image_size,
        source=origin.source,
        renderer=origin.renderer,
        seed=origin.seed,
        config=origin.config | {"rate": source.rate} | ({SKIPPED: [*source.skipped]} if source.skipped else {}),
        layout=source.layout,
        resume=fingerprint(source, image_size) if resume else None,
    )
    watched = Watched(source, judge=judge)
    with writer:
        if progress is not None and len(writer):
            progress(len(writer))
        for number in range(writer.whole + len(writer.skipped), len(source.episodes)):
            try:
                _convert_episode(watched, number, writer, image_size, progress)
            except _Unreadable as error:
                if strict:
                    raise
                writer.skip_episode(str(error))
        _check_kept(source, writer)
    if writer.skipped:
        logger.warning("%s: %s", source.path, in_short(writer.skipped))
    watched.warn()
    return PlayStore.open(path)


def frames(source: Source) -> int:
    """How many frames a source has."""
    return sum(recording.length for recording in source.episodes)


def _convert_episode(
    source: Source, number: int, writer: StoreWriter, image_size: int, progress: Callable[[int], object] | None
) -> None:
    recording = source.episodes[number]
    if writer.begun is None:
        writer.begin_episode(kind=recording.kind, split=recording.split, scene=recording.scene)
    for block in _read(source, number, image_size, writer.begun or 0):
        before = len(writer)
        writer.append(block)
        if len(writer) // CHECKPOINT > before // CHECKPOINT:
            writer.checkpoint()
        if progress is not None:
            progress(len(block[ACTION]))
    writer.end_episode(recording.segments)


class _Unreadable(UserError):
    """What is wrong with an episode of the source, not with the store that it is written to."""


def _read(source: Source, number: int, image_size: int, start: int) -> Iterator[dict[str, np.ndarray]]:
    """The frames of an episode, all of them or an error."""
    recording, done = source.episodes[number], start
    try:
        for block in source.blocks(number, image_size=image_size, start=start):
            yield block
            done += len(block[ACTION])
    except UserError as error:
        raise _Unreadable(str(error)) from error
    if done != recording.length:
        raise _Unreadable(f"{recording.where} has {done} frames, not {recording.length}; get the file anew")


def _check_kept(source: Source, writer: StoreWriter) -> None:
    """Something is left, and no frame of it is in training and in validation."""
    if not writer.whole:
        raise UserError(writer.skipped[0])
    told = enumerate(writer.vectors())
    refuse_leaks(source.path, {number: (episode.split, marks(vectors)) for number, (episode, vectors) in told})


def fingerprint(source: Source, image_size: int) -> str:
    """What is converted, so that it is neither continued with something else nor taken for it."""
    described = plain([RULE, image_size, source.format, source.layout, source.origin, list(source.episodes)])
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

"""From any source to a play store: streamed in constant memory, and continued where it was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worldaction.errors import UserError
from worldaction.io.artefact import plain
from worldaction.play.inspect.watch import Judge, Watched
from worldaction.play.readers.source import Source, check_intact
from worldaction.play.store import PlayStore, StoreWriter
from worldaction.spec import ACTION

CHECKPOINT: Final = 4096
"""Frames after which what was written is saved: what is lost at most when a conversion is killed."""


def convert(
    source: Source,
    path: Path | str,
    *,
    image_size: int,
    progress: Callable[[int], object] | None = None,
    resume: bool = True,
    judge: Judge | None = None,
) -> PlayStore:
    """Make a play store of a data set, in constant memory. What is wrong with its frames is warned of by name.

    Args:
        source: what `open_source` gave.
        path: the store to create.
        image_size: side of the store's images in pixels, at most that of the source.
        progress: called with the number of frames just done, first with those of an interrupted conversion;
            `frames(source)` is their total.
        resume: go on where a conversion of the same set to the same path was interrupted; otherwise start again.
            Frames that were converted before are not looked at again.
        judge: says whether a window's task was done, where somebody can; for the warnings.

    Raises:
        UserError: the store exists, images would have to be blown up, or a file of the source is missing or damaged,
            or, where it has checksums, not as it was written.
            What was converted before it is kept, and the next call goes on from there.
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
        config=origin.config | {"rate": source.rate},
        layout=source.layout,
        resume=fingerprint(source, image_size) if resume else None,
    )
    watched = Watched(source, judge=judge)
    with writer:
        if progress is not None and len(writer):
            progress(len(writer))
        for number in range(writer.whole, len(source.episodes)):
            _convert_episode(watched, number, writer, image_size, progress)
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
    for block in source.blocks(number, image_size=image_size, start=writer.begun or 0):
        before = len(writer)
        writer.append(block)
        if len(writer) // CHECKPOINT > before // CHECKPOINT:
            writer.checkpoint()
        if progress is not None:
            progress(len(block[ACTION]))
    if writer.begun != recording.length:
        raise UserError(f"{recording.where} has {writer.begun} frames, not {recording.length}; get the file anew")
    writer.end_episode(recording.segments)


def fingerprint(source: Source, image_size: int) -> str:
    """What is converted, so that it is neither continued with something else nor taken for it."""
    described = plain([image_size, source.format, source.layout, source.origin, list(source.episodes)])
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

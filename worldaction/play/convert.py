"""From any source to a play store: streamed in constant memory, and continued where it was killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from worldaction.errors import UserError
from worldaction.play.source import Source
from worldaction.play.store import PlayStore, StoreWriter


def convert(
    source: Source,
    path: Path | str,
    *,
    image_size: int,
    progress: Callable[[int], object] | None = None,
    resume: bool = True,
) -> PlayStore:
    """Make a play store of a data set, in constant memory.

    Args:
        source: what `open_source` gave.
        path: the store to create.
        image_size: side of the store's images in pixels, at most that of the source.
        progress: called with the number of frames just done; `frames(source)` is their total.
        resume: go on where a conversion of the same set to the same path was interrupted; otherwise start again.

    Raises:
        UserError: the store exists, images would have to be blown up, or a file of the source is missing or damaged.
    """
    if not 1 <= image_size <= source.image_size and source.layout.cameras:
        raise UserError(f"{source.path}: {image_size} pixels; choose an image size of at most {source.image_size}")
    origin = source.origin
    writer = StoreWriter(
        path,
        image_size=image_size,
        source=origin.source,
        renderer=origin.renderer,
        seed=origin.seed,
        config=origin.config | {"rate": source.rate},
        layout=source.layout,
    )
    with writer:
        for number, recording in enumerate(source.episodes):
            writer.begin_episode(kind=recording.kind, split=recording.split, scene=recording.scene)
            for block in source.blocks(number, image_size=image_size):
                writer.append(block)
                if progress is not None:
                    progress(len(block["action"]))
            writer.end_episode(recording.segments)
    return PlayStore.open(path)


def frames(source: Source) -> int:
    """How many frames a source has."""
    return sum(recording.length for recording in source.episodes)

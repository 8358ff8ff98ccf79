"""A play store as a source, so that it can be inspected, shrunk and converted like any other data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from worldaction.errors import UserError
from worldaction.play.images import area_mean
from worldaction.play.layout import SKIPPED, Episode, Segment
from worldaction.play.readers.source import BLOCK, Origin, Recording, in_short
from worldaction.play.store import PlayStore
from worldaction.spec import CONTROL_HZ


class StoreSource:
    """A play store; see `Source`.

    It is whole or it is refused: it was written whole, with checksums, and can be made again.

    Args:
        path: its folder.
        strict: refuse one of whose making something was left out.

    Raises:
        UserError: it is damaged.
    """

    format = "worldaction play store"

    def __init__(self, path: Path | str, *, strict: bool = False) -> None:
        self.path = Path(path)
        self._store = PlayStore.open(self.path)
        meta = self._store.meta
        self.layout = meta.layout
        self.image_size = meta.image_size if meta.cameras else 0
        self.rate: float | None = meta.config.get("rate", float(CONTROL_HZ))
        self.origin = Origin(meta.source, meta.renderer, meta.seed, meta.config)
        self.skipped: Sequence[str] = [str(line) for line in meta.config.get(SKIPPED, ())]
        if strict and self.skipped:
            raise UserError(f"{self.path}: {in_short(self.skipped)}")
        self.episodes: Sequence[Recording] = self._recordings()

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like a play store."""
        return (path / "store.json").is_file()

    def verify(self) -> None:
        """Compare with the checksums from when it was written; see `PlayStore.verify`."""
        self._store.verify()

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        whole = self._store.episodes[episode]
        cameras = self.layout.cameras if image_size != 0 else ()
        for first in range(whole.start + start, whole.stop, BLOCK):
            rows = self._store.frames[first : min(first + BLOCK, whole.stop)]
            vectors = {key: rows[key].numpy() for key in self.layout.vectors}
            yield vectors | {camera: area_mean(rows[camera].numpy(), image_size) for camera in cameras}

    def _recordings(self) -> list[Recording]:
        segments: dict[int, list[Segment]] = {}
        for segment in self._store.segments:
            episode = self._store.episode_of(segment.start)
            if segment.stop > episode.stop:
                raise UserError(f"{self.path}/store.json: segment {segment.task} leaves its episode; make it again")
            moved = replace(segment, start=segment.start - episode.start, stop=segment.stop - episode.start)
            segments.setdefault(episode.start, []).append(moved)
        return [self._recording(i, e, segments.get(e.start, [])) for i, e in enumerate(self._store.episodes)]

    def _recording(self, number: int, episode: Episode, segments: list[Segment]) -> Recording:
        where = f"{self.path}, episode {number}"
        return Recording(episode.length, where, episode.kind, episode.split, episode.scene, tuple(segments))

"""A data set in memory, which tests of writers and commands share: pictures that move smoothly, a robot's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from worldaction import spec
from worldaction.play.layout import Segment
from worldaction.play.readers.source import BLOCK, Origin, Recording

Arrays = dict[str, np.ndarray]


class ListedSource:
    """Keeps to `Source`: one mapping of arrays [T, ...] an episode."""

    format = "list"

    def __init__(
        self,
        episodes: Sequence[Arrays],
        recordings: Sequence[Recording] | None = None,
        *,
        layout: spec.Layout = spec.CALVIN,
        rate: float | None = 30.0,
    ) -> None:
        self.path = Path("list")
        self.arrays = episodes
        cameras = tuple(camera for camera in layout.cameras if camera in episodes[0])
        self.layout = replace(layout, cameras=cameras)
        self.image_size = episodes[0][cameras[0]].shape[1] if cameras else 0
        self.rate = rate
        self.origin = Origin("list")
        self.skipped: Sequence[str] = ()
        self.episodes = recordings or [Recording(len(arrays[spec.ACTION]), "list") for arrays in episodes]

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        arrays = self.arrays[episode]
        keys = [*self.layout.vectors, *(self.layout.cameras if image_size != 0 else ())]
        for first in range(start, len(arrays[spec.ACTION]), BLOCK):
            yield {key: arrays[key][first : first + BLOCK] for key in keys}


def pictures(frames: int, size: int, *, seed: int = 0) -> np.ndarray:
    """[T, size, size, 3] uint8: coloured waves that drift."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    time = np.arange(frames)[:, None, None] / 30
    waves = [np.sin(2 * np.pi * (a * x + b * y + time + c)) for a, b, c in rng.uniform(0, 1.5, (3, 3))]
    return np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def robot(frames: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Vectors of CALVIN's layout, float64: a TCP that wanders by less than CALVIN's fastest, and the moves it makes."""
    rng = np.random.default_rng(seed)
    moves = rng.uniform(-0.9, 0.9, (frames, 7))
    moves[:, 6] = rng.choice([-1.0, 1.0], frames)
    state = rng.uniform(-0.5, 0.5, (frames, 15))
    step = moves[:, :6] * np.repeat([0.02, 0.05], 3)
    state[:, :6] = rng.uniform(-0.1, 0.1, 6) + np.concatenate([np.zeros((1, 6)), np.cumsum(step, 0)[:-1]])
    state[:, 6], state[:, 14] = 0.04, np.r_[1.0, moves[:-1, 6]]
    scene = rng.uniform(-0.2, 0.2, (frames, 24))
    scene[:, 4:6] = rng.integers(0, 2, (frames, 2))
    return {spec.ACTION: moves, spec.ROBOT: state, spec.SCENE: scene}


def episode(frames: int, *, size: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """Pictures of both cameras and vectors."""
    images = {camera: pictures(frames, size, seed=2 * seed + i) for i, camera in enumerate(spec.CAMERAS)}
    return robot(frames, seed=seed) | images


def small_set(*, size: int = 16) -> ListedSource:
    """Three episodes of two scenes, both splits, all kinds, with segments that succeed, fail and overlap."""
    led, drawer = Segment("turn_on_led", 30, 65, success=True), Segment("close_drawer", 66, 70, success=False)
    recordings = [
        Recording(
            70, "list", "play", "training", "calvin_scene_D", (Segment("open_drawer", 3, 40, success=True), led, drawer)
        ),
        Recording(20, "list", "near_miss", "validation", "calvin_scene_D"),
        Recording(31, "list", "demo", "training", "calvin_scene_A", (Segment("open_drawer", 0, 31, success=True),)),
    ]
    episodes = [episode(r.length, size=size, seed=i) for i, r in enumerate(recordings)]
    for arrays in episodes:
        # nothing is done in any window that would speak against its label
        arrays[spec.SCENE][:, :6] = arrays[spec.SCENE][:1, :6]
    return ListedSource(episodes, recordings)

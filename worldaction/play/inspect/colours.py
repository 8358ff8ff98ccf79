"""An episode in which red and blue are exchanged: OpenCV's order of colours where all others have the usual one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from worldaction.play.inspect.problems import Problems
from worldaction.play.readers.source import Recording

GRID: Final = 4
"""Fields of a picture along each side, of which the mean colours are compared."""
EVERY: Final = 16
"""Every so many frames one is looked at."""
BETTER: Final = 0.5
"""Exchanged, an episode has to be so much nearer to the others."""
FAR: Final = 8.0
"""And as it is so far from them (levels)."""
USUAL: Final = 2.0
"""And so many times as far as episodes usually are from each other."""


class Colours:
    """Mean colours of every episode and camera; few numbers each, so that memory stays small."""

    def __init__(self) -> None:
        # episode -> camera -> sum of [G, G, 3], and the number of pictures
        self._sums: dict[int, dict[str, np.ndarray]] = {}
        self._counts: dict[int, int] = {}

    def add(self, episode: int, block: Mapping[str, np.ndarray]) -> None:
        """Pictures of an episode: `block` maps cameras to [T, H, W, 3] uint8."""
        for camera, images in block.items():
            some = images[::EVERY]
            sums = self._sums.setdefault(episode, {})
            sums[camera] = sums.get(camera, 0) + _fields(some)
            self._counts[episode] = self._counts.get(episode, 0) + (len(some) if camera == next(iter(block)) else 0)

    def judge(self, episodes: Mapping[int, Recording], problems: Problems) -> None:
        """Compare every episode with the others of its scene.

        An episode is named only if it lies apart, further than episodes that merely show something else.
        """
        for scene in dict.fromkeys(episodes[number].scene for number in self._sums):
            inside = [number for number in self._sums if episodes[number].scene == scene]
            if len(inside) < 2:
                continue
            for number in self._exchanged(inside):
                problems.name(
                    "red and blue look exchanged against the other episodes of the scene",
                    f"episode {number}, all frames",
                )

    def _exchanged(self, inside: list[int]) -> list[int]:
        """Episodes that are nearer to the others with red and blue exchanged: by far for one camera, a little at least
        for all."""
        by_far, at_all = np.zeros(len(inside), bool), np.ones(len(inside), bool)
        for camera in self._sums[inside[0]]:
            straight, swapped = self._distances(inside, camera)
            usual = USUAL * float(np.median(straight)) if len(inside) > 2 else 0.0
            by_far |= (swapped < BETTER * straight) & (straight > max(FAR, usual))
            at_all &= swapped < straight
        wrong = by_far & at_all
        # of two episodes nobody can tell which one it is; of more, most cannot be exchanged against the others
        return [inside[i] for i in np.flatnonzero(wrong)] if len(inside) == 2 or wrong.mean() < 0.5 else []

    def _distances(self, inside: list[int], camera: str) -> tuple[np.ndarray, np.ndarray]:
        """From the others [N], as it is and with red and blue exchanged (levels)."""
        means = np.stack([self._sums[n][camera] / self._counts[n] for n in inside]).reshape(len(inside), -1, 3)
        others = means[::-1] if len(inside) == 2 else np.median(means, 0)
        return _distance(means, others), _distance(means[..., ::-1], others)


def _fields(images: np.ndarray) -> np.ndarray:
    """Sum over pictures of the mean colour of each field, [G, G, 3]; a picture may not divide evenly."""
    side = min(GRID, *images.shape[1:3])
    rows, columns = (np.linspace(0, size, side, endpoint=False).astype(int) for size in images.shape[1:3])
    sums = np.add.reduceat(np.add.reduceat(images.sum(0, dtype=np.float64), rows, 0), columns, 1)
    pixels = np.outer(np.diff([*rows, images.shape[1]]), np.diff([*columns, images.shape[2]]))
    return np.asarray(sums / pixels[..., None])


def _distance(means: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean absolute difference of red and blue, [N]."""
    return np.asarray(np.abs(means - other)[..., [0, 2]].mean((1, 2)))

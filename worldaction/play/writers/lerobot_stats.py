"""Statistics of an episode's features in LeRobot's form, and how those of episodes are merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

QUANTILES: Final = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]
"""min, max, mean, std, the quantiles, each with the feature's shape, and count [1]."""


def vector_stats(values: np.ndarray) -> Stats:
    """Statistics of one feature in one episode.

    Args:
        values: [T, n] of any number type.
    """
    exact = values.astype(np.float64)
    quantiles = np.quantile(exact, list(QUANTILES.values()), axis=0)
    moments = {"min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0)}
    return moments | {"count": np.array([len(exact)])} | dict(zip(QUANTILES, quantiles, strict=True))


def count_levels(images: np.ndarray) -> np.ndarray:
    """How often each level occurs in each channel, which is all that statistics of images need.

    Args:
        images: [T, H, W, 3] uint8.

    Returns:
        [3, 256] int64.
    """
    return np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])


def image_stats(counts: np.ndarray, frames: int) -> Stats:
    """Statistics of a camera in one episode, over all of its pixels, with levels from 0 to 1.

    Args:
        counts: [3, 256] sums of `count_levels`.
        frames: how many were counted.

    Returns:
        each [3, 1, 1].
    """
    levels, total = np.arange(256) / 255, counts.sum(1)
    mean = counts @ levels / total
    variance = (counts * (levels - mean[:, None]) ** 2).sum(1) / total
    cumulative = counts.cumsum(1)
    stats = {"min": levels[(counts > 0).argmax(1)], "max": levels[255 - (counts[:, ::-1] > 0).argmax(1)]}
    stats |= {"mean": mean, "std": np.sqrt(variance)}
    # the first level that a share q of the pixels does not exceed
    stats |= {name: levels[(cumulative >= q * total[:, None]).argmax(1)] for name, q in QUANTILES.items()}
    return {name: value.reshape(3, 1, 1) for name, value in stats.items()} | {"count": np.array([frames])}


def merge(first: Stats, second: Stats) -> Stats:
    """Statistics of two disjoint sets of frames together, as `lerobot` merges them.

    Moments are exact (Chan et al. 1979). Quantiles of the whole cannot be known from those of the parts: kept are the
    smaller of the lower ones and the larger of the upper ones.
    """
    count = first["count"] + second["count"]
    share = second["count"] / count
    apart = second["mean"] - first["mean"]
    variance = first["std"] ** 2 * (1 - share) + second["std"] ** 2 * share + apart**2 * share * (1 - share)
    merged = {"min": np.minimum(first["min"], second["min"]), "max": np.maximum(first["max"], second["max"])}
    merged |= {"mean": first["mean"] + apart * share, "std": np.sqrt(variance), "count": count}
    for name, q in QUANTILES.items():
        merged[name] = (np.minimum if q <= 0.5 else np.maximum)(first[name], second[name])
    return merged


def merge_all(first: Mapping[str, Stats], second: Mapping[str, Stats]) -> dict[str, Stats]:
    """`merge` for every feature; either may be empty."""
    if not first or not second:
        return dict(first or second)
    return {key: merge(first[key], second[key]) for key in first}

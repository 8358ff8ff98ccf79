"""Shrinking images by the exact mean of the area that each new pixel covers."""

from __future__ import annotations

import functools

import numpy as np


@functools.cache
def _taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which old pixels each new one covers, [K, new_size] int64, and their shares of it, [K, new_size] float32."""
    edges = np.arange(new_size + 1) * (size / new_size)
    first = np.floor(edges[:-1]).astype(np.int64)
    # [K, new_size]
    old = first + np.arange(int(np.ceil(size / new_size)) + 1)[:, None]
    overlap = np.minimum(edges[1:], old + 1) - np.maximum(edges[:-1], old)
    share = overlap.clip(min=0) * (new_size / size)
    return old.clip(max=size - 1), share.astype(np.float32)


def _shrink(array: np.ndarray, new_size: int) -> np.ndarray:
    """The mean along the middle axis, [N, size, C] -> [N, new_size, C] float32.

    A sum in a fixed order and no matrix product, so that every machine makes the same bytes whatever its BLAS.
    """
    old, share = _taps(array.shape[1], new_size)
    total = np.zeros((len(array), new_size, array.shape[2]), np.float32)
    for index, weight in zip(old, share, strict=True):
        total += array[:, index] * weight[:, None]
    return total


def centre_square(images: np.ndarray) -> np.ndarray:
    """The largest square in the middle of images.

    Args:
        images: [T, H, W, 3].
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]


def fitted(images: np.ndarray, new_size: int | None) -> np.ndarray:
    """What readers do to pictures, and policies to those of a robot: `centre_square`, then `area_mean`.

    Args:
        images: [T, H, W, 3] uint8, with H and W at least `new_size`.
        new_size: side of the result in pixels; None leaves the squares as large as they are.

    Returns:
        [T, new_size, new_size, 3] uint8.
    """
    return area_mean(centre_square(images), new_size)


def area_mean(images: np.ndarray, new_size: int | None) -> np.ndarray:
    """Average images down to a square, as OpenCV's INTER_AREA does, also where the sizes do not divide.

    Args:
        images: [T, H, W, 3] uint8, with H and W at least `new_size`.
        new_size: side of the result in pixels; None leaves the images as they are.

    Returns:
        [T, new_size, new_size, 3] uint8, rounded to nearest.
    """
    frames, height, width, channels = images.shape
    if new_size is None or (height, width) == (new_size, new_size):
        return images
    # [T, H, W * 3] -> [T, s, W * 3]
    rows = _shrink(images.reshape(frames, height, width * channels), new_size)
    # [T * s, W, 3] -> [T * s, s, 3]
    both = _shrink(rows.reshape(frames * new_size, width, channels), new_size)
    return np.rint(both).astype(np.uint8).reshape(frames, new_size, new_size, channels)

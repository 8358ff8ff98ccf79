"""Pictures for people: frames side by side with captions, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worldaction.errors import UserError
from worldaction.io.atomic import replacing

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (40, 40, 40)
CELL = 192  # smallest side, in pixels, to which frames are enlarged
GAP = 6
CAPTION = 20


def contact_sheet(
    frames: Pixels, path: Path, *, names: Sequence[str] = (), title: str = "", columns: int = 8, count: int = 8
) -> None:
    """Evenly spaced stills, the first and the last among them, as one PNG.

    Args:
        frames: [T, H, W, 3] uint8.
        path: the PNG.
        names: T of them, written above the stills; their numbers where none are given.
        title: one line above all.
        columns: stills a row.
        count: how many stills, at most.
    """
    if len(frames) == 0:
        raise UserError(f"no frames for {path.name}; film at least one")
    names = names or [str(t) for t in range(len(frames))]
    sheet = tile([captioned(enlarge(frames[t], CELL // 2), names[t]) for t in spread(frames, count)], columns)
    save_png(captioned(sheet, title) if title else sheet, path)


def tile(images: Sequence[Pixels], columns: int) -> Pixels:
    """Images in rows, left to right, with paper between and around them.

    Args:
        images: each [H, W, 3] uint8, all of one size.
        columns: images a row.

    Returns:
        [H', W', 3].
    """
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), PAPER, np.uint8)
    for i, image in enumerate(images):
        y, x = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = image
    return sheet


def spread(frames: Pixels, count: int) -> list[int]:
    """Evenly spaced numbers of frames, the first and the last among them."""
    return sorted({round(t) for t in np.linspace(0, len(frames) - 1, min(count, len(frames)))})


def enlarge(image: Pixels, side: int = CELL) -> Pixels:
    """[H, W, 3] repeated a whole number of times, so that a pixel stays a square."""
    factor = max(1, round(side / max(image.shape[1], 1)))
    return image.repeat(factor, 0).repeat(factor, 1)


def captioned(image: Pixels, text: str) -> Pixels:
    """An image with a line of text above it."""
    return np.concatenate([_caption(image.shape[1], text), image])


@lru_cache(maxsize=1024)
def _caption(width: int, text: str) -> Pixels:
    """[CAPTION, width, 3]: the text on paper, in the largest type that fits."""
    canvas = Image.new("RGB", (width, CAPTION), PAPER)
    draw = ImageDraw.Draw(canvas)
    sizes = range(13, 6, -1)
    size = next((s for s in sizes if draw.textlength(text, ImageFont.load_default(s)) <= width), sizes[-1])
    draw.text((0, CAPTION / 2), text, INK, ImageFont.load_default(size), anchor="lm")
    return np.asarray(canvas)


def save_png(image: Pixels, path: Path) -> None:
    """Write an image [H, W, 3] as a PNG, atomically."""
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", optimize=True)

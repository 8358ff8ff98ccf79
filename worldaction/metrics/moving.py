"""Image fidelity where something moves: most of a picture is background, which every model draws well.

A model from whose pictures the robot has vanished has a good PSNR, for the robot covers little of them. So errors are
counted on those pixels alone that changed since the last frame that was seen, and stand beside two pictures that need
no model: that last frame ("nothing moves"), and the average of the training frames ("nothing but the background"),
which is what is left when the robot vanishes.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

CHANGE: Final = 16
"""Grey levels of 255 by which a channel has to differ for its pixel to have moved."""
GUESSES: Final = ("still", "average")
"""Pictures that need no model."""


def average_picture(pictures: Tensor) -> Tensor:
    """Mean of pictures [N, H, W, 3] uint8, as [H, W, 3] float."""
    return torch.stack([part.float().mean(0) * len(part) for part in pictures.split(256)]).sum(0) / len(pictures)


def moving_pixels(predicted: Tensor, true: Tensor, last: Tensor, average: Tensor) -> dict[str, Tensor]:
    """PSNR (dB) on the pixels that changed, of a model and of two pictures that need none.

    Errors are pooled over windows before the logarithm, so that a window counts as much as moves in it.

    Args:
        predicted: [M, T, H, W, 3] uint8, what the model imagined after the last frame that it saw.
        true: [M, T, H, W, 3] uint8, what was there.
        last: [M, H, W, 3] uint8, the last frame that was seen.
        average: [H, W, 3] float, see `average_picture`.

    Returns:
        "share" of the pixels that changed, [T], and dB [T] of the "model", of the "still" last frame and of the
        "average" picture; NaN where nothing changed.
    """
    moved = torch.zeros(true.shape[1])
    wrong = {name: torch.zeros(true.shape[1]) for name in ("model", *GUESSES)}
    # a window at a time: floats of all pictures would be four times as large as the pictures
    for imagined, truth, before in zip(predicted, true, last, strict=True):
        here, seen = truth.float(), before.float()
        mask = (here - seen).abs().amax(-1) > CHANGE
        moved += mask.sum((-1, -2))
        for name, picture in zip(wrong, (imagined.float(), seen, average), strict=True):
            wrong[name] += ((picture - here).square().mean(-1) * mask).sum((-1, -2))
    share = moved / (len(true) * true.shape[2] * true.shape[3])
    return {"share": share} | {name: _decibel(error / moved) for name, error in wrong.items()}


def _decibel(error: Tensor) -> Tensor:
    """PSNR of mean squared errors in grey levels; 100 dB stands for none, as in `images.psnr`."""
    return -10.0 * (error / 255.0**2).clamp_min(1e-10).log10()

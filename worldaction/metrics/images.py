"""Image fidelity: PSNR and SSIM, per image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 64
"""Images looked at together: floats of more leave a CPU's cache, which made 64 pixels three times slower."""


def psnr(predicted: Tensor, true: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB.

    Args:
        predicted, true: [..., H, W, 3] uint8.

    Returns:
        [...]; 100 dB stands for equal images.
    """
    error = _of_each(lambda x, y: (x.float() - y.float()).square().mean((-1, -2, -3)), predicted, true) / 255.0**2
    return -10.0 * error.clamp_min(1e-10).log10()


def ssim(predicted: Tensor, true: Tensor) -> Tensor:
    """Structural similarity with an 11x11 Gaussian window of sigma 1.5 (Wang et al. 2004), averaged over the channels.

    Args:
        predicted, true: [..., H, W, 3] uint8, sides of at least 11.

    Returns:
        [...] in [-1, 1].
    """
    return _of_each(_ssim, predicted, true)


def _of_each(score: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, true: Tensor) -> Tensor:
    """A score [M] of images [M, H, W, 3], for images [..., H, W, 3]."""
    lead = predicted.shape[:-3]
    pairs = zip(*(images.reshape(-1, *images.shape[-3:]).split(CHUNK) for images in (predicted, true)), strict=True)
    return torch.cat([score(x, y) for x, y in pairs]).reshape(lead)


def _ssim(predicted: Tensor, true: Tensor) -> Tensor:
    """[M] of images [M, H, W, 3]."""
    # channels become images; [3 M, H, W]
    x, y = (image.float().permute(0, 3, 1, 2).flatten(0, 1) for image in (predicted, true))
    rows, columns = (_gaussian(side).to(x.device) for side in x.shape[-2:])

    def blur(image: Tensor) -> Tensor:
        return rows @ image @ columns.T

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    score = score / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return score.mean((1, 2)).unflatten(0, (-1, 3)).mean(-1)


def _gaussian(side: int) -> Tensor:
    """The window's weights at every place where it fits, [side - 10, side]: a product is faster than a convolution."""
    grid = torch.arange(11, dtype=torch.float32) - 5.0
    line = torch.softmax(-grid.square() / (2.0 * 1.5**2), 0)
    return torch.stack([torch.nn.functional.pad(line, (i, side - 11 - i)) for i in range(side - 10)])

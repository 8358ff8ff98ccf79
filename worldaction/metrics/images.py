"""Image fidelity: PSNR and SSIM, per image."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(predicted: Tensor, true: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB.

    Args:
        predicted, true: [..., H, W, 3] uint8.

    Returns:
        [...]; 100 dB stands for equal images.
    """
    error = (predicted.float() - true.float()).square().mean((-1, -2, -3)) / 255.0**2
    return -10.0 * error.clamp_min(1e-10).log10()


def ssim(predicted: Tensor, true: Tensor) -> Tensor:
    """Structural similarity with an 11x11 Gaussian window of sigma 1.5 (Wang et al. 2004), averaged over the channels.

    Args:
        predicted, true: [..., H, W, 3] uint8, sides of at least 11.

    Returns:
        [...] in [-1, 1].
    """
    lead = predicted.shape[:-3]
    # channels become images; [M, H, W]
    x, y = (
        image.float().reshape(-1, *image.shape[-3:]).permute(0, 3, 1, 2).flatten(0, 1) for image in (predicted, true)
    )
    rows, columns = (_gaussian(side).to(x.device) for side in x.shape[-2:])

    def blur(image: Tensor) -> Tensor:
        return rows @ image @ columns.T

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    score = score / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return score.mean((1, 2)).unflatten(0, (-1, 3)).mean(-1).reshape(lead)


def _gaussian(side: int) -> Tensor:
    """The window's weights at every place where it fits, [side - 10, side]: a product is faster than a convolution."""
    grid = torch.arange(11, dtype=torch.float32) - 5.0
    line = torch.softmax(-grid.square() / (2.0 * 1.5**2), 0)
    return torch.stack([torch.nn.functional.pad(line, (i, side - 11 - i)) for i in range(side - 10)])

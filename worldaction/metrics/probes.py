"""Linear probes: is what matters for a task to be read off the latents, seen and imagined?"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

LEAST_VARIANCE: Final = 1e-8
"""Of what a probe reads, below which it counts as constant: a tenth of a millimetre squared, in metres."""


def ridge(feature: Tensor, target: Tensor, *, penalty: float) -> Tensor:
    """Weights of a ridge regression with an unpenalised offset.

    Args:
        feature: [M, F].
        target: [M, Y].
        penalty: of the squared weights.

    Returns:
        [F + 1, Y], the offset last.
    """
    design = _with_one(feature)
    strength = penalty * torch.ones(design.shape[1], dtype=design.dtype, device=design.device)
    strength[-1] = 0.0
    return torch.linalg.solve(design.T @ design + strength.diag(), design.T @ target)


def predict(weights: Tensor, feature: Tensor) -> Tensor:
    """Predictions [..., Y] of `ridge` weights for features [..., F]."""
    return _with_one(feature) @ weights


def _with_one(feature: Tensor) -> Tensor:
    return torch.cat([feature, torch.ones_like(feature[..., :1])], -1)


def r2(predicted: Tensor, true: Tensor) -> float:
    """Share of the variance explained, of [M] each; may be negative, NaN where next to nothing varies.

    A target that stands still but for rounding would give scores such as -1e31, which say nothing of the probe.
    """
    variance = (true - true.mean()).square().mean()
    if float(variance) < LEAST_VARIANCE:
        return float("nan")
    return float(1.0 - (predicted - true).square().mean() / variance)


def auroc(score: Tensor, label: Tensor) -> float:
    """Probability that a positive scores above a negative, ties counted half; NaN where one class is missing.

    Args:
        score: [M].
        label: [M] bool.
    """
    positive, negative = score[label], score[~label]
    if not len(positive) or not len(negative):
        return float("nan")
    order = torch.sort(negative).values
    below = torch.searchsorted(order, positive, side="left")
    upto = torch.searchsorted(order, positive, side="right")
    return float((below + upto).double().mean() / 2.0 / len(negative))

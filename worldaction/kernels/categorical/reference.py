"""The definition of the latent groups' distribution and of how a sample is drawn from it.

One uniform number per group and an inverse CDF: the cheapest sampler on a CPU, one warp scan on a GPU, and the same
sample for the same number, whatever else is in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def probabilities(logits: Tensor, unimix: float) -> Tensor:
    """Softmax with a share of the uniform distribution mixed in (DreamerV3, eq. 6).

    Args:
        logits: [..., C].
        unimix: the uniform share, in [0, 1].

    Returns:
        [..., C], positive, summing to one.
    """
    return torch.softmax(logits, -1) * (1.0 - unimix) + unimix / logits.shape[-1]


def sample(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The class at which the cumulative distribution passes the uniform number.

    Args:
        probabilities: [..., S, C].
        uniform: [..., S] in (0, 1).

    Returns:
        [..., S] uint8 class indices.
    """
    cumulative = probabilities.cumsum(-1)
    # scaled by the last entry, because float32 sums end a hair beside one
    below = uniform.unsqueeze(-1) * cumulative[..., -1:] >= cumulative
    return below.sum(-1).clamp_max(probabilities.shape[-1] - 1).to(torch.uint8)

"""Telling the right answer from those to other questions: what the contrastive losses share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(queries: Tensor, keys: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE over all frames of a batch (van den Oord et al. 2018, arXiv 1807.03748, eq. 4).

    The negatives of a frame are the keys of all other frames that count, those of its own window among them: what
    lies a few frames off is the hardest to tell apart, and tells most about what has moved.

    Args:
        queries: [B, T, W].
        keys: [B, T, W]; the one in the same place is the right answer.
        counts: [B, T] bool, which frames ask and are candidates.

    Returns:
        the loss of every frame in nats, [B, T], finite wherever it counts or not; and how often the right key had the
        highest score, a scalar.
    """
    size, width = counts.shape, queries.shape[-1]
    asking, number = counts.flatten(), torch.arange(counts.numel(), device=counts.device)
    # [B * T, B * T]
    scores = queries.flatten(0, 1).float() @ keys.flatten(0, 1).float().T / width**0.5
    # every row keeps its own answer, so that one that does not count is no logarithm of nothing
    candidates = asking | torch.eye(len(number), dtype=torch.bool, device=counts.device)
    scores = scores.masked_fill(~candidates, -torch.inf)
    right = (scores.argmax(-1) == number) & asking
    return F.cross_entropy(scores, number, reduction="none").view(size), right.sum() / asking.sum().clamp_min(1)

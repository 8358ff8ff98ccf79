"""DynaMo: what happened between two frames, in a few numbers that nobody had to record? (Cui et al. 2024, 2409.12192)

An inverse model names the step from e_t to e_{t+k} by a small code, and a forward model must get from e_t to e_{t+k}
with that code. No actions are needed. Against a collapse the target is held fixed, or is that of a slow copy of the
encoder, and the embedding's numbers are kept uncorrelated (the covariance term of VICReg, arXiv 2105.04906, eq. 4). The
paper's models are transformers over some frames; ours look at two, for the world model has a memory of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor

from worldaction.config import Count, NonNegative
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike, joined
from worldaction.losses.target import TargetEncoder
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp


@dataclass(frozen=True)
class DynaMoOptions:
    """Options of `DynaMo`."""

    scale: NonNegative = 1000.0
    """Weight of the loss."""
    steps: int = 4
    """Frames k between the two: at 30 a second neighbours hardly differ, and to copy e_t would do."""
    code: int = 16
    """Numbers that name a step; few, or the code is a copy of the next frame."""
    covariance: float = 0.04
    """Weight of the covariance term, the paper's."""
    ema: float = 0.0
    """Decay of the slow encoder that gives the targets; 0 holds the encoder's own embedding fixed instead."""
    hidden: Count = 256
    """Width of the hidden layers."""


def off_diagonal(x: Tensor, counts: Tensor) -> Tensor:
    """Sum of the squared covariances between different numbers, by their count (VICReg, eq. 4).

    Args:
        x: [..., E].
        counts: [...] bool, which rows count.
    """
    weight = counts.flatten().float()[:, None]
    rows, total = x.flatten(0, -2).float(), weight.sum().clamp_min(2.0)
    rows = (rows - (weight * rows).sum(0) / total) * weight
    # [E, E]
    covariance = rows.T @ rows / (total - 1.0)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / x.shape[-1]


class DynaMo(Loss):
    """One minus the cosine between a later embedding and its prediction, and the covariances of the embedding."""

    name = "dynamo"
    Options = DynaMoOptions
    needs = frozenset({"embed"})

    def __init__(self, options: DynaMoOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.inverse_net = mlp([2 * shapes.seen, options.hidden, options.code])
        self.forward_net = mlp([shapes.seen + options.code, options.hidden, shapes.seen])
        self.target = TargetEncoder(shapes, decay=options.ema) if options.ema else None

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`; needs no actions."""
        steps, embed = self.options.steps, latents.embed[..., : self.shapes.seen]
        now, later, pairs = embed[:, :-steps], embed[:, steps:], joined(batch, steps)
        wanted = later.detach() if self.target is None else self.target(batch, model.encoder)[:, steps:]
        code = self.inverse_net(torch.cat([now, later], -1))
        predicted = self.forward_net(torch.cat([now, code], -1))
        # [B, T - k]
        distance = 1.0 - F.cosine_similarity(predicted.float(), wanted.float(), dim=-1)
        covariance = off_diagonal(now, pairs)
        metrics = {"apart": distance.detach().mean(), "covariance": covariance.detach()}
        return LossOutput.ahead(distance + self.options.covariance * covariance, pairs, metrics, steps=steps)

    def after_step(self) -> None:
        """Move the slow encoder, if there is one."""
        if self.target is not None:
            self.target.follow()

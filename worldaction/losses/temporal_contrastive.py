"""Temporal contrast: which frame comes k frames after this one? (Misra et al. 2024, arXiv 2403.13765)

The one of the trio autoencoding, forward modelling, contrast that looks at video alone and draws nothing. The paper
proves that it finds the state under independent noise, and that it may fail where something moves by itself over time:
that tells frames apart as well as the robot does. Its classifier of pairs is an InfoNCE here (CPC, arXiv 1807.03748).
"""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import TensorDict

from worldaction.config import Count, NonNegative
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike, joined
from worldaction.losses.contrast import info_nce
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp


@dataclass(frozen=True)
class TemporalContrastiveOptions:
    """Options of `TemporalContrastive`."""

    scale: NonNegative = 8.0
    """Weight of the nats."""
    steps: int = 3
    """Frames k between the two."""
    width: int = 128
    """Numbers that are compared."""
    hidden: Count = 256
    """Width of the hidden layers."""


class TemporalContrastive(Loss):
    """InfoNCE between e_t and e_{t+k}."""

    name = "temporal_contrastive"
    Options = TemporalContrastiveOptions
    needs = frozenset({"embed"})

    def __init__(self, options: TemporalContrastiveOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.query_net = mlp([shapes.seen, options.hidden, options.width])
        self.key_net = mlp([shapes.seen, options.hidden, options.width])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`; needs no actions."""
        steps, embed = self.options.steps, latents.embed[..., : self.shapes.seen]
        pairs = joined(batch, steps)
        value, accuracy = info_nce(self.query_net(embed[:, :-steps]), self.key_net(embed[:, steps:]), pairs)
        return LossOutput.ahead(value, pairs, {"accuracy": accuracy}, steps=steps)

"""Forward dynamics: the belief alone, before the frame is seen, must say what will be seen.

The recurrent model's own objective asks that one frame ahead of the state's distribution only, through categories and
noise. This one asks it of the deterministic path in the observation's own terms: the proprioception, so that the hand's
place is carried on by the actions to the millimetre, and the encoder's embedding, held fixed as a target (Schwarzer et
al. 2021, SPR, arXiv 2007.05929, without its projections). Together with windows that are imagined from a random frame
on (``--world-model.open-loop``) it is trained many frames ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import TensorDict

from worldaction.config import NonNegative
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike
from worldaction.spec import ROBOT
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp


@dataclass(frozen=True)
class ForwardDynamicsOptions:
    """Options of `ForwardDynamics`."""

    scale: NonNegative = 1.0
    """Weight of the loss."""
    proprio: float = 500.0
    """Weight of the standardised proprioception's squared error."""
    embed: float = 1.0
    """Weight of the squared error of the image embedding, summed over its entries."""


class ForwardDynamics(Loss):
    """Half the squared error of what the belief expects to see."""

    name = "forward_dynamics"
    Options = ForwardDynamicsOptions
    needs = frozenset({"belief"})

    def __init__(self, options: ForwardDynamicsOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.proprio_net = mlp([shapes.deter, shapes.hidden, shapes.proprio]) if shapes.proprio else None
        # the proprioception is the end of the embedding
        self.seen = shapes.embed - shapes.proprio
        self.embed_net = mlp([shapes.deter, shapes.hidden, self.seen])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`."""
        wanted = latents.embed[..., : self.seen].detach()
        embed = 0.5 * (self.embed_net(latents.belief) - wanted).square().sum(-1)
        value, metrics = self.options.embed * embed, {"embed": embed.detach().mean()}
        if self.proprio_net is not None:
            body = 0.5 * (self.proprio_net(latents.belief) - batch["target", ROBOT]).square().sum(-1)
            value, metrics = value + self.options.proprio * body, metrics | {"proprio": body.detach().mean()}
        return LossOutput(value, metrics=metrics)

"""Inverse dynamics: which action lies between two frames? (WAM, arXiv 2603.28955, eq. 7)

The head reads the encoder's embeddings (e_t, e_{t+1}) and never the recurrent latents: h_{t+1} was computed from a_t,
so a head on latents reads the answer off instead of looking for it in the images.

With ``steps`` above 1 it reads (e_t, e_{t+k}) and names all k actions between them: what happened on the way must be
told by its trace (multi-step inverse kinematics: Lamb et al. 2022, arXiv 2207.08229; Islam et al. 2022, 2211.00164).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction.config import Count, NonNegative
from worldaction.errors import UserError
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike, actions_between, known_actions
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp


@dataclass(frozen=True)
class InverseDynamicsOptions:
    """Options of `InverseDynamics`."""

    scale: NonNegative = 1000.0
    """Weight of the mean absolute error per action dimension (the paper's lambda_act)."""
    hidden: Count = 512
    """Width of the two hidden layers."""
    images: bool = False
    """Read what the cameras gave to the embedding and not the proprioception at its end, which tells the action alone:
    the next pose of the hand minus this one."""
    steps: int = 1
    """Frames k between the two embeddings, and actions that are predicted."""


class InverseDynamics(Loss):
    """Mean absolute error of the action predicted from two successive embeddings."""

    name = "inverse_dynamics"
    Options = InverseDynamicsOptions
    needs = frozenset({"embed"})
    predicts_actions = True

    def __init__(self, options: InverseDynamicsOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        if options.images and not shapes.cameras:
            raise UserError("loss inverse_dynamics: images=true, but the model has no cameras; leave the option out")
        # the proprioception is the end of the embedding
        self.seen = shapes.seen if options.images else shapes.embed
        self.head = mlp([2 * self.seen, options.hidden, options.hidden, options.steps * shapes.action])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`; the value of frame t is the error of a_t .. a_{t+k-1}, if all of them are known."""
        steps, embed = self.options.steps, latents.embed
        predicted = self.predict(embed[:, :-steps], embed[:, steps:])
        # [B, T - k, k * A]
        taken = actions_between(batch, steps).flatten(-2)
        return LossOutput.ahead((predicted - taken).abs().mean(-1), known_actions(batch, steps), steps=steps)

    def predict(self, now: Tensor, later: Tensor) -> Tensor:
        """The actions [..., k * A] that lead from one embedding [..., E] to the one k frames later."""
        return self.head(torch.cat([now[..., : self.seen], later[..., : self.seen]], -1))

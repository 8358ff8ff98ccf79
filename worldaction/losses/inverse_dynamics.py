"""Inverse dynamics: which action lies between two frames? (WAM, arXiv 2603.28955, eq. 7)

The head reads the encoder's embeddings (e_t, e_{t+1}) and never the recurrent latents: h_{t+1} was computed from a_t,
so a head on latents reads the answer off instead of looking for it in the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict

from worldaction.errors import UserError
from worldaction.losses.base import Loss, LossOutput, Shapes, known_actions
from worldaction.nets import mlp
from worldaction.rssm import Latents
from worldaction.spec import PREVIOUS_ACTION

if TYPE_CHECKING:
    from worldaction.world_model import WorldModel


@dataclass(frozen=True)
class InverseDynamicsOptions:
    """Options of `InverseDynamics`."""

    scale: float = 1000.0
    """Weight of the mean absolute error per action dimension (the paper's lambda_act)."""
    hidden: int = 512
    """Width of the two hidden layers."""
    images: bool = False
    """Read what the cameras gave to the embedding and not the proprioception at its end, which tells the action alone:
    the next pose of the hand minus this one."""


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
        self.seen = shapes.embed - shapes.proprio if options.images else shapes.embed
        self.head = mlp([2 * self.seen, options.hidden, options.hidden, shapes.action])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        """See `Loss.forward`; the value of frame t is the error of a_t, if it is known; the last frame has no pair."""
        embed = latents.embed[..., : self.seen]
        predicted = self.head(torch.cat([embed[:, :-1], embed[:, 1:]], -1))
        # the action that led into t + 1 is the one executed at t; [B, T - 1]
        error = (predicted - batch[PREVIOUS_ACTION][:, 1:]).abs().mean(-1)
        value = torch.nn.functional.pad(error, (0, 1))
        mask = torch.nn.functional.pad(known_actions(batch), (0, 1))
        return LossOutput(value, mask)

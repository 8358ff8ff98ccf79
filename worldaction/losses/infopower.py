"""InfoPower: what the robot can change comes first (Bharadhwaj et al. 2022, arXiv 2204.08585)

Two lower bounds on information. Empowerment I(a_t; e_{t+1} | e_t) >= E[log q(a_t | e_t, e_{t+1}) - log b(a_t | e_t)]:
how much better is the action known once its result has been seen? The inverse model q teaches the encoder; b, what the
present frame says of the action, is learned beside it and teaches nothing, or the encoder would be paid for hiding what
the robot is about to do. And I(o_t; h_t, z_t), by contrast between the feature and the embedding of a frame, in the
place of drawing the frame: `--losses kl infopower` is a world model without a decoder. As in inverse dynamics, q sees
embeddings and never the recurrent latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor

from worldaction.config import Count, NonNegative
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike, actions_between, known_actions
from worldaction.losses.contrast import info_nce
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp

NARROWEST = 0.1
"""Smallest standard deviation: a gripper's command has two values, and its density would grow without end."""


@dataclass(frozen=True)
class InfoPowerOptions:
    """Options of `InfoPower`."""

    scale: NonNegative = 4.0
    """Weight of the nats."""
    contrast: float = 1.0
    """Weight of the contrast between features and embeddings."""
    width: int = 128
    """Numbers that are compared."""
    hidden: Count = 256
    """Width of the hidden layers."""


def surprise(parameters: Tensor, action: Tensor) -> Tensor:
    """Nats of an action under a Gaussian, -log p, summed over its numbers.

    Args:
        parameters: [..., 2 A], the means and what the deviations are computed from.
        action: [..., A].
    """
    mean, raw = parameters.float().chunk(2, -1)
    deviation = F.softplus(raw) + NARROWEST
    nats = 0.5 * ((action - mean) / deviation).square() + deviation.log() + 0.5 * math.log(2.0 * math.pi)
    return nats.sum(-1)


class InfoPower(Loss):
    """Surprise at the action given two frames, and InfoNCE between the latent feature and what was seen."""

    name = "infopower"
    Options = InfoPowerOptions
    needs = frozenset({"embed", "belief", "state"})
    predicts_actions = True

    def __init__(self, options: InfoPowerOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.inverse_net = mlp([2 * shapes.seen, options.hidden, options.hidden, 2 * shapes.action])
        self.behaviour_net = mlp([shapes.seen, options.hidden, 2 * shapes.action])
        self.query_net = mlp([shapes.feature, options.hidden, options.width])
        self.key_net = mlp([shapes.seen, options.hidden, options.width])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`; all frames are told apart, and known actions are looked for."""
        embed = latents.embed[..., : self.shapes.seen]
        everywhere = torch.ones(batch.batch_size, dtype=torch.bool, device=embed.device)
        contrast, accuracy = info_nce(self.query_net(latents.feature), self.key_net(embed), everywhere)
        known, action = known_actions(batch), actions_between(batch).flatten(-2)
        found = self.inverse_net(torch.cat([embed[:, :-1], embed[:, 1:]], -1))
        after, before = surprise(found, action), surprise(self.behaviour_net(embed[:, :-1].detach()), action)
        l1 = (found.chunk(2, -1)[0] - action).abs().mean(-1)
        # [B, T]
        power = F.pad(torch.where(known, after + before, 0.0), (0, 1))
        metrics = {
            "empowerment": LossOutput(before - after, known).mean().detach(),
            "l1": LossOutput(l1, known).mean().detach(),
            "accuracy": accuracy,
        }
        return LossOutput(power + self.options.contrast * contrast, metrics=metrics)

"""TACO: which frame do these actions lead to from here? (Zheng et al. 2023, arXiv 2306.13229)

A contrastive look ahead: the embedding of a frame and the k actions that follow, encoded, must pick out the embedding
k frames later among those of the whole batch. What the actions cannot change does not help to choose, and what they do
change must be in the embedding. The paper's further terms (CURL, reward) are losses of their own here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict

from worldaction.config import Count, NonNegative
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike, actions_between, known_actions
from worldaction.losses.contrast import info_nce
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp


@dataclass(frozen=True)
class TACOOptions:
    """Options of `TACO`."""

    scale: NonNegative = 8.0
    """Weight of the nats."""
    steps: int = 3
    """Actions k between the two frames; the paper has 3, and 1 where actions are coarse."""
    action: int = 32
    """Numbers that an action is encoded to."""
    width: int = 128
    """Numbers that are compared."""
    hidden: Count = 256
    """Width of the hidden layers."""


class TACO(Loss):
    """InfoNCE between (e_t, a_t .. a_{t+k-1}) and e_{t+k}."""

    name = "taco"
    Options = TACOOptions
    needs = frozenset({"embed"})

    def __init__(self, options: TACOOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.action_net = mlp([shapes.action, options.hidden, options.action])
        self.query_net = mlp([shapes.seen + options.steps * options.action, options.hidden, options.width])
        # the paper's bilinear form is part of the last layer
        self.key_net = mlp([shapes.seen, options.hidden, options.width])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`; frames whose next k actions are not all known neither ask nor answer."""
        steps, embed = self.options.steps, latents.embed[..., : self.shapes.seen]
        known = known_actions(batch, steps)
        # [B, T - k, k * U]
        actions = self.action_net(actions_between(batch, steps)).flatten(-2)
        queries = self.query_net(torch.cat([embed[:, :-steps], actions], -1))
        value, accuracy = info_nce(queries, self.key_net(embed[:, steps:]), known)
        return LossOutput.ahead(value, known, {"accuracy": accuracy}, steps=steps)

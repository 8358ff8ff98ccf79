"""ACT-JEPA: from one frame, the next actions and what will be seen meanwhile (Vujinovic and Kovacevic 2025, 2501.14622)

The context e_t must name the chunk of actions that follows and the embeddings of the frames that come of it, not
their pixels: what cannot be foreseen need not be in an embedding (I-JEPA, arXiv 2301.08243). The targets come from a
slow copy of the encoder, normalised as I-JEPA's. Where actions are unknown the frames still teach.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor

from worldaction.config import Count, NonNegative
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike, actions_between, joined, known_actions
from worldaction.losses.target import TargetEncoder
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp


@dataclass(frozen=True)
class ActJEPAOptions:
    """Options of `ActJEPA`."""

    scale: NonNegative = 100.0
    """Weight of the loss."""
    steps: int = 4
    """Actions of a chunk, and frames that are foreseen."""
    actions: float = 1.0
    """Weight of the actions beside the embeddings."""
    ema: float = 0.99
    """Decay of the slow encoder that gives the targets."""
    hidden: Count = 256
    """Width of the hidden layers."""


class ActJEPA(Loss):
    """Mean absolute errors of the next k embeddings and of the k actions that lead there."""

    name = "act_jepa"
    Options = ActJEPAOptions
    needs = frozenset({"embed"})
    predicts_actions = True

    def __init__(self, options: ActJEPAOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.context_net = mlp([shapes.embed, options.hidden, options.hidden])
        self.frames_net = mlp([options.hidden, options.hidden, options.steps * shapes.seen])
        self.actions_net = mlp([options.hidden, options.hidden, options.steps * shapes.action])
        self.target = TargetEncoder(shapes, decay=options.ema)

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`; the value of frame t is about t + 1 .. t + k."""
        steps, whole = self.options.steps, joined(batch, self.options.steps)
        context = self.context_net(latents.embed[:, :-steps])
        frames = (self.frames_net(context) - self._wanted(batch, model)).abs().mean(-1)
        taken, known = actions_between(batch, steps).flatten(-2), known_actions(batch, steps)
        # [B, T - k]
        actions = (self.actions_net(context) - taken).abs().mean(-1)
        metrics = {
            "frames": LossOutput(frames, whole).mean().detach(),
            "l1": LossOutput(actions, known).mean().detach(),
        }
        value = frames + self.options.actions * torch.where(known, actions, 0.0)
        return LossOutput.ahead(value, whole, metrics, steps=steps)

    def _wanted(self, batch: TensorDict, model: WorldModelLike) -> Tensor:
        """The slow embeddings of the k frames after each, normalised, [B, T - k, k * (E - P)]."""
        slow = self.target(batch, model.encoder)
        normal = F.layer_norm(slow.float(), slow.shape[-1:])
        return normal[:, 1:].unfold(1, self.options.steps, 1).transpose(-1, -2).flatten(-2)

    def after_step(self) -> None:
        """Move the slow encoder."""
        self.target.follow()

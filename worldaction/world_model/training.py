"""One step of training a world model: what the host prepares, and what a device makes of it.

Split so that a GPU can replay the second part (`worldaction.cuda_graph`): it is a function of tensors alone, which the
first part fills. On a GPU batches are drawn and copied ahead (`worldaction.play.prefetch`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction.fit import linear_rise
from worldaction.play.prefetch import Batches
from worldaction.spec import PREVIOUS_ACTION
from worldaction.world_model.model import WorldModel, total


class ModelStep:
    """`draw` and `loss` of a `Fit` over a world model."""

    def __init__(
        self,
        model: WorldModel,
        batches: Batches,
        *,
        steps: int,
        blind: float,
        bf16: bool,
        looks_every: int,
        graphed: bool = False,
    ) -> None:
        """
        Args:
            model: what is trained.
            batches: windows [B, T] of play, where the model is; each begins like an episode, see `as_episode_starts`.
            steps: number of steps in all, over which windows go blind.
            blind: share of the windows that are seen up to a random frame only, see `linear_rise`.
            bf16: compute in mixed precision. bfloat16 has float32's range, so gradients need no scale of their own.
            looks_every: steps between two looks at the losses' shares of the gradient.
            graphed: everything that changes lies in tensors that keep their place.
        """
        self.model, self.batches, self.steps, self.bf16, self.looks_every = model, batches, steps, bf16, looks_every
        self.largest, self.graphed = blind, graphed
        self.device = model.proprio_mean.device
        self.blind: float | Tensor = torch.zeros((), device=self.device) if graphed and blind else 0.0
        self.batch: TensorDict | None = None

    def draw(self, step: int) -> TensorDict:
        """The batch of a step, which `loss` will look at."""
        batch, blind = self.batches.sample(), self.largest * linear_rise(step, steps=self.steps)
        if isinstance(self.blind, Tensor):
            self.blind.fill_(blind)
        else:
            self.blind = blind
        if self.graphed and self.batch is not None:
            self.batch.copy_(batch)
        else:
            self.batch = batch
        return self.batch

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The sum of the scaled losses of the batch that was drawn, and what there is to log."""
        assert self.batch is not None
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            terms, metrics, latents = self.model.losses_of(self.batch, blind=self.blind)
        if self.looks(step):
            metrics |= self.model.shares(terms, latents)
        return total(terms), metrics

    def looks(self, step: int) -> bool:
        """Whether a step measures the losses' shares of the gradient."""
        # counted as the record counts, by finished steps, or what is computed here would not be recorded
        return step == 0 or (step + 1) % self.looks_every == 0

    def alike(self, step: int) -> bool:
        """Whether a step does the same work as its neighbours."""
        return not self.looks(step)


def as_episode_starts(batch: TensorDict, null_action: Sequence[float]) -> TensorDict:
    """Windows [B, T] as if an episode began with each of them: as every dream and every evaluation does."""
    batch[PREVIOUS_ACTION] = batch[PREVIOUS_ACTION].clone()
    batch[PREVIOUS_ACTION][:, 0] = torch.tensor(null_action)
    return batch

"""Balanced KL between posterior and prior (DreamerV2, arXiv 2010.02193, eq. 2 and algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import TensorDict
from torch import Tensor

from worldaction.config import NonNegative
from worldaction.losses.base import Loss, LossOutput, WorldModelLike
from worldaction.world_model.latent import Latents


@dataclass(frozen=True)
class KLOptions:
    """Options of `KL`."""

    scale: NonNegative = 0.3
    """Weight of the loss. LUMOS and DiWA use 0.3, the WAM paper states 3.0."""
    balance: float = 0.8
    """Share that moves the prior towards the posterior; the rest moves the posterior."""
    free_nats: float = 0.0
    """Nats per frame below which nothing is pushed (DreamerV3; DreamerV2 has none)."""


def categorical_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, summed over the groups.

    Args:
        p, q: [..., S, C] probabilities, positive.

    Returns:
        [...].
    """
    return (p * (p.log() - q.log())).sum((-1, -2))


class KL(Loss):
    """The prior learns to expect what the posterior saw, and the posterior to see what can be expected."""

    name = "kl"
    Options = KLOptions
    needs = frozenset({"posterior", "prior"})

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`."""
        learn_prior = categorical_kl(latents.posterior.detach(), latents.prior)
        learn_posterior = categorical_kl(latents.posterior, latents.prior.detach())
        nats = learn_prior.detach().mean()
        free, balance = self.options.free_nats, self.options.balance
        value = balance * learn_prior.clamp_min(free) + (1.0 - balance) * learn_posterior.clamp_min(free)
        return LossOutput(value, metrics={"nats": nats})

"""A world small enough to know its best policy: a position that the first number of an action pushes, and a goal."""

from __future__ import annotations

import torch
from torch import Tensor

from worldaction.world_model.latent import Latent

GOAL = 0.75
FEATURE, ACTION, CHUNK, DECISIONS = 5, 2, 2, 8


class Corridor:
    """A world model: position in the belief; noise in the code and a little on the position."""

    def feature(self, latent: Latent) -> Tensor:
        """[B, F]."""
        return torch.cat([latent.belief, (latent.code.float() - 1.5) / 2], -1)

    def prior(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """A push of 0.1 at full speed."""
        push = torch.nn.functional.pad(0.1 * action[:, :1] + 0.02 * (uniform[:, :1] - 0.5), (0, 1))
        return Latent(latent.belief + push, (uniform * 4).to(torch.uint8))


class PastTheGoal:
    """A success classifier: success is to be past the goal.

    Args:
        goal: where it is.
    """

    def __init__(self, goal: float = GOAL) -> None:
        self.goal = goal

    def probability(self, feature: Tensor) -> Tensor:
        """[B, F] -> [B]."""
        return torch.sigmoid(100 * (feature[:, 0] - self.goal))


def begin(count: int) -> Latent:
    """Latents [count] at the corridor's begin."""
    return Latent(torch.zeros(count, 2), torch.zeros(count, 3, dtype=torch.uint8))


def demonstrations() -> tuple[Tensor, Tensor]:
    """Features [1, M, F] and chunks [M, K, A] of random pushes, which reach the goal in time now and then."""
    generator = torch.Generator().manual_seed(0)
    features = 2 * torch.rand(1, 2000, FEATURE, generator=generator) - 0.5
    return features, torch.rand(2000, CHUNK, ACTION, generator=generator) - 0.1

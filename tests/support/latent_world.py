"""A world model small enough to know the best policy of: a position that the first action pushes, and a goal.

Random demonstrations push at 0.4 of full speed on average and reach the goal in time in about one dream of ten; pushing
at full speed always does, in eight actions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.bc import clone
from agents.policies.diffusion import DiffusionPolicy
from worldaction.world_model.latent import Latent

GOAL = 0.75
DECISIONS, CHUNK, ACTION = 8, 2, 2
FEATURE = 5


class World:
    """Position in the belief; noise in the code and a little on the position."""

    def feature(self, latent: Latent) -> Tensor:
        return torch.cat([latent.belief, (latent.code.float() - 1.5) / 2], -1)

    def prior(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        push = torch.nn.functional.pad(0.1 * action[:, :1] + 0.02 * (uniform[:, :1] - 0.5), (0, 1))
        return Latent(latent.belief + push, (uniform * 4).to(torch.uint8))


class Goal:
    """Success is to be past the goal."""

    def __init__(self, goal: float = GOAL) -> None:
        self.goal = goal

    def probability(self, feature: Tensor) -> Tensor:
        return torch.sigmoid(100 * (feature[:, 0] - self.goal))


def starts(count: int) -> Latent:
    return Latent(torch.zeros(count, 2), torch.zeros(count, 3, dtype=torch.uint8))


def mediocre() -> DiffusionPolicy:
    """A policy cloned from the random demonstrations."""
    generator = torch.Generator().manual_seed(0)
    features = 2 * torch.rand(1, 2000, FEATURE, generator=generator) - 0.5
    chunks = torch.rand(2000, CHUNK, ACTION, generator=generator) - 0.1
    return clone(
        features,
        chunks,
        denoising_steps=5,
        width=32,
        blocks=1,
        steps=300,
        batch=256,
        lr=3e-3,
        weight_decay=0.0,
        ema=0.99,
        seed=0,
    )


def steady(speed: float) -> DiffusionPolicy:
    """A policy that pushes at one speed whatever it sees: with one step of denoising, x0 is what the noise says."""
    policy = DiffusionPolicy(FEATURE, ACTION, chunk=CHUNK, denoising_steps=1, width=4)
    share = policy.schedule.alpha_bar[0]
    policy.epsilon = lambda condition, x, k: (x - share.sqrt() * speed) / (1 - share).sqrt()  # type: ignore[method-assign]
    return policy

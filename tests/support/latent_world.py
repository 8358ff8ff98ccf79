"""A world model small enough to know the best policy of: a position that the first action pushes, and a goal.

Random demonstrations push at 0.4 of full speed on average and reach the goal in time in about one dream of ten; pushing
at full speed always does, in eight actions.
"""

from __future__ import annotations

from agents.bc import clone
from agents.policies.diffusion import DiffusionPolicy
from agents.updates.tools.corridor import ACTION, CHUNK, DECISIONS, FEATURE, GOAL, demonstrations
from agents.updates.tools.corridor import Corridor as World
from agents.updates.tools.corridor import PastTheGoal as Goal
from agents.updates.tools.corridor import begin as starts

__all__ = ["ACTION", "CHUNK", "DECISIONS", "FEATURE", "GOAL", "Goal", "World", "mediocre", "starts", "steady"]


def mediocre() -> DiffusionPolicy:
    """A policy cloned from the random demonstrations."""
    return clone(
        DiffusionPolicy,
        *demonstrations(),
        options={"denoising_steps": 5, "width": 32},
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

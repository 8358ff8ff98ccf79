"""What PPO minimises: the clipped surrogate of each trained denoising step (DPPO, arXiv 2409.00588), in pure functions.

Tensors over trained steps are in the order of a chain: index 0 is the noisiest, the last one yields the action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from agents.imagination import RolloutBatch
from agents.policies.base import Score
from agents.updates.gae import gae


def clip_schedule(trained_steps: int, clip: float, clip_base: float, *, rate: float = 3.0) -> Tensor:
    """Clip ranges, exponential in the step and smallest at the noisiest, in the order of a chain (DPPO).

    Args:
        trained_steps: N'.
        clip: range of the last step.
        clip_base: range of the noisiest step.
        rate: how late the range opens.

    Returns:
        [N'].
    """
    progress = torch.arange(trained_steps, dtype=torch.float64) / max(trained_steps - 1, 1)
    if trained_steps == 1:
        progress = torch.ones(1, dtype=torch.float64)
    return (clip_base + (clip - clip_base) * torch.expm1(rate * progress) / math.expm1(rate)).float()


def denoising_discount(trained_steps: int, gamma: float) -> Tensor:
    """gamma ** k, so 1 for the step that yields the action, in the order of a chain: [N']."""
    return gamma ** torch.arange(trained_steps - 1, -1, -1, dtype=torch.float32)


@dataclass(frozen=True)
class Objective:
    """The constants of the surrogate objective.

    Attributes:
        clip: [N'] clip ranges.
        discount: [N'] weights of the advantage.
        bc: coefficient of the divergence.
        numbers: of a chunk, over which log-probabilities are averaged.
    """

    clip: Tensor
    discount: Tensor
    bc: float
    numbers: int


class Targets(NamedTuple):
    """What the critic says of the decisions that were taken.

    Attributes:
        advantage: [M].
        target: [M] of the value.
        value: [M] before learning.
        left: [M] share of the time limit that is left, as the critic is told.
    """

    advantage: Tensor
    target: Tensor
    value: Tensor
    left: Tensor


def targets_of(
    rollouts: RolloutBatch,
    critic: Callable[[Tensor, Tensor], Tensor],
    *,
    gamma: float,
    gae_lambda: float,
    bootstrap: bool = False,
) -> Targets:
    """Advantages and value targets of the decisions that were taken.

    Success ends a dream for good, and so does the time limit, for success after it does not count.

    Args:
        rollouts: [B, H].
        critic: [..., F] and the share of the time limit that is left [...] -> [...] value.
        gamma: discount per decision.
        gae_lambda: decay of the trace.
        bootstrap: as if a dream that is cut off went on: the value of its last state is added, and no time is told.
    """
    alive, feature = rollouts.alive, rollouts.feature[rollouts.alive]
    # [H + 1]
    left = torch.linspace(1.0, 0.0, alive.shape[1] + 1, device=alive.device, dtype=feature.dtype)
    if bootstrap:
        left = torch.zeros_like(left)
    left_then = left[:-1].expand(alive.shape)[alive]
    with torch.no_grad():
        # [B, H]; the critic sees only the decisions that were taken, [M]
        value = torch.zeros_like(alive, dtype=feature.dtype).masked_scatter(alive, critic(feature, left_then))
        after = critic(rollouts.last_feature, left[-1:].expand(len(alive)))
    last = torch.zeros_like(alive)
    last[:, -1] = True
    advantage, target = gae(
        rollouts.reward.to(value.dtype),
        value,
        torch.cat([value[:, 1:], after[:, None]], 1),
        terminated=rollouts.success if bootstrap else rollouts.success | last,
        truncated=last & ~rollouts.success,
        alive=alive,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    return Targets(advantage[alive], target[alive], value[alive], left_then)


def normalise(advantage: Tensor) -> Tensor:
    """Advantages [M] of mean 0 and deviation 1."""
    return (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Share of the targets' variance that the values account for; [M], [M] -> []."""
    return 1.0 - (target - value).var(correction=0) / (target.var(correction=0) + 1e-8)


class PolicyLoss(NamedTuple):
    """The policy's loss and what to know about it; all [] but the clip fractions."""

    total: Tensor
    surrogate: Tensor
    divergence: Tensor
    clip_fraction: Tensor  # [N'] share of ratios outside the clip range
    approx_kl: Tensor  # of a decision, see `decision_kl`


def policy_loss(score: Score, log_prob: Tensor, advantage: Tensor, objective: Objective) -> PolicyLoss:
    """The clipped surrogate of every trained step, plus the divergence from the cloned policy.

    Args:
        score: of [M] decisions under the present weights, with gradient.
        log_prob: [M, N'] of the same decisions under the policy that took them.
        advantage: [M].
        objective: see `Objective`.
    """
    # [M, N']: all steps of a decision share its advantage, the noisy ones with less weight
    weighted = advantage[:, None] * objective.discount
    change = score.log_prob - log_prob
    ratio = change.exp()
    clipped = torch.minimum(torch.maximum(ratio, 1.0 - objective.clip), 1.0 + objective.clip)
    surrogate = -torch.minimum(ratio * weighted, clipped * weighted).mean()
    return PolicyLoss(
        total=surrogate + objective.bc * score.divergence,
        surrogate=surrogate.detach(),
        divergence=score.divergence.detach(),
        clip_fraction=((ratio.detach() - 1.0).abs() > objective.clip).float().mean(0),
        approx_kl=decision_kl(change.detach(), objective.numbers),
    )


def decision_kl(change: Tensor, numbers: int) -> Tensor:
    """KL(then || now) of a decision, in nats, from decisions of the policy as it was then.

    The random choices of a decision follow each other, so that their divergences add up; each is estimated by
    r - 1 - log r, where r is the ratio of the densities of a whole chunk (Schulman 2020, "Approximating KL
    divergence"). Of log-probabilities that are averaged over a chunk of 28 numbers the same formula says 28 x 28 times
    too little: what is small enters it squared.

    Args:
        change: [M, N'] change of log-probabilities, averaged over the numbers of a chunk.
        numbers: how many these are.

    Returns:
        [].
    """
    whole = change * numbers
    return (whole.exp() - 1.0 - whole).sum(-1).mean()

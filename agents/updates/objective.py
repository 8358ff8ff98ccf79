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

from agents.imagination import Dream
from agents.policies.diffusion import DiffusionPolicy, gaussian_log_prob
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
        std: [N'] standard deviations of the trained steps.
        bc: coefficient of the divergence.
    """

    clip: Tensor
    discount: Tensor
    std: Tensor
    bc: float


class Decisions(NamedTuple):
    """Decisions to learn from.

    Attributes:
        feature: [M, F].
        states: [M, N' + 1, K * A], see `Chain`.
        base_means: [M, N', K * A] under the cloned policy.
        log_prob: [M, N'] under the policy that dreamed.
        advantage: [M].
        target: [M] of the value.
        left: [M] share of the time limit that is left, as the critic is told.
    """

    feature: Tensor
    states: Tensor
    base_means: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor
    left: Tensor

    def take(self, rows: Tensor) -> Decisions:
        """Some of the decisions."""
        return Decisions(*(value[rows] for value in self))


def decisions_of(
    night: Dream,
    critic: Callable[[Tensor, Tensor], Tensor],
    *,
    gamma: float,
    gae_lambda: float,
    std: Tensor,
    bootstrap: bool = False,
) -> tuple[Decisions, Tensor]:
    """What can be learnt from dreams: the decisions that were taken, with advantages and value targets.

    Success ends a dream for good, and so does the time limit, for success after it does not count.

    Args:
        night: [B, H] dreams.
        critic: [..., F] and the share of the time limit that is left [...] -> [...] value.
        gamma: discount per decision.
        gae_lambda: decay of the trace.
        std: [N'] standard deviations of the trained steps.
        bootstrap: as if a dream that is cut off went on: the value of its last state is added, and no time is told.

    Returns:
        [M] decisions, and the [M] values that the critic gave them.
    """
    alive, feature, states = night.alive, night.feature[night.alive], night.states[night.alive]
    # [H + 1]
    left = torch.linspace(1.0, 0.0, alive.shape[1] + 1, device=alive.device, dtype=feature.dtype)
    if bootstrap:
        left = torch.zeros_like(left)
    told = left[:-1].expand(alive.shape)[alive]
    with torch.no_grad():
        # [B, H]
        value = torch.zeros_like(alive, dtype=feature.dtype).masked_scatter(alive, critic(feature, told))
        after = critic(night.last_feature, left[-1:].expand(len(alive)))
    last = torch.zeros_like(alive)
    last[:, -1] = True
    advantage, target = gae(
        night.success.to(value.dtype),
        value,
        torch.cat([value[:, 1:], after[:, None]], 1),
        terminated=night.success if bootstrap else night.success | last,
        truncated=last & ~night.success,
        alive=alive,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    log_prob = gaussian_log_prob(states[:, 1:], night.means[alive], std)
    taken = Decisions(feature, states, night.base_means[alive], log_prob, advantage[alive], target[alive], told)
    return taken, value[alive]


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Share of the targets' variance that the values account for; [M], [M] -> []."""
    return 1.0 - (target - value).var(correction=0) / (target.var(correction=0) + 1e-8)


class PolicyLoss(NamedTuple):
    """The policy's loss and what to know about it; all [] but the clip fractions."""

    total: Tensor
    surrogate: Tensor
    divergence: Tensor
    clip_fraction: Tensor  # [N'] share of ratios outside the clip range
    approx_kl: Tensor


def divergence(means: Tensor, base_means: Tensor, std: Tensor) -> Tensor:
    """KL between Gaussians of equal deviation, averaged over steps and numbers of the chunk.

    Args:
        means, base_means: [..., N', X].
        std: [N'].
    """
    return ((means - base_means) / std.unsqueeze(-1)).square().mean() / 2.0


def policy_loss(policy: DiffusionPolicy, batch: Decisions, objective: Objective) -> PolicyLoss:
    """The clipped surrogate of every trained denoising step, plus the divergence from the cloned policy.

    Args:
        policy: the trained copy.
        batch: [M] decisions; advantages are normalised within it.
        objective: see `Objective`.
    """
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std(correction=0) + 1e-8)
    weighted = advantage[:, None] * objective.discount
    means = chain_means(policy, batch.feature, batch.states)
    change = gaussian_log_prob(batch.states[:, 1:], means, objective.std) - batch.log_prob
    ratio = change.exp()
    clipped = torch.minimum(torch.maximum(ratio, 1.0 - objective.clip), 1.0 + objective.clip)
    surrogate = -torch.minimum(ratio * weighted, clipped * weighted).mean()
    apart = divergence(means, batch.base_means, objective.std)
    return PolicyLoss(
        total=surrogate + objective.bc * apart,
        surrogate=surrogate.detach(),
        divergence=apart.detach(),
        clip_fraction=((ratio.detach() - 1.0).abs() > objective.clip).float().mean(0),
        approx_kl=(ratio.detach() - 1.0 - change.detach()).mean(),
    )


def chain_means(policy: DiffusionPolicy, feature: Tensor, states: Tensor) -> Tensor:
    """The means of the trained steps, with gradient, given where the chain was before each of them.

    Args:
        policy: the trained copy.
        feature: [M, F].
        states: [M, N' + 1, X].

    Returns:
        [M, N', X].
    """
    steps = torch.arange(states.shape[1] - 2, -1, -1, device=states.device)
    return policy.mean(policy.condition(feature)[:, None], states[:, :-1], steps)

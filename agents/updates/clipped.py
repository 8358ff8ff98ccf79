"""What PPO and GRPO share: passes over the decisions in minibatches, with the clipped surrogate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agents.updates.base import Decisions, Update
from agents.updates.objective import Objective, PolicyLoss, clip_schedule, denoising_discount, policy_loss


class ClippedUpdate(Update):
    """An update by clipped ratios (Schulman et al. 2017, arXiv 1707.06347); a subclass finds the advantages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        steps, options = self.policy.trained_steps, self.options
        self.objective = Objective(
            clip=clip_schedule(steps, options.clip, options.clip_base).to(self.device),
            discount=denoising_discount(steps, options.gamma_denoising).to(self.device),
            bc=options.bc,
            numbers=self.policy.base.chunk_size,
        )

    def learn_from(
        self,
        decisions: Decisions,
        advantage: Tensor,
        *,
        active: bool,
        before_step: Callable[[Tensor], None] | None = None,
    ) -> dict[str, float]:
        """Pass over the decisions several times.

        Args:
            decisions: [M].
            advantage: [M].
            active: whether the policy learns.
            before_step: called with each minibatch's rows [m], whether the policy learns or not: a critic's step.

        Returns:
            metrics of the policy's steps.
        """
        losses: list[PolicyLoss] = []
        for _ in range(self.options.epochs):
            for rows in self.minibatches(len(advantage)):
                if before_step is not None:
                    before_step(rows)
                if active:
                    losses.append(self._policy_step(decisions.take(rows), advantage[rows]))
                    active = losses[-1].approx_kl.item() <= self.options.target_kl
        return {"policy_steps": float(len(losses))} | averages(losses)

    def normalised(self, advantage: Tensor) -> Tensor:
        """The advantages [m] of a minibatch as they are used; by default as they are."""
        return advantage

    def _policy_step(self, decisions: Decisions, advantage: Tensor) -> PolicyLoss:
        loss = policy_loss(self.score(decisions), decisions.log_prob, self.normalised(advantage), self.objective)
        self.step(loss.total)
        return loss._replace(total=loss.total.detach())


def averages(losses: list[PolicyLoss]) -> dict[str, float]:
    """Metrics of an iteration's gradient steps; none if the policy rested."""
    if not losses:
        return {}
    mean = PolicyLoss(*(torch.stack(values).mean(0) for values in zip(*losses, strict=True)))
    steps = len(mean.clip_fraction)
    fractions = {f"clip_fraction/{steps - 1 - i}": v.item() for i, v in enumerate(mean.clip_fraction)}
    return {
        "policy_loss": mean.surrogate.item(),
        "approx_kl": mean.approx_kl.item(),
        "clip_fraction": mean.clip_fraction.mean().item(),
        **fractions,
    }

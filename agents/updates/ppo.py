"""PPO over denoising steps inside the frozen world model (DPPO, arXiv 2409.00588; DiWA, arXiv 2508.03645).

Two processes lie inside each other. The outer one takes decisions in dreams and is rewarded with 1 for success; the
inner one denoises each decision's action chunk. The last denoising steps are Gaussian policies: they are what is
trained, all with the advantage of their decision. A policy whose decision is one choice has one such step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agents.imagination import RolloutBatch
from agents.updates.base import Decisions
from agents.updates.clipped import ClippedUpdate
from agents.updates.critic import Critic
from agents.updates.objective import explained_variance, normalise, targets_of


class PPO(ClippedUpdate):
    """Proximal policy optimisation with a critic on the world model's features; see `Update`."""

    name = "ppo"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.critic = Critic(self.policy.base.config["feature_size"], self.options.critic_width).to(self.device)
        self.critic_optimiser = torch.optim.AdamW(
            self.critic.parameters(), lr=self.options.critic_lr, weight_decay=0.0, fused=True
        )
        self.learned |= {"critic": self.critic, "critic_optimiser": self.critic_optimiser}

    @property
    def warmup(self) -> int:
        """First iterations, which train the critic alone."""
        return int(self.options.warmup)

    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        """Fit the critic and, after the warm-up, the policy."""
        targets = targets_of(
            rollouts,
            self.critic,
            gamma=self.options.gamma,
            gae_lambda=self.options.gae_lambda,
            bootstrap=self.options.bootstrap,
        )
        losses: list[Tensor] = []

        def value_step(rows: Tensor) -> None:
            losses.append(self._value_step(decisions.feature[rows], targets.left[rows], targets.target[rows]))

        explained = explained_variance(targets.value, targets.target).item()
        # without a single success the advantages are the critic's errors, and there is nothing to learn from them
        active = self.iteration > self.warmup and bool(rollouts.success.any())
        metrics = self.learn_from(decisions, targets.advantage, active=active, before_step=value_step)
        value_loss = torch.stack(losses).mean().item()
        return {"explained_variance": explained, "value_loss": value_loss} | metrics

    def normalised(self, advantage: Tensor) -> Tensor:
        """Of mean 0 and deviation 1 within the minibatch."""
        return normalise(advantage)

    def _value_step(self, feature: Tensor, left: Tensor, target: Tensor) -> Tensor:
        loss = self.critic.loss(feature, left, target)
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        return loss.detach()

"""Filtered behaviour cloning in imagination: imitate the dreams that succeed, forget the others.

The cheapest rival of PPO: no critic, no ratio, no baseline, and nothing is learned from failure. In each iteration the
policy dreams, and the decisions of the dreams that succeeded are made likelier, as a demonstrator's would be; what a
jury says that a success is worth is its weight. A penalty holds the policy near the cloned one.

Source: reward-weighted regression with a reward of 0 or 1 (Peters and Schaal 2007, ICML), repeated on fresh dreams; the
likelihood of a diffusion's decision is that of its denoising chain, as PPO has it.
"""

from __future__ import annotations

import torch

from agents.imagination import RolloutBatch
from agents.updates.base import Decisions, Update


class FilteredBC(Update):
    """Maximum likelihood of the decisions of dreams that succeeded."""

    name = "filtered_bc"

    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        """Passes over those decisions."""
        # every decision of a dream has the dream's worth: [B] -> [B, H] -> [M]
        worth = rollouts.reward.sum(1)[:, None].expand(rollouts.alive.shape)[rollouts.alive]
        chosen = worth.nonzero().flatten()
        losses = []
        for _ in range(self.options.epochs):
            for rows in self.minibatches(len(chosen)) if len(chosen) else ():
                kept = chosen[rows]
                score = self.score(decisions.take(kept))
                likelihood = (worth[kept, None] * score.log_prob).mean()
                self.step(self.options.bc * score.divergence - likelihood)
                losses.append(-likelihood.detach())
        if not losses:
            # no dream succeeded, so that there is nothing to imitate
            return {"policy_steps": 0.0}
        return {"policy_steps": float(len(losses)), "policy_loss": torch.stack(losses).mean().item()}

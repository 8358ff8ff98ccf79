"""REINFORCE in imagination (Williams 1992): the smallest update there is, and the example to copy.

A dream's return is 1 for success, discounted by the time it took; its baseline is the mean over all dreams. One pass of
gradient steps makes the decisions of dreams that succeeded likelier, and a penalty holds the policy near the cloned
one. For an update of your own, copy this file, give the class another ``name``, and write `learn`; then
`--update my_file:Mine` runs it. docs/tutorial_update.md goes through it.
"""

from __future__ import annotations

import torch

from agents.imagination import RolloutBatch
from agents.updates.base import Decisions, Update, discounted_return


class Reinforce(Update):
    """The policy gradient, with the mean return as baseline."""

    name = "reinforce"

    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        """One pass over the decisions."""
        returns = discounted_return(rollouts, self.options.gamma)
        if not bool(returns.any()):
            # no dream succeeded, so that none is better than another
            return {"policy_steps": 0.0}
        relative = (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
        # every decision of a dream has the dream's advantage: [B] -> [B, H] -> [M]
        advantage = relative[:, None].expand(rollouts.alive.shape)[rollouts.alive]
        losses = []
        for rows in self.minibatches(len(advantage)):
            score = self.score(decisions.take(rows))
            gradient = -(advantage[rows, None] * score.log_prob).mean()
            self.step(gradient + self.options.bc * score.divergence)
            losses.append(gradient.detach())
        return {"policy_steps": float(len(losses)), "policy_loss": torch.stack(losses).mean().item()}

"""A new policy update from nothing: one file that works, and the tests that hold it to the contract."""

from __future__ import annotations

from pathlib import Path

from agents.updates.registry import UPDATES
from worldaction.scaffold import write_plugin

CODE = '''"""{title}: how a policy learns from dreams, in one sentence (the paper, its arXiv id)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agents.imagination import RolloutBatch
from agents.updates.base import Decisions, Update, discounted_return
from worldaction.config import UpdateConfig


@dataclass(frozen=True)
class {title}Config(UpdateConfig):
    """Options of `{title}`: those of every update and its own, set by {name}:{title},baseline=0.5."""

    baseline: float = 0.5
    """Return above which a dream is a good one, as a share of the best."""


class {title}(Update):
    """An example to be replaced: decisions of good dreams become likelier, those of others less likely."""

    name = "{name}"
    Options = {title}Config

    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        """See `Update.learn`."""
        returns = discounted_return(rollouts, self.options.gamma)
        if not bool(returns.any()):
            return {{"policy_steps": 0.0}}
        relative = returns - self.options.baseline * returns.max()
        # every decision of a dream has the dream's weight: [B] -> [B, H] -> [M]
        weight = relative[:, None].expand(rollouts.alive.shape)[rollouts.alive]
        losses = []
        for rows in self.minibatches(len(weight)):
            score = self.score(decisions.take(rows))
            loss = -(weight[rows, None] * score.log_prob).mean() + self.options.bc * score.divergence
            self.step(loss)
            losses.append(loss.detach())
        return {{"policy_steps": float(len(losses)), "policy_loss": torch.stack(losses).mean().item()}}
'''

TEST = '''"""{title} keeps to the contract, and learns nothing where there is nothing to learn."""

from __future__ import annotations

import torch

from agents.updates.tools.contract import check, run, small, weights
from {name} import {title}


def test_it_keeps_to_the_contract() -> None:
    assert check({title}) == []


def test_dreams_that_all_fail_teach_nothing() -> None:
    update = small({title}, iterations=3)
    update.success.goal = 99.0
    before = weights(update.policy)
    assert all(metrics["{name}/policy_steps"] == 0 for metrics in run(update))
    assert torch.equal(weights(update.policy), before)
'''


def new_update(name: str, folder: Path) -> tuple[Path, Path]:
    """Write an update that works and its tests; see `worldaction.scaffold.write_plugin`."""
    return write_plugin(UPDATES, name, folder, code=CODE, test=TEST)

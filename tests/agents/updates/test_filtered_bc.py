"""Filtered cloning imitates the dreams that succeed, by their worth, and is blind to the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from agents.imagination import RolloutBatch
from agents.updates.base import Decisions
from agents.updates.filtered_bc import FilteredBC
from agents.updates.tools.contract import small, weights


def dreamt(update: Any) -> tuple[RolloutBatch, Decisions]:
    """Dreams of the cloned policy, and their decisions."""
    rollouts = update._rollouts()
    return rollouts, update._decisions(rollouts)[0]


def learned(rollouts: RolloutBatch, decisions: Decisions) -> torch.Tensor:
    """The weights after an iteration that learns from these."""
    update = small(FilteredBC)
    # past the ramp of the learning rate
    update.iteration = 2
    update.learn(rollouts, decisions)
    return weights(update.policy.tuned)


def test_decisions_of_dreams_that_failed_change_nothing() -> None:
    rollouts, decisions = dreamt(small(FilteredBC))
    succeeded = rollouts.success.any(1)
    assert 0 < succeeded.sum() < len(succeeded)
    failed = (~succeeded)[:, None].expand(rollouts.alive.shape)[rollouts.alive]
    x = decisions.stored["x"].clone()
    x[failed] = float("nan")
    spoilt = decisions._replace(stored={"x": x})
    assert torch.equal(learned(rollouts, spoilt), learned(rollouts, decisions))
    assert not torch.equal(learned(rollouts, decisions), weights(small(FilteredBC).policy.tuned))


def test_without_a_success_the_policy_rests() -> None:
    update = small(FilteredBC)
    rollouts, decisions = dreamt(update)
    before = weights(update.policy.tuned)
    nothing = replace(rollouts, reward=torch.zeros_like(rollouts.reward), success=torch.zeros_like(rollouts.success))
    assert update.learn(nothing, decisions) == {"policy_steps": 0.0}
    assert torch.equal(weights(update.policy.tuned), before)


def test_what_a_jury_finds_worth_half_counts_half() -> None:
    update = small(FilteredBC, epochs=1, minibatch=10_000, bc=0.0)
    rollouts, decisions = dreamt(update)
    whole = update.learn(rollouts, decisions)["policy_loss"]
    halved = replace(rollouts, reward=rollouts.reward / 2)
    half = small(FilteredBC, epochs=1, minibatch=10_000, bc=0.0).learn(halved, decisions)["policy_loss"]
    assert half == pytest.approx(whole / 2, rel=1e-5)

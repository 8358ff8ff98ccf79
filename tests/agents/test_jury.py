"""What jurors say of dreamed actions, in a world so small that it can be computed by hand."""

from __future__ import annotations

import torch
from latent_world import CHUNK, DECISIONS, GOAL, Goal, World, mediocre, starts, steady

from agents.imagination import dream
from agents.jury import dreamed_actions, replayed_success
from agents.policies.diffusion import DiffusionPolicy

ROWS = torch.arange(32)


def acted(policy: DiffusionPolicy, decisions: int = DECISIONS) -> torch.Tensor:
    return dreamed_actions(World(), policy, starts(32), decisions=decisions, seed=3, rows=ROWS)


def replayed(actions: torch.Tensor, goal: float) -> torch.Tensor:
    return replayed_success(World(), Goal(goal), starts(32), actions, threshold=0.5, seed=3, rows=ROWS)


def test_a_model_says_of_its_own_dreams_what_it_dreamed() -> None:
    policy = mediocre()
    rollouts = dream(World(), policy, Goal(GOAL), starts(32), decisions=DECISIONS, threshold=0.5, seed=3, rows=ROWS)
    assert 0 < int((rollouts.success_step > 0).sum()) < 32
    assert replayed(acted(policy), GOAL).tolist() == rollouts.success_step.tolist()


def test_the_actions_of_a_dream_go_on_beyond_its_success() -> None:
    actions = acted(steady(1.0), decisions=4)
    assert actions.shape[:2] == (32, 4 * CHUNK)
    assert (actions[..., 0] - 1).abs().max() < 1e-3
    # a juror with a goal further away is asked about what comes later: .1 an action
    assert replayed(actions, 0.46).tolist() == [5] * 32
    assert replayed(actions, 0.74).tolist() == [8] * 32
    assert replayed(actions, 0.99).tolist() == [0] * 32

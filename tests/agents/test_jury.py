"""What jurors say of dreamed actions, in a world so small that it can be computed by hand."""

from __future__ import annotations

import pytest
import torch
from latent_world import CHUNK, DECISIONS, GOAL, Goal, World, mediocre, starts, steady

from agents.imagination import FixedStarts, RolloutBatch, dream
from agents.jury import Juror, Jury, dreamed_actions, judged_dream, replayed_success
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


def judged(*goals: float, policy: DiffusionPolicy | None = None) -> RolloutBatch:
    """Dreams of which success lies at `GOAL`, before jurors to whom it lies elsewhere."""
    scenes = FixedStarts(starts(32))
    jury = Jury([Juror(World(), Goal(goal), scenes) for goal in goals], threshold=0.5)
    return judged_dream(
        World(),
        policy or mediocre(),
        Goal(GOAL),
        scenes,
        ROWS,
        jury=jury if goals else None,
        decisions=DECISIONS,
        threshold=0.5,
        seed=3,
        rows=ROWS,
    )


def test_a_success_is_worth_the_share_of_all_models_that_see_one() -> None:
    alone, agreed, doubted, refused = judged(), judged(GOAL), judged(GOAL, 9.0, 9.0), judged(9.0)
    done = alone.success_step > 0
    assert 0 < int(done.sum()) < 32
    assert torch.equal(alone.reward, alone.success.float())
    for found, worth in ((agreed, 1.0), (doubted, 2 / 4), (refused, 1 / 2)):
        assert torch.equal(found.reward.sum(1), done * worth)
        # what was dreamed stays as it was, but for its worth
        assert torch.equal(found.success, alone.success)
        assert torch.equal(found.feature, alone.feature)
        assert found.summary()["imagined/success"] == alone.summary()["imagined/success"]
        assert found.summary()["imagined/reward"] == pytest.approx(worth * done.float().mean().item())


def test_dreams_that_fail_are_worth_nothing_whatever_jurors_think() -> None:
    eager = judged(-9.0)
    assert torch.equal(eager.reward.sum(1), (eager.success_step > 0).float())


def test_a_juror_is_not_asked_about_actions_after_the_decision_that_succeeded() -> None:
    # .1 an action: the dream ends with the decision of the action that reaches its goal, and a goal beyond is not met
    ends = judged(policy=steady(1.0)).alive.sum(1) * CHUNK
    reach = 0.1 * int(ends[0])
    assert judged(reach - 0.05, policy=steady(1.0)).reward.sum(1).tolist() == [1.0] * 32
    assert judged(reach + 0.05, policy=steady(1.0)).reward.sum(1).tolist() == [0.5] * 32

"""Dreams in a world so small that their outcome can be computed by hand."""

from __future__ import annotations

import pytest
import torch
from latent_world import CHUNK, DECISIONS, GOAL, Goal, World, mediocre, starts, steady

from agents.imagination import FirstFrames, RolloutBatch, dream
from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from worldaction.errors import UserError
from worldaction.losses.tools.contract import tiny_model
from worldaction.world_model.latent import Latent

POLICY = mediocre()


def imagine(
    policy: DiffusionPolicy | TunedPolicy = POLICY,
    *,
    rows: torch.Tensor | None = None,
    begin: Latent | None = None,
    goal: float = GOAL,
    min_std: float = 0.0,
    seed: int = 0,
) -> RolloutBatch:
    rows = torch.arange(64) if rows is None else rows
    return dream(
        World(),
        policy,
        Goal(goal),
        starts(len(rows)) if begin is None else begin,
        decisions=DECISIONS,
        threshold=0.5,
        seed=seed,
        rows=rows,
        min_std=min_std,
    )


def test_success_is_seen_at_the_very_action_that_reaches_the_goal() -> None:
    # 0.1 per action: 0.48 is passed by the fifth, the first of the third chunk, and 0.58 by the sixth, its second
    for goal, actions in ((0.46, 5), (0.56, 6)):
        rollouts = imagine(steady(1.0), goal=goal)
        assert rollouts.success_step.tolist() == [actions] * 64
        assert rollouts.alive.sum(1).tolist() == [3] * 64
        assert rollouts.success.nonzero()[:, 1].tolist() == [2] * 64
        assert rollouts.summary() == {"imagined/success": 1.0, "imagined/reward": 1.0, "imagined/time": actions}


def test_success_in_passing_counts() -> None:
    """The goal is left again within the chunk."""

    class Passing(Goal):
        def probability(self, feature: torch.Tensor) -> torch.Tensor:
            return ((feature[:, 0] - 0.3).abs() < 0.04).float()

    rollouts = dream(
        World(), steady(1.0), Passing(), starts(8), decisions=4, threshold=0.5, seed=0, rows=torch.arange(8)
    )
    assert rollouts.success_step.tolist() == [3] * 8


def test_dreams_without_success_run_to_the_end_and_have_no_time() -> None:
    rollouts = imagine(goal=9.0)
    assert rollouts.alive.all()
    assert rollouts.summary() == {"imagined/success": 0.0, "imagined/reward": 0.0}
    assert (rollouts.last_feature[:, 0] > 0).all()


def test_nothing_is_recorded_after_success() -> None:
    rollouts = imagine(steady(1.0))
    assert not rollouts.alive[:, 4:].any()
    assert rollouts.feature[~rollouts.alive].abs().sum() == 0
    assert rollouts.stored["states"][~rollouts.alive].abs().sum() == 0
    assert rollouts.last_feature.abs().sum() == 0


def test_dreams_do_not_depend_on_who_dreams_beside_them() -> None:
    tuned = TunedPolicy(POLICY, POLICY, trained_steps=3)
    rows = torch.arange(100, 164)
    whole = imagine(tuned, rows=rows, min_std=0.1)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    for part in order.split(24):
        alone = imagine(tuned, rows=rows[part], min_std=0.1)
        assert torch.equal(alone.success_step, whole.success_step[part])
        assert torch.allclose(alone.feature, whole.feature[part], atol=1e-5)
        assert torch.allclose(alone.stored["states"], whole.stored["states"][part], atol=1e-5)


def test_seeds_and_exploration_change_dreams() -> None:
    plain = imagine()
    assert torch.equal(imagine().feature, plain.feature)
    assert not torch.equal(imagine(seed=1).feature, plain.feature)
    assert not torch.equal(imagine(min_std=0.1).feature, plain.feature)


def test_features_are_those_that_the_policys_actions_lead_to() -> None:
    rollouts = imagine(TunedPolicy(POLICY, POLICY, trained_steps=2))
    actions = POLICY.to_actions(rollouts.stored["states"][:, :, -1].flatten(0, 1)).unflatten(0, rollouts.alive.shape)
    moved = rollouts.feature[:, 1:, 0] - rollouts.feature[:, :-1, 0]
    # the world adds at most 0.01 per action
    off = (moved - 0.1 * actions[:, :-1, :, 0].sum(-1)).abs()
    both = rollouts.alive[:, 1:]
    assert off[both].max() <= 0.01 * CHUNK + 1e-6


def test_dreams_leave_no_trace_for_gradients() -> None:
    rollouts = imagine(TunedPolicy(POLICY, mediocre(), trained_steps=2))
    assert not any(value.requires_grad for value in rollouts.tensors().values())


def test_a_scene_gives_every_dream_a_sample_of_its_own_and_the_same_one_in_any_batch() -> None:
    model = tiny_model().eval()
    scenes = FirstFrames(model, torch.randn(3, model.encoder.size, generator=torch.Generator().manual_seed(0)))
    which, rows = torch.arange(3).repeat(20), torch.arange(60)
    drawn = scenes.draw(which, seed=4, rows=rows)
    # twenty dreams of a scene do not begin alike
    assert all(len(drawn.code[which == scene].unique(dim=0)) > 5 for scene in range(3))
    for part in torch.randperm(60, generator=torch.Generator().manual_seed(1)).split(25):
        alone = scenes.draw(which[part], seed=4, rows=rows[part])
        assert torch.equal(alone.code, drawn.code[part])
        assert torch.allclose(alone.belief, drawn.belief[part], atol=1e-5)
    assert not torch.equal(scenes.draw(which, seed=5, rows=rows).code, drawn.code)
    assert not torch.equal(scenes.draw(which, seed=4, rows=rows + 60).code, drawn.code)


def test_each_start_needs_its_row() -> None:
    with pytest.raises(UserError, match="3 rows for 2 starts"):
        imagine(rows=torch.arange(3), begin=starts(2))

"""What PPO minimises, against closed forms and one-at-a-time arithmetic."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
from latent_world import FEATURE, mediocre
from torch import Tensor

from agents.imagination import RolloutBatch
from agents.policies.base import Score
from agents.policies.diffusion import TunedPolicy, chain_means, divergence, gaussian_log_prob
from agents.updates.objective import (
    Objective,
    PolicyLoss,
    clip_schedule,
    denoising_discount,
    explained_variance,
    normalise,
    policy_loss,
    targets_of,
)

CLONED = mediocre()


def test_clip_ranges_are_those_of_dppo() -> None:
    expected = [0.0010, 0.0012, 0.0015, 0.0018, 0.0023, 0.0030, 0.0040, 0.0054, 0.0073, 0.0100]
    assert clip_schedule(10, 0.01, 0.001).tolist() == pytest.approx(expected, abs=6e-5)
    assert clip_schedule(1, 0.01, 0.001).tolist() == pytest.approx([0.01])


def test_advantage_counts_most_at_the_last_denoising_step() -> None:
    discount = denoising_discount(10, 0.99)
    assert discount[0].item() == pytest.approx(0.9135, abs=1e-4)
    assert discount[-1] == 1
    assert (discount.diff() > 0).all()


def test_divergence_is_the_kl_of_gaussians_per_number() -> None:
    means, base = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(0))
    std = torch.tensor([0.3, 0.2, 0.1])
    spread = std[:, None].expand_as(means)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(means, spread), torch.distributions.Normal(base, spread)
    )
    assert divergence(means, base, std).item() == pytest.approx(kl.mean().item(), rel=1e-5)


STD = CLONED.schedule.sigma[:4].flip(0).clamp(min=0.1)


class Batch(NamedTuple):
    """Decisions of the cloned policy with made-up advantages."""

    feature: Tensor
    stored: dict[str, Tensor]
    log_prob: Tensor
    advantage: Tensor


def decisions(count: int = 40) -> tuple[TunedPolicy, Batch, Objective]:
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(count, FEATURE, generator=generator)
    policy = TunedPolicy(CLONED, copy.deepcopy(CLONED).requires_grad_(True), trained_steps=4)
    stored = policy.decide(feature, torch.randn(count, *CLONED.noise_shape, generator=generator), min_std=0.1).stored
    log_prob = policy.score_when_taken(feature, stored, min_std=0.1).log_prob
    assert torch.equal(log_prob, gaussian_log_prob(stored["states"][:, 1:], stored["means"], STD))
    batch = Batch(feature, stored, log_prob, torch.randn(count, generator=generator))
    clip, discount = clip_schedule(4, 0.05, 0.01), denoising_discount(4, 0.9)
    return policy, batch, Objective(clip, discount, bc=0.5, numbers=CLONED.chunk_size)


def loss_of(policy: TunedPolicy, batch: Batch, objective: Objective) -> PolicyLoss:
    score = policy.score(batch.feature, batch.stored, min_std=0.1)
    assert isinstance(score, Score)
    return policy_loss(score, batch.log_prob, normalise(batch.advantage), objective)


def test_policy_that_dreamed_has_ratio_one() -> None:
    policy, batch, objective = decisions()
    loss = loss_of(policy, batch, objective)
    assert loss.surrogate.item() == pytest.approx(0, abs=1e-5)  # the mean of normalised advantages
    assert loss.approx_kl.item() == pytest.approx(0, abs=1e-5)
    assert loss.clip_fraction.tolist() == [0] * 4
    assert loss.divergence.item() == pytest.approx(0, abs=1e-8)


def test_loss_is_the_clipped_surrogate_of_every_step_computed_one_at_a_time() -> None:
    policy, batch, objective = decisions()
    with torch.no_grad():
        for parameter in policy.tuned.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    loss = loss_of(policy, batch, objective)
    advantage = (batch.advantage - batch.advantage.mean()) / batch.advantage.std(correction=0)
    condition = policy.tuned.condition(batch.feature)
    terms, outside, apart = [], [0] * 4, []
    for i in range(4):
        k = torch.tensor(3 - i)
        mean, std = policy.tuned.mean(condition, batch.stored["states"][:, i], k), float(STD[i])
        clip, weight = float(objective.clip[i]), 0.9 ** float(k)
        for b in range(len(batch.feature)):
            now = gaussian_log_prob(batch.stored["states"][b, i + 1], mean[b], torch.tensor(std)).item()
            ratio, a = math.exp(now - batch.log_prob[b, i].item()), weight * float(advantage[b])
            terms.append(min(ratio * a, min(max(ratio, 1 - clip), 1 + clip) * a))
            outside[i] += abs(ratio - 1) > clip
            apart += (((mean[b] - batch.stored["base_means"][b, i]) / std) ** 2 / 2).tolist()
    assert loss.surrogate.item() == pytest.approx(-sum(terms) / len(terms), rel=1e-4)
    assert loss.divergence.item() == pytest.approx(sum(apart) / len(apart), rel=1e-4)
    assert loss.total.item() == pytest.approx(loss.surrogate.item() + 0.5 * loss.divergence.item(), rel=1e-5)
    assert loss.clip_fraction.tolist() == pytest.approx([n / len(batch.feature) for n in outside])


def test_approx_kl_is_the_kl_of_a_whole_decision() -> None:
    policy, batch, objective = decisions(4000)
    with torch.no_grad():
        for parameter in policy.tuned.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    loss, states = loss_of(policy, batch, objective), batch.stored["states"]
    means = chain_means(policy.tuned, batch.feature, states)
    normal = torch.distributions.Normal
    then, now = normal(batch.stored["means"], STD[:, None]), normal(means, STD[:, None])
    # of all numbers of a chunk and all trained steps
    expected = torch.distributions.kl_divergence(then, now).sum((1, 2)).mean().item()
    assert expected > 0.1
    assert loss.approx_kl.item() == pytest.approx(expected, rel=0.1)


def test_clipped_ratios_give_no_gradient() -> None:
    policy, batch, objective = decisions()
    # the dreaming policy had found every step less likely by far, and all advantages are equal but one bad one
    batch = batch._replace(
        log_prob=batch.log_prob - 1.0, advantage=torch.ones(40).index_fill(0, torch.tensor([0]), -40)
    )
    batch = batch._replace(log_prob=batch.log_prob.index_fill(0, torch.tensor([0]), 50.0))
    loss_of(policy, batch, dataclasses.replace(objective, bc=0.0)).total.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in policy.tuned.parameters())


def three_dreams() -> RolloutBatch:
    """Of three decisions each: success at the second, none, success at the third. Features count from 1."""
    alive = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1]]).bool()
    success = torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 1]]).bool()
    feature = torch.arange(1.0, 10.0).view(3, 3, 1) * alive[..., None]
    return RolloutBatch(feature, {}, alive, success, success.float(), torch.tensor([2, 0, 3]), torch.full((3, 1), 10.0))


def its_feature(feature: Tensor, left: Tensor) -> Tensor:
    """The value of a state is its feature, so that a mix-up of states shows."""
    return feature[..., 0]


@pytest.mark.parametrize("after", [0, 10])
def test_success_ends_the_future_and_so_does_the_limit_unless_the_end_of_the_dream_asks_the_critic(after: int) -> None:
    rollouts, bootstrap = three_dreams(), after > 0
    taken = targets_of(rollouts, its_feature, gamma=0.5, gae_lambda=0.0, bootstrap=bootstrap)
    assert taken.value.tolist() == rollouts.feature[rollouts.alive][:, 0].tolist() == [1, 2, 4, 5, 6, 7, 8, 9]
    assert taken.target.tolist() == [0.5 * 2, 1, 0.5 * 5, 0.5 * 6, 0.5 * after, 0.5 * 8, 0.5 * 9, 1]
    returns = targets_of(rollouts, its_feature, gamma=0.5, gae_lambda=1.0, bootstrap=bootstrap)
    assert returns.target.tolist() == pytest.approx([0.5, 1, 0.125 * after, 0.25 * after, 0.5 * after, 0.25, 0.5, 1])


def test_dreams_that_never_succeed_are_worth_nothing_whatever_the_critic_believed() -> None:
    rollouts = three_dreams()
    rollouts = dataclasses.replace(
        rollouts,
        success=torch.zeros_like(rollouts.success),
        reward=torch.zeros_like(rollouts.reward),
        alive=torch.ones_like(rollouts.alive),
    )
    taken = targets_of(rollouts, lambda f, left: torch.ones_like(left), gamma=1.0, gae_lambda=1.0)
    assert taken.target.tolist() == [0.0] * 9


def test_the_critic_is_told_how_much_of_the_limit_is_left() -> None:
    rollouts = three_dreams()
    taken = targets_of(rollouts, lambda f, left: left, gamma=0.5, gae_lambda=0.0)
    shares = [1, 2 / 3, 1, 2 / 3, 1 / 3, 1, 2 / 3, 1 / 3]
    assert taken.left.tolist() == taken.value.tolist() == pytest.approx(shares)
    blind = targets_of(rollouts, its_feature, gamma=0.5, gae_lambda=0.0, bootstrap=True)
    assert blind.left.tolist() == [0] * 8


def test_explained_variance_is_one_for_the_truth_and_zero_for_a_constant() -> None:
    target = torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert explained_variance(target, target) == 1
    assert explained_variance(torch.full((4,), 0.7), target).item() == pytest.approx(0, abs=1e-6)

"""The critic can learn a value, which is a probability."""

from __future__ import annotations

import pytest
import torch

from agents.updates.critic import Critic


def fitted(feature: torch.Tensor, left: torch.Tensor, target: torch.Tensor, *, steps: int = 100) -> Critic:
    torch.manual_seed(0)
    critic = Critic(feature.shape[-1], 32)
    optimiser = torch.optim.AdamW(critic.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        critic.loss(feature, left, target).backward()
        optimiser.step()
    return critic


def test_critic_fits_a_value_of_state_and_time_from_examples() -> None:
    torch.manual_seed(0)
    feature, left = torch.randn(512, 4), torch.rand(512)
    value = left * feature[:, 0].sigmoid()
    found = fitted(feature, left, value)(feature, left)
    assert (found - value).square().mean() < 0.05 * value.var()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_of_returns_that_vary_it_learns_the_mean(share: float) -> None:
    target = (torch.arange(200) < 200 * share).float()
    feature, left = torch.zeros(200, 4), torch.ones(200)
    assert fitted(feature, left, target)(feature[0], left[0]).item() == pytest.approx(share, abs=0.01)


def test_a_value_is_a_probability_whatever_the_state() -> None:
    torch.manual_seed(0)
    value = Critic(4, 8)(1000 * torch.randn(500, 4), torch.rand(500))
    assert value.min() >= 0
    assert value.max() <= 1


def test_value_has_one_number_per_state_and_no_look_at_the_others() -> None:
    torch.manual_seed(0)
    critic, feature, left = Critic(4, 8), torch.randn(5, 3, 4), torch.rand(5, 3)
    assert critic(feature, left).shape == (5, 3)
    assert torch.allclose(critic(feature, left)[2, 1], critic(feature[2, 1], left[2, 1]), atol=1e-6)

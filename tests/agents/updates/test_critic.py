"""The critic can learn a value."""

from __future__ import annotations

import torch

from agents.updates.critic import Critic


def test_critic_fits_a_value_of_state_and_time_from_examples() -> None:
    torch.manual_seed(0)
    critic, feature, left = Critic(4, 32), torch.randn(512, 4), torch.rand(512)
    value = left * feature[:, 0].tanh()
    optimiser = torch.optim.AdamW(critic.parameters(), lr=1e-2)
    for _ in range(100):
        loss = (critic(feature, left) - value).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05 * value.var()


def test_value_has_one_number_per_state_and_no_look_at_the_others() -> None:
    torch.manual_seed(0)
    critic, feature, left = Critic(4, 8), torch.randn(5, 3, 4), torch.rand(5, 3)
    assert critic(feature, left).shape == (5, 3)
    assert torch.allclose(critic(feature, left)[2, 1], critic(feature[2, 1], left[2, 1]), atol=1e-6)

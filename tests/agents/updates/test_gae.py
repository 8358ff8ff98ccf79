"""Advantages against a loop in float64, against TorchRL, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchrl.objectives.value.functional import generalized_advantage_estimate

from agents.updates.gae import gae

GAMMA, LAMBDA = 0.97, 0.9


def episodes(batch: int = 40, time: int = 12) -> dict[str, Tensor]:
    """Episodes that end in every way, then nothing."""
    generator = torch.Generator().manual_seed(0)
    reward, value, next_value = torch.randn(3, batch, time, generator=generator, dtype=torch.float64)
    end = torch.randint(time, (batch, 1), generator=generator)
    clock = torch.arange(time)
    terminated = (clock == end) & (torch.rand(batch, 1, generator=generator) < 0.5)
    truncated = (clock == end) & ~terminated
    return {
        "reward": reward,
        "value": value,
        "next_value": next_value,
        "terminated": terminated,
        "truncated": truncated,
        "alive": clock <= end,
    }


def loop(data: dict[str, Tensor]) -> Tensor:
    """The definition: a sum of discounted residuals up to the end of the episode."""
    result = torch.zeros_like(data["reward"])
    for b, t in data["alive"].nonzero().tolist():
        weight = 1.0
        for u in range(t, data["reward"].shape[1]):
            future = 0.0 if data["terminated"][b, u] else GAMMA * data["next_value"][b, u]
            result[b, t] += weight * (data["reward"][b, u] + future - data["value"][b, u])
            weight *= GAMMA * LAMBDA
            if data["terminated"][b, u] or data["truncated"][b, u]:
                break
    return result


def test_advantage_is_the_discounted_sum_of_residuals_until_the_end() -> None:
    data = episodes()
    advantage, target = gae(**data, gamma=GAMMA, gae_lambda=LAMBDA)
    assert torch.allclose(advantage, loop(data))
    assert torch.allclose(target, (advantage + data["value"]) * data["alive"])


def test_torchrl_agrees_where_episodes_are_complete() -> None:
    data = episodes()
    done = data["terminated"] | data["truncated"]
    everywhere = data | {"alive": torch.ones_like(done)}
    inputs = [
        data[k][..., None] for k in ("value", "next_value", "reward")
    ]  # TorchRL wants a trailing feature dimension
    expected, target = generalized_advantage_estimate(
        GAMMA, LAMBDA, *inputs, done=done[..., None], terminated=data["terminated"][..., None]
    )
    ours = gae(**everywhere, gamma=GAMMA, gae_lambda=LAMBDA)
    assert torch.allclose(ours[0], expected[..., 0])
    assert torch.allclose(ours[1], target[..., 0])


def test_termination_ends_the_future_and_truncation_asks_the_critic() -> None:
    one = torch.ones(1, 1)
    yes, no = one.bool(), torch.zeros(1, 1, dtype=torch.bool)
    options = {"gamma": 0.5, "gae_lambda": 1.0}
    assert gae(one, one, 4 * one, yes, no, yes, **options)[1].item() == 1.0
    assert gae(one, one, 4 * one, no, yes, yes, **options)[1].item() == 3.0


@pytest.mark.parametrize("key", ["reward", "value", "next_value"])
def test_what_stands_after_the_end_is_never_read(key: str) -> None:
    data = episodes()
    poisoned = data | {key: data[key].masked_fill(~data["alive"], torch.nan)}
    for clean, result in zip(
        gae(**data, gamma=GAMMA, gae_lambda=LAMBDA), gae(**poisoned, gamma=GAMMA, gae_lambda=LAMBDA), strict=True
    ):
        assert torch.equal(clean, result)

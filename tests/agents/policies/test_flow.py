"""The flow head: straight paths end where demonstrations are, its steps are normal, and it takes sides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from agents.bc import clone
from agents.policies.flow import FlowPolicy
from worldaction.errors import UserError

FEATURE, ACTION, CHUNK = 3, 2, 4


def policy(steps: int = 4) -> FlowPolicy:
    return FlowPolicy(FEATURE, ACTION, chunk=CHUNK, width=16, steps=steps)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_from_any_noise_the_velocity_towards_one_action_ends_there(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, goal = policy(steps), torch.linspace(-0.9, 0.9, CHUNK * ACTION)
    # of demonstrations that are all alike the velocity is known
    monkeypatch.setattr(made, "velocity", lambda condition, x, t: (goal - x) / (1.0 - t[..., None]))
    found = made.sample(torch.zeros(6, FEATURE), torch.randn(6, *made.noise_shape))
    torch.testing.assert_close(found, made.to_actions(goal.expand(6, -1)))


def test_the_loss_is_zero_for_who_knows_the_path_and_the_error_of_who_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made, goal = policy(), torch.rand(5, CHUNK, ACTION)
    noise, t = torch.randn(5, CHUNK * ACTION), torch.rand(5)
    way = goal.flatten(1) - noise
    seen: list[Tensor] = []

    def knows(condition: Tensor, x: Tensor, at: Tensor) -> Tensor:
        seen.append(x)
        return way

    monkeypatch.setattr(made, "velocity", knows)
    assert made.loss(torch.zeros(5, FEATURE), goal, noise, t).item() == 0.0
    # and is asked where the path is at that time
    torch.testing.assert_close(seen[0], noise + t[:, None] * way)
    monkeypatch.setattr(made, "velocity", lambda condition, x, at: way + 0.5)
    assert made.loss(torch.zeros(5, FEATURE), goal, noise, t).item() == pytest.approx(0.25, rel=1e-5)


def test_exploring_adds_noise_of_the_asked_deviation_and_nothing_else() -> None:
    made = policy()
    feature = torch.randn(2000, FEATURE)
    noise = torch.randn(2000, *made.noise_shape).clamp(-3, 3)
    assert torch.equal(made.decide(feature, noise, min_std=0.0).actions, made.sample(feature, noise))
    states = made.decide(feature, noise, min_std=0.2).stored["states"]
    added = states[:, 1:] - made.means(feature, states)
    torch.testing.assert_close(added, 0.2 * noise[:, 1:], atol=1e-5, rtol=1e-4)


def test_log_probability_and_divergence_are_those_of_normal_steps() -> None:
    made, other = policy().double(), policy().double()
    feature = torch.randn(7, FEATURE, dtype=torch.float64)
    stored = made.decide(feature, torch.randn(7, *made.noise_shape, dtype=torch.float64), min_std=0.3).stored
    mean, before = made.means(feature, stored["states"]), other.means(feature, stored["states"])
    normal = Normal(mean, 0.3)
    log_prob = made.log_prob(feature, stored, min_std=0.3)
    torch.testing.assert_close(log_prob, normal.log_prob(stored["states"][:, 1:]).mean(-1))
    apart = made.divergence(other, feature, stored, log_prob, min_std=0.3)
    torch.testing.assert_close(apart, kl_divergence(normal, Normal(before, 0.3)).mean())
    with pytest.raises(UserError, match=r"a flow without added noise has no probability; give --update\.min-std"):
        made.log_prob(feature, stored, min_std=0.0)


def test_all_its_steps_are_trained() -> None:
    pair = policy(steps=3).improvable(trained_steps=10)
    assert pair.trained_steps == 3
    assert pair.config["trained_steps"] == 3


@pytest.mark.parametrize("steps", [4, 10])
def test_a_clone_follows_what_is_sure_and_takes_one_side_where_there_are_two(steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    feature = torch.rand(3000, FEATURE, generator=generator) * 2 - 1
    side = torch.randint(2, (3000,), generator=generator) * 2.0 - 1.0
    chunk = torch.stack([0.6 * side, 0.8 * feature[:, 0], feature[:, 1].sign()], -1)[:, None]
    recipe: dict[str, Any] = {"steps": 800, "batch": 256, "lr": 3e-3, "weight_decay": 0.0, "ema": 0.99, "seed": 0}
    made = clone(FlowPolicy, feature[None], chunk, options={"width": 128, "steps": steps}, **recipe)
    actions = made.sample(feature[:500], torch.randn(500, *made.noise_shape, generator=generator))
    side, followed, grip = actions[:, 0].unbind(-1)
    assert (followed - 0.8 * feature[:500, 0]).abs().mean() < 0.08
    assert (grip == feature[:500, 1].sign())[feature[:500, 1].abs() > 0.2].float().mean() > 0.95
    # a mean would be 0
    assert (side.abs() - 0.6).abs().mean() < 0.2
    assert 0.3 < (side > 0).float().mean() < 0.7

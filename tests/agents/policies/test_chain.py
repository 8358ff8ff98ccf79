"""Heads of few steps: flows end where demonstrations are, BESO knows its noise levels, and both take sides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from agents.bc import clone
from agents.policies.beso import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN, BesoPolicy
from agents.policies.chain import ChainPolicy, TunedChain
from agents.policies.flow import FlowPolicy
from worldaction.errors import UserError

FEATURE, ACTION, CHUNK = 3, 2, 4
HEADS = [FlowPolicy, BesoPolicy]


def made(cls: Any, steps: int = 4) -> Any:
    head: ChainPolicy = cls(FEATURE, ACTION, chunk=CHUNK, width=16, steps=steps)
    return head


# Flow -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_from_any_noise_the_velocity_towards_one_action_ends_there(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head, goal = made(FlowPolicy, steps), torch.linspace(-0.9, 0.9, CHUNK * ACTION)
    # of demonstrations that are all alike the velocity is known
    monkeypatch.setattr(head, "velocity", lambda condition, x, t: (goal - x) / (1.0 - t[..., None]))
    found = head.sample(torch.zeros(6, FEATURE), torch.randn(6, *head.noise_shape))
    torch.testing.assert_close(found, head.to_actions(goal.expand(6, -1)))


def test_a_flow_s_loss_is_zero_for_who_knows_the_path_and_the_error_of_who_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, goal = made(FlowPolicy), torch.rand(5, CHUNK, ACTION)
    noise, t = torch.randn(5, CHUNK * ACTION), torch.rand(5)
    way = goal.flatten(1) - noise
    seen: list[Tensor] = []

    def knows(condition: Tensor, x: Tensor, at: Tensor) -> Tensor:
        seen.append(x)
        return way

    monkeypatch.setattr(head, "velocity", knows)
    assert head.loss(torch.zeros(5, FEATURE), goal, noise, t).item() == 0.0
    # and is asked where the path is at that time
    torch.testing.assert_close(seen[0], noise + t[:, None] * way)
    monkeypatch.setattr(head, "velocity", lambda condition, x, at: way + 0.5)
    assert head.loss(torch.zeros(5, FEATURE), goal, noise, t).item() == pytest.approx(0.25, rel=1e-5)


# BESO -----------------------------------------------------------------------------------------------------------------


def test_what_beso_s_network_has_to_say_is_of_order_one_at_every_level() -> None:
    head = made(BesoPolicy)
    for parameter in head.net.out.parameters():
        torch.nn.init.zeros_(parameter)
    generator = torch.Generator().manual_seed(0)
    # of normal chunks of the deviation it is made for, saying nothing is wrong by 1, whatever the noise (EDM, table 1)
    chunk = SIGMA_DATA * torch.randn(20_000, CHUNK, ACTION, generator=generator)
    noise = torch.randn(20_000, CHUNK * ACTION, generator=generator)
    for sigma in (SIGMA_MIN, 0.05, 0.5, SIGMA_MAX):
        loss = head.loss(torch.zeros(20_000, FEATURE), chunk, noise, torch.full((20_000,), sigma))
        assert loss.item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("deterministic", [True, False])
def test_beso_s_chain_has_the_noise_of_its_levels_and_ends_in_the_action(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, goal = made(BesoPolicy), torch.linspace(-0.9, 0.9, CHUNK * ACTION)
    monkeypatch.setattr(head, "predict", lambda condition, x, sigma: goal.expand_as(x))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, *head.noise_shape, generator=generator)
    states = head._chain(torch.zeros(20_000, FEATURE), noise, min_std=0.0, deterministic=deterministic)
    found, expected = states - goal, head.sigma[1:].tolist()
    if deterministic:
        # how far away the chain began shrinks with the level
        for step, sigma in enumerate(expected, 1):
            torch.testing.assert_close(found[:, step], found[:, 0] * sigma / SIGMA_MAX, atol=1e-6, rtol=1e-4)
    else:
        spread = found[:, 1:].std(0).mean(-1).tolist()
        assert spread == pytest.approx(expected, rel=0.03, abs=1e-6)
    torch.testing.assert_close(found[:, -1], torch.zeros_like(found[:, -1]), atol=1e-6, rtol=0.0)


# Both -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", HEADS)
def test_exploring_adds_noise_of_the_asked_deviation_at_least_and_nothing_else(cls: Any) -> None:
    head = made(cls)
    feature = torch.randn(500, FEATURE)
    noise = torch.randn(500, *head.noise_shape).clamp(-3, 3)
    assert torch.equal(head.decide(feature, noise, min_std=0.0).actions, head.sample(feature, noise))
    states = head.decide(feature, noise, min_std=0.2).stored["states"]
    std = head.own_std().clamp(min=0.2)
    added = states[:, 1:] - head.means(feature, states, 0.2)
    torch.testing.assert_close(added, std[:, None] * noise[:, 1:], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("cls", HEADS)
def test_log_probability_and_divergence_are_those_of_normal_steps(cls: Any) -> None:
    head, other = made(cls).double(), made(cls).double()
    feature = torch.randn(7, FEATURE, dtype=torch.float64)
    stored = head.decide(feature, torch.randn(7, *head.noise_shape, dtype=torch.float64), min_std=0.3).stored
    mean, before = (one.means(feature, stored["states"], 0.3) for one in (head, other))
    std = head.own_std().double().clamp(min=0.3)[:, None]
    normal = Normal(mean, std)
    log_prob = head.log_prob(feature, stored, min_std=0.3)
    torch.testing.assert_close(log_prob, normal.log_prob(stored["states"][:, 1:]).mean(-1))
    apart = TunedChain(other, head).score(feature, stored, min_std=0.3).divergence
    torch.testing.assert_close(apart, kl_divergence(normal, Normal(before, std)).mean())
    with pytest.raises(UserError, match=r"without noise has no probability; give --update\.min-std above 0"):
        head.log_prob(feature, stored, min_std=0.0)


@pytest.mark.parametrize("cls", HEADS)
def test_exploring_leaves_a_clone_near_what_it_learned_and_every_step_can_learn(cls: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    feature = torch.rand(2000, FEATURE, generator=generator) * 2 - 1
    chunk = 0.8 * feature[:, :2].unsqueeze(1)
    recipe: dict[str, Any] = {"steps": 400, "batch": 256, "lr": 3e-3, "weight_decay": 0.0, "ema": 0.99, "seed": 0}
    head = clone(cls, feature[None], chunk, options={"width": 64}, binary=(), **recipe)
    noise = torch.randn(2000, *head.noise_shape, generator=generator)
    decided = head.decide(feature, noise, min_std=0.1)
    # a step of noise more or less, and not what a network says of levels that it never saw
    assert (decided.actions - chunk).square().mean().sqrt() < 0.12
    score = head.requires_grad_(True).log_prob(feature, decided.stored, min_std=0.1)
    norms = []
    for column in score.mean(0):
        head.zero_grad()
        column.backward(retain_graph=True)
        norms.append(torch.cat([p.grad.flatten() for p in head.parameters() if p.grad is not None]).norm().item())
    assert max(norms) < 5 * min(norms), norms


@pytest.mark.parametrize("cls", HEADS)
def test_all_their_steps_are_trained(cls: Any) -> None:
    pair = made(cls, steps=3).improvable(trained_steps=10)
    assert pair.trained_steps == 3
    assert pair.config["trained_steps"] == 3


@pytest.mark.parametrize(("cls", "steps"), [(FlowPolicy, 4), (FlowPolicy, 10), (BesoPolicy, 3), (BesoPolicy, 10)])
def test_a_clone_follows_what_is_sure_and_takes_one_side_where_there_are_two(cls: Any, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    feature = torch.rand(3000, FEATURE, generator=generator) * 2 - 1
    side = torch.randint(2, (3000,), generator=generator) * 2.0 - 1.0
    chunk = torch.stack([0.6 * side, 0.8 * feature[:, 0], feature[:, 1].sign()], -1)[:, None]
    recipe: dict[str, Any] = {"steps": 800, "batch": 256, "lr": 3e-3, "weight_decay": 0.0, "ema": 0.99, "seed": 0}
    head = clone(cls, feature[None], chunk, options={"width": 128, "steps": steps}, **recipe)
    actions = head.sample(feature[:500], torch.randn(500, *head.noise_shape, generator=generator))
    side, followed, grip = actions[:, 0].unbind(-1)
    assert (followed - 0.8 * feature[:500, 0]).abs().mean() < 0.08
    assert (grip == feature[:500, 1].sign())[feature[:500, 1].abs() > 0.2].float().mean() > 0.95
    # a mean would be 0
    assert (side.abs() - 0.6).abs().mean() < 0.2
    assert 0.3 < (side > 0).float().mean() < 0.7

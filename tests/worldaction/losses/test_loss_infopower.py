"""InfoPower: the surprise is a Gaussian's, and empowerment is known where the action decides what is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from worldaction.losses.infopower import NARROWEST, InfoPower, surprise
from worldaction.losses.tools import contract
from worldaction.spec import ACTION_MASK, IS_INIT


def test_surprise_is_that_of_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters, action = torch.randn(5, 6, generator=generator), torch.randn(5, 3, generator=generator)
    mean, raw = parameters.chunk(2, -1)
    expected = -Normal(mean, F.softplus(raw) + NARROWEST).log_prob(action).sum(-1)
    assert torch.allclose(surprise(parameters, action), expected, atol=1e-5)


def empowerment(*, moves: bool) -> float:
    """Nats per action that a trained loss finds in a world that the actions move, or that moves by itself."""
    one = contract.trial(InfoPower)
    loss, generator = InfoPower(InfoPower.Options(contrast=0.0), one.loss.shapes), torch.Generator().manual_seed(0)
    taps = {tap: torch.zeros(16, 8, getattr(one.latents, tap).shape[-1]) for tap in ("belief", "state")}
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    batch = contract.noise_batch(16, 8)
    found = []
    for _ in range(120):
        push, other = (torch.rand(2, 16, 8, 7, generator=generator) * 2 - 1).unbind(0)
        batch["previous_action"] = push
        place = F.pad((push if moves else other).cumsum(1), (0, loss.shapes.embed - 7))
        output = loss(replace(one.latents, embed=place, **taps), batch, one.model)
        optimizer.zero_grad()
        output.mean().backward()
        optimizer.step()
        found.append(float(output.metrics["empowerment"]))
    return sum(found[-20:]) / 20


def test_empowerment_is_found_where_the_robot_moves_things_and_nowhere_else() -> None:
    assert empowerment(moves=True) > 1.0
    assert abs(empowerment(moves=False)) < 0.5


def test_what_the_present_frame_says_of_the_action_teaches_nothing() -> None:
    one = contract.trial(InfoPower)
    loss = InfoPower(InfoPower.Options(contrast=0.0), one.loss.shapes)
    for parameter in loss.inverse_net.parameters():
        torch.nn.init.zeros_(parameter)
    output = loss(one.latents, one.batch, one.model)
    embed, behaviour = torch.autograd.grad(output.mean(), [one.latents.embed, loss.behaviour_net[0].weight])
    assert embed.abs().max() == 0.0
    assert behaviour.abs().max() > 0.0


def test_frames_without_actions_are_told_apart_all_the_same() -> None:
    one = contract.trial(InfoPower)
    all_known = float(one.run().mean().detach())
    one.batch[ACTION_MASK] = torch.zeros_like(one.batch[IS_INIT])
    output = one.run()
    assert output.metrics["empowerment"] == 0.0
    assert 0 < float(output.mean().detach()) != pytest.approx(all_known)

"""Latent actions: nearest codes, a transport that begins as the identity, and codes that learn what the robot did."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from worldaction.losses.latent_action import Codebook, LatentAction
from worldaction.losses.tools import contract
from worldaction.spec import ACTION_MASK, IS_INIT


def test_what_is_read_is_replaced_by_the_nearest_code_and_keeps_its_gradient() -> None:
    book = Codebook(3, 2)
    book.codes.data = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[0.9, 0.2], [0.1, 0.2]], requires_grad=True)
    code, pull, taken = book(x)
    assert taken.tolist() == [1, 0]
    assert torch.allclose(code, book.codes[[1, 0]])
    assert torch.allclose(pull, torch.tensor([1.25 * (0.01 + 0.04), 1.25 * (0.01 + 0.04)]))
    (gradient,) = torch.autograd.grad(code.sum(), x)
    assert torch.equal(gradient, torch.ones(2, 2))


def test_the_slices_stay_at_first_and_can_change_places() -> None:
    one = contract.trial(LatentAction)
    loss, size = one.loss, one.loss.shapes.seen
    loss.residual_net = torch.nn.Linear(size + 8, size)
    for part in (loss.residual_net, loss.transport):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    now = torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    code = torch.zeros(5, 8)
    share = torch.tensor(4.0).exp() / (torch.tensor(4.0).exp() + loss.tokens - 1)
    slices = now.unflatten(-1, (loss.tokens, -1))
    expected = share * slices + (1 - share) / (loss.tokens - 1) * (slices.sum(1, keepdim=True) - slices)
    assert torch.allclose(loss.predict(now, code), expected.flatten(1), atol=1e-5)
    # a matrix that brings every slice to the next place
    move = 50.0 * torch.eye(loss.tokens).roll(1, 0)
    loss.transport.bias.data = move.flatten()
    assert torch.allclose(loss.predict(now, code), slices.roll(1, 1).flatten(1), atol=1e-4)


def trained_on_pushes(*options: tuple[str, str]) -> dict[str, float]:
    """The metrics of a loss after training in a world in which each number of the action pushes one of the embedding.

    Four actions of ten are known.
    """
    one = contract.trial(contract.variant(LatentAction, [("steps", "1"), *options]))
    loss, generator = one.loss, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    batch = contract.noise_batch(16, 8)
    batch[ACTION_MASK] = torch.rand(16, 8, generator=generator) < 0.4
    for _ in range(120):
        push = torch.rand(16, 8, 7, generator=generator) * 2 - 1
        batch["previous_action"] = push
        place = F.pad(push.cumsum(1), (0, loss.shapes.embed - 7))
        output = loss(replace(one.latents, embed=place), batch, one.model)
        optimizer.zero_grad()
        output.mean().backward()
        optimizer.step()
    return {name: float(value) for name, value in output.metrics.items()}


@pytest.mark.parametrize("options", [(), (("difference", "true"),)])
def test_a_code_of_a_step_tells_the_action_that_made_it(options: tuple[tuple[str, str], ...]) -> None:
    # chance is 0.5
    assert trained_on_pushes(*options)["l1"] < 0.35


def test_more_codes_in_the_list_tell_more_of_a_step() -> None:
    few, many = (trained_on_pushes(("vocabulary", count)) for count in ("1", "16"))
    assert few["codes_in_use"] == pytest.approx(1.0)
    assert many["codes_in_use"] > 2.0
    assert many["error"] < few["error"]


def test_frames_without_actions_teach_and_their_placeholders_do_not() -> None:
    one = contract.trial(LatentAction)
    one.batch[ACTION_MASK] = torch.zeros_like(one.batch[IS_INIT])
    output = one.run()
    assert output.metrics["l1"] == 0.0
    assert float(output.mean().detach()) == pytest.approx(float(output.metrics["error"]))
    (gradient,) = torch.autograd.grad(output.mean(), one.latents.embed)
    assert gradient.abs().max() > 0


def test_the_codes_in_use_are_counted_by_their_perplexity() -> None:
    cls = contract.variant(LatentAction, [("vocabulary", "4"), ("code", "2")])
    one = contract.trial(cls)
    one.loss.inverse_net = torch.nn.Linear(2 * one.loss.shapes.seen, 2)
    torch.nn.init.zeros_(one.loss.inverse_net.weight)
    torch.nn.init.zeros_(one.loss.inverse_net.bias)
    assert float(one.run().metrics["codes_in_use"]) == pytest.approx(1.0)

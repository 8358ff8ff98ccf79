"""A weight's gradient as one product over all frames is the sum of the products of each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from worldaction.world_model import accumulated_linear as module
from worldaction.world_model.accumulated_linear import Deferred, deferred
from worldaction.world_model.cores.dreamer_v2 import RSSM
from worldaction.world_model.latent import Latents

B, T, J = 3, 5, 4


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recur(linear: object, x: Tensor) -> Tensor:
    """A small recurrence over the layer; [B, T, J] -> [B, T, J]."""
    state, found = torch.zeros_like(x[:, 0]), []
    for step in range(T):
        state = torch.tanh(linear(state + x[:, step]))  # type: ignore[operator]
        found.append(state)
    return torch.stack(found, 1)


def both(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return recur(Deferred(weight, bias), x), recur(lambda given: F.linear(given, weight, bias), x)


def parameters() -> tuple[Tensor, Tensor, Tensor]:
    return (
        draw(B, T, J).requires_grad_(),
        draw(J, J, seed=1).requires_grad_(),
        draw(J, seed=2).requires_grad_(),
    )


def test_values_and_gradients_are_those_of_the_loop() -> None:
    given = parameters()
    ours, plain = both(*given)
    assert torch.equal(ours, plain)
    for one, other in zip(*(torch.autograd.grad(y.square().sum(), given) for y in (ours, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_pass_that_does_not_ask_for_the_weight_leaves_nothing_behind() -> None:
    x, weight, bias = parameters()
    ours, plain = both(x, weight, bias)
    torch.autograd.grad(ours.sum(), x, retain_graph=True)
    torch.autograd.grad(ours[:, 2].sum(), x, retain_graph=True)
    ours.square().sum().backward()
    (expected,) = torch.autograd.grad(plain.square().sum(), weight)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, expected, rtol=0, atol=1e-12)


def test_two_passes_over_one_graph_give_a_gradient_each() -> None:
    x, weight, bias = parameters()
    ours, plain = both(x, weight, bias)
    for loss in (lambda y: y[:, :3].sum(), lambda y: y.square().mean()):
        (found,) = torch.autograd.grad(loss(ours), weight, retain_graph=True)
        (expected,) = torch.autograd.grad(loss(plain), weight, retain_graph=True)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_part_that_reaches_no_loss_gives_no_gradient() -> None:
    x, weight, _ = parameters()
    layer = Deferred(weight)
    layer(x)
    assert torch.autograd.grad((x * 2).sum() + 0 * weight.sum(), weight)[0].abs().sum() == 0


def test_in_bfloat16_the_sum_over_frames_is_not_rounded_every_frame() -> None:
    weight = draw(64, 64).float().requires_grad_()
    x = draw(200, 8, 64, seed=3).float()
    exact = torch.autograd.grad(sum(F.linear(part, weight).sum() for part in x), weight)[0]
    errors = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer = Deferred(weight)
        for function in (layer, lambda part: F.linear(part, weight)):
            total = sum(function(part).float().sum() for part in x)
            errors.append((torch.autograd.grad(total, weight)[0] - exact).norm() / exact.norm())
    assert errors[0] < 0.01
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("imagined", [False, True])
def test_the_recurrent_model_learns_the_same_either_way(monkeypatch: pytest.MonkeyPatch, imagined: bool) -> None:
    torch.manual_seed(0)
    rssm = RSSM(embed=6, action=7, deter=8, groups=3, classes=4, hidden=10, unimix=0.01)
    given = {
        "embed": draw(B, T, 6).float(),
        "previous_action": draw(B, T, 7).float().tanh(),
        "is_init": torch.zeros(B, T, dtype=torch.bool),
        "uniform": torch.rand(B, T + 1, 3, generator=torch.Generator().manual_seed(1)),
    }

    def learn() -> list[Tensor]:
        found: Latents = rssm.observe(**given, burn_in=2, open_loop_from=torch.tensor([2, 3, T]) if imagined else None)
        loss = (found.feature * torch.arange(20.0)).sum() + (found.posterior.log() - found.prior.log()).square().sum()
        return list(torch.autograd.grad(loss, list(rssm.parameters())))

    plain = learn()
    monkeypatch.setattr(module, "WORTH", 0)
    for one, other in zip(learn(), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_small_weights_and_frozen_ones_are_plain_layers() -> None:
    large = torch.zeros(1024, 512, requires_grad=True)
    assert isinstance(deferred(large), Deferred)
    assert not isinstance(deferred(large[:2]), Deferred)
    assert not isinstance(deferred(large.detach()), Deferred)
    with torch.no_grad():
        assert not isinstance(deferred(large), Deferred)

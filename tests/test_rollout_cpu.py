"""The CPU's way to imagine: the reference's numbers up to rounding, the same law of samples, and no stale weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from worldaction.kernels import Request, choose
from worldaction.kernels.categorical.reference import probabilities, sample
from worldaction.kernels.rollout import cpu
from worldaction.kernels.rollout.reference import prior_rollout, prior_step
from worldaction.losses.kl import categorical_kl
from worldaction.rssm import RSSM, Latent

B, H, A, D, S, C = 300, 6, 7, 48, 6, 8


def make(seed: int = 0) -> RSSM:
    torch.manual_seed(seed)
    model = RSSM(embed=11, action=A, deter=D, groups=S, classes=C, hidden=40, unimix=0.01)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def rssm() -> RSSM:
    return make()


def inputs(batch: int = B) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    belief = torch.randn(batch, D, generator=generator).tanh()
    code = torch.randint(C, (batch, S), generator=generator, dtype=torch.uint8)
    actions = torch.rand(batch, H, A, generator=generator) * 2 - 1
    uniforms = torch.rand(batch, H, S, generator=generator).clamp(1e-6, 1 - 1e-6)
    return belief, code, actions, uniforms


def forced(rssm: RSSM, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Fast and exact steps from the same, exact, latents: beliefs, codes, and the belief before."""
    belief, code, actions, uniforms = inputs()
    weights = rssm.prior_weights()
    packed = cpu.pack(weights, S, dtype=dtype)
    for time in range(H):
        given = belief, code, actions[:, time], uniforms[:, time]
        fast = cpu.step(packed, *given, unimix=0.01)
        exact = prior_step(weights, *given, unimix=0.01)
        yield *fast, *exact, belief
        belief, code = exact


def test_in_float32_a_step_is_the_reference_up_to_rounding(rssm: RSSM) -> None:
    for fast, drawn, exact, expected, _ in forced(rssm, torch.float32):
        assert torch.allclose(fast, exact, rtol=0, atol=3e-6)
        assert (drawn != expected).float().mean() < 1e-3


def test_in_bfloat16_a_step_is_near_the_reference_and_its_expectation_too(rssm: RSSM) -> None:
    for fast, drawn, exact, expected, before in forced(rssm, torch.bfloat16):
        assert (fast - exact).abs().max() < 0.03
        assert (fast - exact).norm() < 0.02 * (exact - before).norm()
        assert (drawn != expected).float().mean() < 0.03
        kl = categorical_kl(rssm._probabilities(rssm.prior_net(exact)), rssm._probabilities(rssm.prior_net(fast)))
        assert kl.mean() < 1e-3 * S


def test_the_sampler_draws_what_the_definition_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4000, S, C, generator=generator)
    uniform = torch.rand(4000, S, generator=generator)
    uniform[0], uniform[1] = 1e-9, 1 - 1e-7
    assert torch.equal(cpu._sample(logits, uniform, 0.01), sample(probabilities(logits, 0.01), uniform))


def test_a_rollout_is_its_steps_whatever_the_blocks_of_rows(rssm: RSSM) -> None:
    belief, code, actions, uniforms = inputs()
    weights = rssm.prior_weights()
    beliefs, codes = cpu.run(weights, belief, code, actions, uniforms, unimix=0.01, dtype=torch.float32)
    exact, expected = prior_rollout(weights, belief, code, actions, uniforms, unimix=0.01)
    # a row whose uniform number lay within rounding of a boundary goes another way from there on
    same = (codes == expected).flatten(1).all(1)
    assert same.float().mean() > 0.99
    assert torch.allclose(beliefs[same], exact[same], rtol=0, atol=1e-5)
    assert beliefs.shape == (B, H, D)
    assert codes.dtype == torch.uint8


def test_a_frozen_model_imagines_on_this_path_and_a_training_one_on_the_reference(rssm: RSSM) -> None:
    belief, code, actions, uniforms = inputs(4)
    latent, action, draws = Latent(belief, code), actions[:, 0], uniforms[:, 0]
    fast = rssm.prior(latent, action, draws)
    packed = cpu.pack(rssm.prior_weights(), S)
    assert torch.equal(fast.belief, cpu.step(packed, belief, code, action, draws, unimix=0.01)[0])
    learning = make().requires_grad_(True)
    learning.prior(latent, action, draws).belief.sum().backward()
    assert learning.gates.weight.grad is not None
    wanted = action.clone().requires_grad_()
    rssm.prior(latent, wanted, draws).belief.sum().backward()
    assert wanted.grad is not None


def test_weights_that_change_are_never_stale(rssm: RSSM) -> None:
    model, other = make(), make(seed=7)
    belief, code, actions, uniforms = inputs(4)
    latent, given = Latent(belief, code), (actions[:, 0], uniforms[:, 0])
    first, expected = model.prior(latent, *given), other.prior(latent, *given)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.prior(latent, *given).belief, expected.belief)
    model.gates.weight.mul_(0.5)
    assert not torch.equal(model.prior(latent, *given).belief, expected.belief)
    model.load_state_dict(make().state_dict(), assign=True)
    assert torch.equal(model.requires_grad_(False).prior(latent, *given).belief, first.belief)


def test_a_model_that_has_imagined_can_be_copied_and_sent(rssm: RSSM) -> None:
    belief, code, actions, uniforms = inputs(4)
    found = rssm.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0])
    sent = pickle.loads(pickle.dumps(rssm))  # noqa: S301 - as a process pool does
    for twin in (copy.deepcopy(rssm), sent):
        assert torch.equal(twin.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0]).belief, found.belief)


def test_bfloat16_is_asked_for_by_name() -> None:
    model = make()
    belief, code, actions, uniforms = inputs(16)
    exact = model.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0])
    model.imagine_in = torch.bfloat16
    rough = model.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0])
    assert not torch.equal(rough.belief, exact.belief)
    assert torch.allclose(rough.belief, exact.belief, atol=0.03)
    assert rough.belief.dtype == torch.float32


def test_it_serves_what_it_can_and_says_why_not() -> None:
    sizes = {"deter": D, "groups": S}
    here = torch.device("cpu")
    assert choose("rollout", Request(here, torch.float32, 4, sizes)).name == "cpu"
    reasons = [
        cpu.available(Request(torch.device("cuda"), torch.float32, 4, sizes)),
        cpu.available(Request(here, torch.float64, 4, sizes)),
    ]
    assert [reason is not None for reason in reasons] == [True, True]
    assert "float64" in str(reasons[1])
    double = make().double()
    belief, code, actions, uniforms = inputs(4)
    latent = Latent(belief.double(), code)
    assert double.prior(latent, actions[:, 0].double(), uniforms[:, 0].double()).belief.dtype == torch.float64

"""The filter over training windows: the recurrent model's own loop, its backward written out, and both as kernels."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from kernels_shim import load, needs_shim
from kernels_world import UNIMIX, generator
from torch import Tensor

from worldaction.kernels.cuda.launch import Load
from worldaction.kernels.scan.cuda import KernelParts
from worldaction.kernels.scan.explicit import Parts, Saved, TorchParts, backward, forward
from worldaction.kernels.scan.op import scan as scan_op
from worldaction.kernels.scan.reference import ScanWeights, prior_of, scan
from worldaction.world_model.cores.dreamer_v2 import RSSM

__all__ = ["generator"]  # a fixture

B, T, A, E, D, S, C, U = 4, 5, 3, 6, 10, 3, 5, 9
Inputs = tuple[ScanWeights, Tensor, Tensor, Tensor, Tensor, Tensor]


def model(generator: torch.Generator) -> RSSM:
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        made = RSSM(embed=E, action=A, deter=D, groups=S, classes=C, hidden=U, unimix=UNIMIX, null_action=(0.0,) * A)
        for parameter in made.parameters():
            parameter.data.add_(0.05 + 0.2 * torch.randn_like(parameter))
    return made


def weights_of(made: RSSM) -> ScanWeights:
    first, norm, _, last = made.prior_net
    return ScanWeights(
        made.input_state.weight, made.input_norm.weight, made.input_norm.bias,
        made.gates.weight, made.gates_norm.weight, made.gates_norm.bias,
        made.posterior_belief.weight, made.posterior_norm.weight, made.posterior_norm.bias,
        made.posterior_logits.weight, made.posterior_logits.bias,
        first.weight, first.bias, norm.weight, norm.bias, last.weight, last.bias,
    )  # fmt: skip


def inputs(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Inputs:
    """With a reset in one window, and two windows that are imagined from a frame on."""
    weights = ScanWeights(*(tensor.detach().to(dtype) for tensor in weights_of(model(generator))))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    keep = torch.ones(B, T, dtype=dtype)
    keep[1, 2] = 0.0
    imagined = torch.arange(T) >= torch.tensor([T, 2, T, 0])[:, None]
    uniforms = torch.rand(B, T, S, generator=generator).clamp(1e-6, 1 - 1e-6).to(dtype)
    return weights, draw(B, T, U), draw(B, T, U), keep, uniforms, imagined


def time_first(given: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.transpose(0, 1).contiguous() for tensor in given]


@pytest.mark.parametrize("sees_all", [True, False])
def test_the_definition_is_the_loop_of_the_recurrent_model(sees_all: bool, generator: torch.Generator) -> None:
    made = model(generator)
    embed, action = torch.randn(B, T, E, generator=generator), torch.randn(B, T, A, generator=generator)
    uniforms = torch.rand(B, T, S, generator=generator).clamp(1e-6, 1 - 1e-6)
    is_init = torch.zeros(B, T, dtype=torch.bool)
    is_init[:, 0], is_init[1, 2] = True, True
    first_imagined = None if sees_all else torch.tensor([T, 2, T, 1])
    expected = made.observe(embed, action, is_init, uniforms, open_loop_from=first_imagined)
    imagined = None if first_imagined is None else torch.arange(T) >= first_imagined[:, None]
    given = (made.posterior_embed(embed), made.input_action(action), (~is_init).float(), uniforms)
    weights = weights_of(made)
    beliefs, states, posterior, prior = scan(weights, *given, imagined, unimix=UNIMIX)
    if sees_all:
        prior = prior_of(weights, beliefs, S, unimix=UNIMIX)
    assert torch.allclose(beliefs, expected.belief, atol=1e-5)
    assert torch.equal(states, expected.state)
    assert torch.allclose(posterior, expected.posterior, atol=1e-5)
    assert torch.allclose(prior, expected.prior, atol=1e-5)


def gradients(given: Inputs, *, imagined: bool) -> tuple[list[Tensor], tuple[Tensor, ...], list[Tensor]]:
    """By autograd: results, what is pulled at them, and gradients of weights, looks and actions."""
    weights, looks, actions, keep, uniforms, turned = given
    leaves = [tensor.clone().requires_grad_() for tensor in (*weights, looks, actions)]
    found = scan(ScanWeights(*leaves[:-2]), *leaves[-2:], keep, uniforms, turned if imagined else None, unimix=UNIMIX)
    pulls = tuple(torch.randn(part.shape, dtype=part.dtype) for part in found)
    loss = sum((part * pull).sum() for part, pull in zip(found, pulls, strict=True))
    wanted = torch.autograd.grad(loss, leaves, allow_unused=True)
    full = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, wanted, strict=True)]
    return [part.detach() for part in found], pulls, full


def explicitly(
    given: Inputs, pulls: tuple[Tensor, ...], *, imagined: bool, dtype: torch.dtype, parts: Parts
) -> tuple[Saved, list[Tensor]]:
    """By hand: what forward keeps, and the same gradients."""
    weights, *rest = given
    looks, actions, keep, uniforms, turned = time_first(rest)
    turn = turned if imagined else None
    options = {"unimix": UNIMIX, "dtype": dtype, "parts": parts}
    saved = forward(weights, looks, actions, keep, uniforms, turn, **options)
    # without imagined rows the prior is no part of the loop: [T, 0, S, C], nothing pulls at it
    pulled = time_first(pulls[:3]) + ([time_first(pulls[3:])[0]] if imagined else [saved.prior])
    of_weights, *others = backward(weights, saved, keep, turn, tuple(pulled), **options)
    return saved, [*of_weights, *time_first(others)]


def worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest error relative to the largest number of each tensor."""
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True) if b.numel()]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-6)) for a, b in pairs)


@pytest.mark.parametrize("imagined", [False, True])
def test_the_backward_that_is_written_out_is_autograd_s(imagined: bool, generator: torch.Generator) -> None:
    given = inputs(generator)
    found, pulls, expected = gradients(given, imagined=imagined)
    saved, grads = explicitly(given, pulls, imagined=imagined, dtype=torch.float64, parts=TorchParts(torch.float64))
    assert torch.allclose(saved.beliefs.transpose(0, 1), found[0], atol=1e-12)
    assert torch.equal(saved.codes.transpose(0, 1).long(), found[1].unflatten(-1, (S, C)).argmax(-1))
    assert torch.allclose(saved.posterior.transpose(0, 1), found[2], atol=1e-12)
    assert worst(grads, expected) < 1e-10


def good_scan(load: Load, *, imagined: bool, seed: int) -> float:
    """The worst error of anything that the kernels compute in float32 against float64."""
    given = inputs(torch.Generator().manual_seed(seed))
    found, pulls, expected = gradients(given, imagined=imagined)
    weights, *rest = given
    single = (ScanWeights(*(t.float() for t in weights)), *(t.float() for t in rest[:-1]), rest[-1])
    parts = KernelParts(single[0], S, dtype=torch.float32, load=load)
    pulls = tuple(pull.float() for pull in pulls)
    saved, grads = explicitly(single, pulls, imagined=imagined, dtype=torch.float32, parts=parts)
    values = [part.transpose(0, 1) for part in (saved.beliefs, saved.posterior)]
    if not torch.equal(saved.codes.transpose(0, 1).long(), found[1].unflatten(-1, (S, C)).argmax(-1)):
        return float("inf")
    return max(worst(values, [found[0], found[2]]), worst(grads, expected))


@needs_shim
@pytest.mark.parametrize("imagined", [False, True])
def test_the_kernels_compute_the_same_forward_and_backward(imagined: bool, generator: torch.Generator) -> None:
    seed = int(torch.randint(2**31, (), generator=generator))
    assert good_scan(load, imagined=imagined, seed=seed) < 2e-5


@needs_shim
def test_in_bfloat16_the_first_step_and_its_gradients_are_near(generator: torch.Generator) -> None:
    weights, *rest = inputs(generator)
    given = (weights, *(tensor[:, :1] for tensor in rest))
    found, pulls, expected = gradients(given, imagined=False)
    single = (ScanWeights(*(t.float() for t in weights)), *(t[:, :1].float() for t in rest[:-1]), rest[-1][:, :1])
    parts = KernelParts(single[0], S, dtype=torch.bfloat16, load=load)
    pulls = tuple(pull.float() for pull in pulls)
    saved, grads = explicitly(single, pulls, imagined=False, dtype=torch.bfloat16, parts=parts)
    assert worst([saved.beliefs.transpose(0, 1)], [found[0]]) < 0.02
    near = [(a, b) for a, b in zip(grads, expected, strict=True) if b.abs().max() > 1e-3]
    errors = [float((a.double() - b).norm() / b.norm()) for a, b in near]
    assert max(errors) < 0.15


@pytest.mark.parametrize("imagined", [False, True])
def test_the_op_has_the_values_and_the_gradients(imagined: bool, generator: torch.Generator) -> None:
    given = inputs(generator)
    weights, looks, actions, keep, uniforms, turned = given
    turn = turned if imagined else None
    found, pulls, expected = gradients(given, imagined=imagined)
    leaves = [tensor.clone().requires_grad_() for tensor in (*weights, looks, actions)]
    values = scan_op(ScanWeights(*leaves[:-2]), *leaves[-2:], keep, uniforms, turn, unimix=UNIMIX, force="reference")
    assert values[3].shape == (B, T, S, C)
    for value, wanted in zip(values[: 4 if imagined else 3], found, strict=False):
        assert torch.allclose(value, wanted, atol=1e-12)
    loss = sum((part * pull).sum() for part, pull in zip(values[: 4 if imagined else 3], pulls, strict=False))
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    full = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)]
    assert worst(full, expected) < 1e-10


def test_the_op_passes_opcheck_and_torch_compile_takes_it_whole(generator: torch.Generator) -> None:
    weights, looks, actions, keep, uniforms, imagined = inputs(generator)
    leaves = [tensor.requires_grad_() for tensor in weights]
    moved = [t.transpose(0, 1).contiguous() for t in (looks, actions, keep, uniforms, imagined)]
    torch.library.opcheck(
        torch.ops.worldaction.scan, (leaves, *moved, UNIMIX, torch.float64, "reference"),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )  # fmt: skip

    def loss(looks: Tensor) -> Tensor:
        options = {"unimix": UNIMIX, "force": "reference"}
        found = scan_op(ScanWeights(*leaves), 2.0 * looks, actions, keep, uniforms, imagined, **options)
        return found[0].square().sum() + found[2].square().sum()

    seen = looks.clone().requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (plain,) = torch.autograd.grad(loss(seen), [seen])
    (whole,) = torch.autograd.grad(compiled(seen), [seen])
    assert torch.allclose(plain, whole, atol=1e-12)

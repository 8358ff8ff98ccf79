"""The kernels on a GPU, through the ops that users call: the same checks as on the CPU. Run with -m gpu."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernels_world import UNIMIX, World, errors, generator, world
from test_kernels_denoise import inputs, policy, worst
from test_kernels_dream import ROWS, flat, options, parts
from test_kernels_scan import S, gradients
from test_kernels_scan import inputs as scan_inputs
from test_kernels_scan import worst as scan_worst
from torch import Tensor

from worldaction import kernels
from worldaction.kernels import ops
from worldaction.kernels.denoise.reference import DenoiserWeights, denoise
from worldaction.kernels.dream.reference import dream
from worldaction.kernels.scan.op import scan
from worldaction.kernels.scan.reference import ScanWeights

__all__ = ["generator"]  # a fixture

pytestmark = pytest.mark.gpu
SIZES = [
    {"deter": 22, "hidden": 19, "groups": 3, "classes": 9, "action": 5},
    {"deter": 256, "hidden": 200, "groups": 32, "classes": 16, "action": 7},
    {"deter": 512, "hidden": 512, "groups": 32, "classes": 32, "action": 7},
    {"deter": 1024, "hidden": 1000, "groups": 32, "classes": 32, "action": 7},
]


def moved(value: Any, to: Any = "cuda") -> Any:
    """Tensors in nested tuples and lists, on the GPU."""
    if isinstance(value, Tensor):
        return value.to(to)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(part, to) for part in value))
    return type(value)(moved(part, to) for part in value) if isinstance(value, (list, tuple)) else value


@pytest.fixture(autouse=True)
def _exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def roll(made: World, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    weights, given = moved(made.weights), moved(made.inputs)
    return moved(ops.rollout(weights, *given, unimix=UNIMIX, dtype=dtype, force="cuda"), "cpu")


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: sizes["deter"])
@pytest.mark.parametrize("batch", [1, 37, 256])
@pytest.mark.parametrize(("dtype", "belief", "draw"), [(torch.float32, 1e-4, 1e-4), (torch.bfloat16, 2e-2, 0.05)])
def test_rollouts_meet_the_definition_and_repeat(
    sizes: dict[str, int], batch: int, dtype: torch.dtype, belief: float, draw: float, generator: torch.Generator
) -> None:
    made = world(generator, batch=batch, horizon=6, **sizes)
    beliefs, codes = roll(made, dtype)
    worst_belief, outside = errors(made, beliefs, codes)
    assert worst_belief < belief
    assert outside < draw
    again = roll(made, dtype)
    assert torch.equal(again[0], beliefs)
    assert torch.equal(again[1], codes)


@pytest.mark.parametrize(("width", "blocks"), [(64, 1), (256, 1), (256, 2), (512, 1)])
@pytest.mark.parametrize("batch", [1, 37, 1024])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
def test_denoising_meets_the_definition(
    width: int, blocks: int, batch: int, dtype: torch.dtype, most: float, generator: torch.Generator
) -> None:
    weights, *rest = inputs(generator, policy(generator, width=width, blocks=blocks), batch)
    expected = denoise(DenoiserWeights(*(t.double() for t in weights)), *(t.double() for t in rest))
    found = ops.denoise(moved(weights), *moved(rest), dtype=dtype, force="cuda")
    assert worst(moved(found, "cpu"), expected) < most


def test_dreams_are_the_definition_s(generator: torch.Generator) -> None:
    made, both, classifier, threshold = parts(generator)
    given = (made.weights, *flat(both, classifier, min_std=0.1), made.belief, made.code, ROWS)
    expected = dream(*given, seed=3, **options(threshold))
    found = moved(ops.dream(*moved(given), seed=3, **options(threshold), force="cuda"), "cpu")
    # a uniform number within rounding of a boundary may fall on either side, and that dream then goes another way
    same = (found.codes == expected.codes).flatten(1).all(1)
    assert same.float().mean() > 0.8
    assert torch.equal(found.done_at[same], expected.done_at[same])
    assert torch.allclose(found.states[same], expected.states[same], atol=5e-3)


@pytest.mark.parametrize("blind", [False, True])
def test_the_filter_has_the_values_and_the_gradients(blind: bool, generator: torch.Generator) -> None:
    given = scan_inputs(generator)
    found, pulls, expected = gradients(given, blind=blind)
    weights, looks, actions, keep, uniforms, turned = given
    leaves = [tensor.float().cuda().requires_grad_() for tensor in (*weights, looks, actions)]
    fixed = (keep.float().cuda(), uniforms.float().cuda(), turned.cuda() if blind else None)
    values = scan(ScanWeights(*leaves[:-2]), *leaves[-2:], *fixed, unimix=UNIMIX, force="cuda")
    wanted = values[: 4 if blind else 3]
    assert wanted[2].shape[2] == S
    assert torch.allclose(wanted[0].cpu().double(), found[0], atol=1e-4)
    loss = sum((part * pull.float().cuda()).sum() for part, pull in zip(wanted, pulls, strict=False))
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    full = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)]
    assert scan_worst([grad.cpu() for grad in full], expected) < 1e-3


def test_the_kernels_run_where_they_are_asked_for_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    chosen = {report.op: report.name for report in kernels.implementations() if report.chosen}
    assert chosen == dict.fromkeys(kernels.DEFINITIONS, "reference")
    monkeypatch.setenv(kernels.VARIABLE, "cuda")
    chosen = {report.op: report.name for report in kernels.implementations() if report.chosen}
    assert chosen == dict.fromkeys(kernels.DEFINITIONS, "cuda")

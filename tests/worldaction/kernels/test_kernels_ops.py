"""The ops as users call them, down to the kernels, which the shim runs in the place of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import pytest
import torch
from kernels_shim import load, needs_shim
from kernels_world import UNIMIX, generator, world
from test_kernels_denoise import inputs, policy
from test_kernels_dream import ROWS, flat, options, parts
from test_kernels_scan import inputs as scan_inputs
from torch import Tensor

from worldaction import kernels
from worldaction.kernels import ops
from worldaction.kernels.denoise import cuda as denoise_cuda
from worldaction.kernels.dream import cuda as dream_cuda
from worldaction.kernels.rollout import cuda as rollout_cuda
from worldaction.kernels.rollout.reference import prior_rollout
from worldaction.kernels.scan import cuda as scan_cuda
from worldaction.kernels.scan.reference import ScanWeights

__all__ = ["generator"]  # a fixture

SIZES = {"deter": 22, "hidden": 19, "groups": 3, "classes": 9, "action": 5}
MODULES: Sequence[ModuleType] = (denoise_cuda, dream_cuda, rollout_cuda, scan_cuda)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there, as far as the ops can tell."""
    for module in MODULES:
        for name, value in (("load", load), ("room", lambda device: (132, 232_448)), ("unavailable", lambda _: None)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


def near(found: Sequence[Tensor], expected: Sequence[Tensor], most: float = 1e-3) -> bool:
    return all(torch.allclose(a.double(), b.double(), atol=most) for a, b in zip(found, expected, strict=True))


@needs_shim
@pytest.mark.usefixtures("gpu")
def test_the_ops_reach_the_kernels(generator: torch.Generator) -> None:
    assert all(report.reason is None for report in kernels.implementations() if report.name == "cuda")
    made = world(generator, batch=4, horizon=2, **SIZES)
    for _ in range(2):  # what was prepared the first time serves the second
        found = ops.rollout(made.weights, *made.inputs, unimix=UNIMIX, force="cuda")
        assert near(found, prior_rollout(made.weights, *made.inputs, unimix=UNIMIX))
    weights, *rest = inputs(generator, policy(generator, width=17, blocks=1), 5)
    assert near(ops.denoise(weights, *rest, force="cuda"), ops.denoise(weights, *rest, force="reference"))


@needs_shim
@pytest.mark.usefixtures("gpu")
def test_the_dream_reaches_the_kernels(generator: torch.Generator) -> None:
    made, both, classifier, threshold = parts(generator)
    given = (made.weights, *flat(both, classifier, min_std=0.1), made.belief, made.code, ROWS)
    found, expected = (ops.dream(*given, seed=3, **options(threshold), force=force) for force in ("cuda", "reference"))
    assert near(found, expected)


@needs_shim
@pytest.mark.usefixtures("gpu")
def test_the_filter_and_its_gradient_reach_the_kernels(generator: torch.Generator) -> None:
    weights, looks, actions, keep, uniforms, blind = scan_inputs(generator, torch.float32)
    found = []
    for force in ("cuda", "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (*weights, looks)]
        given = (ScanWeights(*leaves[:-1]), leaves[-1], actions, keep, uniforms, blind)
        values = ops.scan(*given, unimix=UNIMIX, force=force)
        loss = values[0].square().sum() + values[2].square().sum() + values[3].square().sum()
        found.append([*(value.detach() for value in values), *torch.autograd.grad(loss, leaves)])
    assert near(found[0], found[1])
    exact = scan_cuda.run(weights, looks, actions, keep, uniforms, blind, unimix=UNIMIX, dtype=torch.float32)
    assert near(exact, found[1][:4])


def test_torch_compile_takes_the_definition_whole_and_keeps_its_numbers(generator: torch.Generator) -> None:
    made = world(generator, batch=4, horizon=3, **SIZES)
    compiled = torch.compile(prior_rollout, fullgraph=True, backend="aot_eager")
    found, expected = (each(made.weights, *made.inputs, unimix=UNIMIX) for each in (compiled, prior_rollout))
    assert near(found[:1], expected[:1], 1e-5)
    assert torch.equal(found[1], expected[1])

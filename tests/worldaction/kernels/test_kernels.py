"""The choice of implementations: the best available one, or the one that is forced, or a clear refusal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from worldaction import kernels
from worldaction.errors import UserError
from worldaction.kernels import ops
from worldaction.kernels.rollout.reference import PriorWeights, prior_rollout
from worldaction.world_model.cores.dreamer_v2 import RSSM

B, H, A, D, S, C, U = 5, 3, 7, 24, 4, 8, 20


@pytest.fixture
def weights() -> PriorWeights:
    torch.manual_seed(0)
    model = RSSM(embed=3, action=A, deter=D, groups=S, classes=C, hidden=U, unimix=0.01)
    return model.requires_grad_(False).prior_weights()


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    code = torch.randint(C, (B, S), generator=generator, dtype=torch.uint8)
    return torch.rand(B, D, generator=generator), code, torch.rand(B, H, A), torch.rand(B, H, S).clamp_min(1e-6)


def _implementation(name: str, priority: int, reason: str | None) -> kernels.Implementation:
    return kernels.Implementation("rollout", name, priority, lambda request: reason, lambda *a, **k: name)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is broken, two that work."""
    found = (_implementation("fast", 20, "no such machine: buy one"), _implementation("good", 10, None))
    found = (*found, _implementation("reference", 0, None))
    monkeypatch.setattr(kernels, "_all", lambda op: found)
    monkeypatch.delenv(kernels.VARIABLE, raising=False)


@pytest.mark.usefixtures("registry")
def test_the_highest_priority_that_is_available_runs() -> None:
    assert kernels.choose("rollout", kernels.typical()).name == "good"


@pytest.mark.usefixtures("registry")
def test_the_argument_and_the_variable_force_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.choose("rollout", kernels.typical(), force="reference").name == "reference"
    monkeypatch.setenv(kernels.VARIABLE, "reference")
    assert kernels.choose("rollout", kernels.typical()).name == "reference"
    monkeypatch.setenv(kernels.VARIABLE, "rollout=reference")
    assert kernels.choose("rollout", kernels.typical()).name == "reference"
    assert kernels.choose("rollout", kernels.typical(), force="good").name == "good"


def test_an_implementation_that_is_opt_in_runs_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    new = kernels.Implementation("rollout", "new", 30, lambda request: None, lambda *a, **k: "new", "untried")
    monkeypatch.setattr(kernels, "_all", lambda op: (new, _implementation("reference", 0, None)))
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    assert kernels.choose("rollout", kernels.typical()).name == "reference"
    reports = {(r.op, r.name): r for r in kernels.implementations(kernels.typical())}
    assert reports["rollout", "new"] == kernels.Report("rollout", "new", False, None, "untried")
    monkeypatch.setenv(kernels.VARIABLE, "rollout=new")
    assert kernels.choose("rollout", kernels.typical()).name == "new"


@pytest.mark.parametrize("op", kernels.DEFINITIONS)
def test_kernels_that_no_gpu_has_run_are_opt_in(op: str) -> None:
    (cuda,) = [each for each in kernels._all(op) if each.name == "cuda"]
    assert cuda.opt_in == kernels.UNPROVEN


@pytest.mark.usefixtures("registry")
def test_what_is_forced_and_cannot_run_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="'fast' of rollout cannot run here: no such machine: buy one"):
        kernels.choose("rollout", kernels.typical(), force="fast")
    with pytest.raises(UserError, match="unknown implementation of rollout 'goood'; did you mean 'good'"):
        kernels.choose("rollout", kernels.typical(), force="goood")


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("text", ["rolout=reference", "rollout="])
def test_a_variable_that_is_misspelt_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, text)
    with pytest.raises(UserError, match=kernels.VARIABLE):
        kernels.choose("rollout", kernels.typical())


def test_every_operation_has_its_reference_and_exactly_one_that_runs() -> None:
    reports = kernels.implementations(kernels.typical(torch.device("cpu")))
    for op in kernels.DEFINITIONS:
        mine = {report.name: report for report in reports if report.op == op}
        assert mine["reference"].reason is None
        assert sum(report.chosen for report in mine.values()) == 1
        for report in mine.values():
            assert report.chosen <= (report.reason is None)
            assert "\n" not in (report.reason or "")


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'rollout'"):
        kernels.choose("rolout", kernels.typical())


def test_the_rollout_asks_with_its_sizes(weights: PriorWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choose(op: str, request: kernels.Request, *, force: str | None) -> SimpleNamespace:
        asked.append((op, request, force))
        return SimpleNamespace(run=lambda *a, dtype, unimix: prior_rollout(*a, unimix=unimix))

    monkeypatch.setattr(ops, "choose", choose)
    ops.rollout(weights, *inputs(), unimix=0.01, dtype=torch.bfloat16, force="x")
    sizes = {"deter": D, "groups": S, "classes": C, "hidden": U, "action": A, "horizon": H}
    assert asked == [("rollout", kernels.Request(torch.device("cpu"), torch.bfloat16, B, sizes), "x")]


def test_the_rollout_op_is_the_reference_and_passes_opcheck(weights: PriorWeights) -> None:
    arguments = inputs()
    found = ops.rollout(weights, *arguments, unimix=0.01, force="reference")
    expected = prior_rollout(weights, *arguments, unimix=0.01)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    torch.library.opcheck(
        torch.ops.worldaction.rollout, (ops.flat(weights), *arguments, 0.01, torch.float32, "reference")
    )


def test_a_gradient_that_nobody_computes_is_refused(weights: PriorWeights) -> None:
    belief, *rest = inputs()
    with pytest.raises(UserError, match=r"rollout has no gradient .*torch.no_grad"):
        ops.rollout(weights, belief.requires_grad_(), *rest, unimix=0.01)
    with torch.no_grad():
        ops.rollout(weights, belief, *rest, unimix=0.01)


def test_the_list_of_weights_goes_there_and_back(weights: PriorWeights) -> None:
    again = ops.unflat(ops.flat(weights))
    assert all(a is b for a, b in zip(ops.flat(again), ops.flat(weights), strict=True))
    assert again.hidden_norm[0] is weights.hidden_norm[0]
    assert again.logits_bias is weights.logits_bias


def test_torch_compile_takes_the_rollout_whole(weights: PriorWeights) -> None:
    def imagined(belief: Tensor, code: Tensor, actions: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        beliefs, codes = ops.rollout(weights, 2.0 * belief, code, actions, uniforms, unimix=0.01, force="reference")
        return beliefs.tanh(), codes

    compiled = torch.compile(imagined, fullgraph=True, backend="aot_eager")
    arguments = inputs()
    assert all(torch.equal(a, b) for a, b in zip(compiled(*arguments), imagined(*arguments), strict=True))

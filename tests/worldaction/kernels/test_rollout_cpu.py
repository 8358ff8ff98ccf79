"""The CPU's ways to imagine: the reference's numbers up to rounding, the same law of samples, and no stale weights."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.kernels import VARIABLE, Request, choose, host
from worldaction.kernels.categorical.reference import probabilities, sample
from worldaction.kernels.rollout import cpu, native
from worldaction.kernels.rollout.reference import prior_rollout, prior_step
from worldaction.losses.kl import categorical_kl
from worldaction.world_model.cores.dreamer_v2 import RSSM
from worldaction.world_model.latent import Latent

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


COMPILED = pytest.param(native, marks=pytest.mark.skipif(shutil.which(host.COMPILER) is None, reason="needs g++"))


@pytest.fixture(params=[cpu, COMPILED], ids=["cpu", "native"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Each of the ways, which models are made to take."""
    name = request.param.__name__.rpartition(".")[2]
    monkeypatch.setenv(VARIABLE, f"rollout={name}")
    return request.param


def forced(path: ModuleType, rssm: RSSM, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Fast and exact steps from the same, exact, latents: beliefs, codes, and the belief before."""
    belief, code, actions, uniforms = inputs()
    weights = rssm.prior_weights()
    packed = path.pack(weights, S, dtype=dtype)
    for time in range(H):
        given = belief, code, actions[:, time], uniforms[:, time]
        fast = path.step(packed, *given, unimix=0.01)
        exact = prior_step(weights, *given, unimix=0.01)
        yield *fast, *exact, belief
        belief, code = exact


def test_in_float32_a_step_is_the_reference_up_to_rounding(path: ModuleType, rssm: RSSM) -> None:
    for fast, drawn, exact, expected, _ in forced(path, rssm, torch.float32):
        assert torch.allclose(fast, exact, rtol=0, atol=3e-6)
        assert (drawn != expected).float().mean() < 1e-3


def test_in_bfloat16_a_step_is_near_the_reference_and_its_expectation_too(path: ModuleType, rssm: RSSM) -> None:
    for fast, drawn, exact, expected, before in forced(path, rssm, torch.bfloat16):
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


def test_a_rollout_is_its_steps_whatever_the_blocks_of_rows(path: ModuleType, rssm: RSSM) -> None:
    belief, code, actions, uniforms = inputs()
    weights = rssm.prior_weights()
    beliefs, codes = path.run(weights, belief, code, actions, uniforms, unimix=0.01, dtype=torch.float32)
    exact, expected = prior_rollout(weights, belief, code, actions, uniforms, unimix=0.01)
    # a row whose uniform number lay within rounding of a boundary goes another way from there on
    same = (codes == expected).flatten(1).all(1)
    assert same.float().mean() > 0.99
    assert torch.allclose(beliefs[same], exact[same], rtol=0, atol=1e-5)
    assert beliefs.shape == (B, H, D)
    assert codes.dtype == torch.uint8


def test_a_frozen_model_imagines_on_this_path_and_a_training_one_on_the_reference(path: ModuleType) -> None:
    rssm = make()
    belief, code, actions, uniforms = inputs(4)
    latent, action, draws = Latent(belief, code), actions[:, 0], uniforms[:, 0]
    fast = rssm.prior(latent, action, draws)
    packed = path.pack(rssm.prior_weights(), S)
    assert torch.equal(fast.belief, path.step(packed, belief, code, action, draws, unimix=0.01)[0])
    learning = make().requires_grad_(True)
    learning.prior(latent, action, draws).belief.sum().backward()
    assert learning.gates.weight.grad is not None
    wanted = action.clone().requires_grad_()
    rssm.prior(latent, wanted, draws).belief.sum().backward()
    assert wanted.grad is not None


def test_weights_that_change_are_never_stale(path: ModuleType) -> None:
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


def test_a_model_that_has_imagined_can_be_copied_and_sent(path: ModuleType) -> None:
    rssm = make()
    belief, code, actions, uniforms = inputs(4)
    found = rssm.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0])
    sent = pickle.loads(pickle.dumps(rssm))  # noqa: S301 - as a process pool does
    for twin in (copy.deepcopy(rssm), sent):
        assert torch.equal(twin.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0]).belief, found.belief)


def test_bfloat16_is_asked_for_by_name(path: ModuleType) -> None:
    model = make()
    belief, code, actions, uniforms = inputs(16)
    exact = model.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0])
    model.imagine_in = torch.bfloat16
    rough = model.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0])
    assert not torch.equal(rough.belief, exact.belief)
    assert torch.allclose(rough.belief, exact.belief, atol=0.03)
    assert rough.belief.dtype == torch.float32


def test_bfloat16_for_a_while_ends_with_it_even_by_an_error(path: ModuleType) -> None:
    model = make()
    belief, code, actions, uniforms = inputs(16)
    exact = model.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0])
    with model.imagining_in(torch.bfloat16):
        assert not torch.equal(model.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0]).belief, exact.belief)

    def fail() -> None:
        with model.imagining_in(torch.bfloat16):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(model.prior(Latent(belief, code), actions[:, 0], uniforms[:, 0]).belief, exact.belief)


def test_it_serves_what_it_can_and_says_why_not(path: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"deter": D, "groups": S}
    here = torch.device("cpu")
    reasons = [
        path.available(Request(torch.device("cuda"), torch.float32, 4, sizes)),
        path.available(Request(here, torch.float64, 4, sizes)),
    ]
    assert [reason is not None for reason in reasons] == [True, True]
    assert "float64" in str(reasons[1])
    assert path.available(Request(here, torch.float32, 4, sizes)) is None
    double = make().double()
    belief, code, actions, uniforms = inputs(4)
    latent = Latent(belief.double(), code)
    assert double.prior(latent, actions[:, 0].double(), uniforms[:, 0].double()).belief.dtype == torch.float64


# In C++ ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which(host.COMPILER) is None, reason="needs g++")
def test_the_compiled_way_is_taken_where_a_compiler_is_and_the_other_where_none_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(torch.device("cpu"), torch.float32, 4, {"deter": D, "groups": S})
    monkeypatch.delenv(VARIABLE, raising=False)
    assert choose("rollout", request).name == "native"
    monkeypatch.setattr(host, "problem", lambda _: "there is no g++ on PATH")
    assert choose("rollout", request).name == "cpu"
    with pytest.raises(UserError, match="no g\\+\\+ on PATH"):
        choose("rollout", request, force="native")


ODD = [
    (48, 6, 8, 40, 7),
    (19, 3, 5, 13, 2),
    (33, 2, 16, 64, 1),
    (70, 4, 32, 85, 3),
    (16, 1, 256, 16, 4),
    (8, 2, 2, 4, 1),
]


@pytest.mark.skipif(shutil.which(host.COMPILER) is None, reason="needs g++")
@pytest.mark.parametrize("sizes", ODD)
@pytest.mark.parametrize("batch", [1, 37])
def test_compiled_steps_of_any_size_are_the_definition_in_float64(sizes: tuple[int, ...], batch: int) -> None:
    deter, groups, classes, hidden, action = sizes
    torch.manual_seed(sum(sizes))
    model = RSSM(embed=2, action=action, deter=deter, groups=groups, classes=classes, hidden=hidden, unimix=0.01)
    for parameter in model.requires_grad_(False).parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    belief, code = torch.randn(batch, deter).tanh(), torch.randint(classes, (batch, groups), dtype=torch.uint8)
    taken, draws = torch.rand(batch, action) * 2 - 1, torch.rand(batch, groups).clamp(1e-6, 1 - 1e-6)
    draws[0], draws[-1, -1] = 1e-9, 1 - 1e-7
    packed = native.pack(model.prior_weights(), groups)
    found, drawn = native.step(packed, belief, code, taken, draws, unimix=0.01)
    exact = model.double().prior_weights()
    wanted, expected = prior_step(exact, belief.double(), code, taken.double(), draws.double(), unimix=0.01)
    assert (found - wanted).abs().max() < 3e-6
    assert (drawn != expected).float().mean() < 0.01
    assert packed.kept[0].dtype == torch.float32


@pytest.mark.skipif(shutil.which(host.COMPILER) is None, reason="needs g++")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_row_does_not_depend_on_its_neighbours_on_threads_or_on_where_it_lies(dtype: torch.dtype) -> None:
    belief, code, actions, uniforms = inputs(64)
    packed = native.pack(make().prior_weights(), S, dtype=dtype)
    given = belief, code, actions[:, 0], uniforms[:, 0]
    whole, drawn = native.step(packed, *given, unimix=0.01)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        again = native.step(packed, *given, unimix=0.01)
    finally:
        torch.set_num_threads(threads)
    turned = [part.t().contiguous().t() for part in given]
    room = torch.empty(64, 2, D), torch.empty(64, 2, S, dtype=torch.uint8)
    native.step(packed, *turned, unimix=0.01, out=(room[0][:, 1], room[1][:, 1]))
    for one, other in (again, (room[0][:, 1], room[1][:, 1])):
        assert torch.equal(one, whole)
        assert torch.equal(other, drawn)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(5))
    moved, redrawn = native.step(packed, *(part[order] for part in given), unimix=0.01)
    assert torch.equal(moved, whole[order])
    assert torch.equal(redrawn, drawn[order])


@pytest.mark.skipif(shutil.which(host.COMPILER) is None, reason="needs g++")
def test_compiled_code_is_never_given_what_it_would_read_beyond() -> None:
    belief, code, actions, uniforms = inputs(4)
    packed = native.pack(make().prior_weights(), S)
    action, uniform = actions[:, 0], uniforms[:, 0]
    with pytest.raises(UserError, match=rf"\[4, {D - 1}\] on cpu where \[4, {D}\]"):
        native.step(packed, belief[:, 1:], code, action, uniform, unimix=0.01)
    with pytest.raises(UserError, match=rf"\[3, {A}\] on cpu where \[4, {A}\]"):
        native.step(packed, belief, code, action[1:], uniform, unimix=0.01)
    with pytest.raises(UserError, match=r"int64; give torch\.uint8"):
        native.step(packed, belief, code.long(), action, uniform, unimix=0.01)
    code[2, 3] = C
    with pytest.raises(UserError, match=f"classes 0 to {C - 1}"):
        native.step(packed, belief, code, action, uniform, unimix=0.01)
    with pytest.raises(UserError, match="float64"):
        native.pack(make().double().prior_weights(), S)


@pytest.mark.skipif(shutil.which(host.COMPILER) is None, reason="needs g++")
def test_what_is_not_a_number_stays_none_in_its_row() -> None:
    belief, code, actions, uniforms = inputs(4)
    belief[1, 5] = torch.nan
    for dtype in (torch.float32, torch.bfloat16):
        packed = native.pack(make().prior_weights(), S, dtype=dtype)
        found, drawn = native.step(packed, belief, code, actions[:, 0], uniforms[:, 0], unimix=0.01)
        assert found.isnan().any(1).tolist() == [False, True, False, False]
        assert drawn.max() < C

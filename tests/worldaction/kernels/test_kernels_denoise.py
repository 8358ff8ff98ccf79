"""The denoising loop: the definition is the policy's own sampler, and the kernels, on the CPU, meet the definition."""

from __future__ import annotations

import pytest
import torch
from kernels_shim import load, needs_shim
from kernels_world import generator
from torch import Tensor

from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from worldaction.kernels import Request, ops, typical
from worldaction.kernels.denoise import cuda
from worldaction.kernels.denoise.cuda import Denoise, fragments, plan
from worldaction.kernels.denoise.reference import DenoiserWeights, denoise, undo_table, weights_of

__all__ = ["generator"]  # a fixture

N = 4
HOPPER = {"blocks": 132, "shared": 232_448}
Inputs = tuple[DenoiserWeights, Tensor, Tensor, Tensor, Tensor]


def policy(generator: torch.Generator, *, width: int, blocks: int, chunk: int = 3, action: int = 5) -> DiffusionPolicy:
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        made = DiffusionPolicy(11, action, chunk=chunk, denoising_steps=N, width=width, blocks=blocks)
    return made.requires_grad_(False)


def inputs(generator: torch.Generator, made: DiffusionPolicy, batch: int, *, min_std: float = 0.1) -> Inputs:
    """All steps by DDPM, of a gentle schedule: the noisiest step of a cosine multiplies rounding errors by thirty."""
    visited = list(reversed(range(N)))
    alpha_bar = torch.linspace(0.95, 0.3, N)
    noise = torch.randn(batch, N + 1, made.chunk_size, generator=generator)
    table = undo_table(alpha_bar, visited, eta=1.0, min_std=min_std)
    condition = made.condition(torch.randn(batch, 11, generator=generator))
    return weights_of(made.denoiser, visited), condition, noise[:, 0], noise[:, 1:], table


def double(given: Inputs) -> Inputs:
    weights, *rest = given
    return DenoiserWeights(*(t.double() for t in weights)), *(t.double() for t in rest)  # type: ignore[return-value]


# The definition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_definition_is_the_chain_of_the_policy(blocks: int, generator: torch.Generator) -> None:
    made = policy(generator, width=24, blocks=blocks).double()
    made.schedule.to(torch.float64)
    feature, noise = torch.randn(6, 11, dtype=torch.float64), torch.randn(6, N + 1, 15, dtype=torch.float64)
    expected = made.decide(feature, noise, min_std=0.1)
    visited = list(reversed(range(N)))
    table = undo_table(made.schedule.alpha_bar, visited, eta=1.0, min_std=0.1)
    weights = weights_of(made.denoiser, visited)
    states, _ = denoise(weights, made.condition(feature), noise[:, 0], noise[:, 1:], table)
    # the schedule's own tables were rounded to float32
    assert torch.allclose(made.to_actions(states[:, -1].clone()), expected.actions, atol=1e-5)


def test_a_fine_tuned_end_is_two_calls_of_the_definition(generator: torch.Generator) -> None:
    base, tuned = (policy(generator, width=24, blocks=1) for _ in range(2))
    both = TunedPolicy(base, tuned, trained_steps=2)
    feature, noise = torch.randn(6, 11, generator=generator), torch.randn(6, N + 1, 15, generator=generator)
    expected = both.decide(feature, noise, min_std=0.1)
    x = noise[:, 0]
    for network, visited, last in ((base, [3, 2], 1), (tuned, [1, 0], -1)):
        table = undo_table(base.schedule.alpha_bar, visited, eta=1.0, min_std=0.1, last=last)
        added = noise[:, [N - k for k in visited]]
        states, means = denoise(weights_of(network.denoiser, visited), network.condition(feature), x, added, table)
        x = states[:, -1]
    assert torch.allclose(states, expected.stored["states"], atol=1e-4)
    assert torch.allclose(means, expected.stored["means"], atol=1e-4)


@pytest.mark.parametrize(("sampler", "eta", "steps"), [("ddpm", 1.0, N), ("ddim", 0.0, N), ("ddim", 0.0, 2)])
def test_the_table_serves_every_sampler(sampler: str, eta: float, steps: int, generator: torch.Generator) -> None:
    made = policy(generator, width=24, blocks=1)
    feature, noise = torch.randn(6, 11, generator=generator), torch.randn(6, N + 1, 15, generator=generator)
    expected = made.sample(feature, noise, sampler=sampler, steps=steps)  # type: ignore[arg-type]
    visited = [3, 2, 1, 0] if steps == N else [3, 0]
    table = undo_table(made.schedule.alpha_bar, visited, eta=eta, min_std=0.0)
    added = noise[:, 1 : 1 + len(visited)]
    weights = weights_of(made.denoiser, visited)
    states, _ = denoise(weights, made.condition(feature), noise[:, 0], added, table)
    assert torch.allclose(made.to_actions(states[:, -1].clone()), expected, atol=1e-4)


def test_the_op_is_the_definition_and_passes_opcheck(generator: torch.Generator) -> None:
    weights, *rest = inputs(generator, policy(generator, width=24, blocks=1), 5)
    found, expected = ops.denoise(weights, *rest, force="reference"), denoise(weights, *rest)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    torch.library.opcheck(torch.ops.worldaction.denoise, (list(weights), *rest, torch.float32, "reference"))


# The kernels ----------------------------------------------------------------------------------------------------------


def worst(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    """Largest error of a row of a step, relative to the size of the numbers; not a number if any was not written."""
    return max(
        float(((a - b).norm(dim=-1) / b.norm(dim=-1).mean()).max()) for a, b in zip(found, expected, strict=True)
    )


@needs_shim
@pytest.mark.parametrize("batch", [1, 11])
@pytest.mark.parametrize(("width", "blocks", "dtype", "most"), [
    (17, 2, torch.float32, 1e-5),
    (64, 1, torch.bfloat16, 1e-2),
    (32, 2, torch.bfloat16, 1e-2),
])  # fmt: skip
def test_the_kernels_meet_the_definition(
    batch: int, width: int, blocks: int, dtype: torch.dtype, most: float, generator: torch.Generator
) -> None:
    given = inputs(generator, policy(generator, width=width, blocks=blocks), batch)
    expected = denoise(*double(given))
    weights, *rest = given
    assert worst(Denoise(weights, batch, dtype=dtype, **HOPPER, load=load)(*rest), expected) < most


@needs_shim
@pytest.mark.parametrize("resident", [0, 2, 3])
def test_it_does_not_matter_where_weights_lie(
    resident: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(generator, policy(generator, width=32, blocks=1), 5)
    weights, *rest = given
    expected = Denoise(weights, 5, dtype=torch.bfloat16, **HOPPER, load=load)(*rest)
    most = plan({"width": 32, "blocks": 1, "chunk": 15}, 5, **HOPPER)
    assert most is not None
    assert (most.resident, most.held) == (3, True)
    edge, square = 2 * 1 * 512, 2 * 2 * 512
    shared = most.shared - (2 * edge + square) + [0, edge, 2 * edge, 2 * edge + square][resident]
    monkeypatch.setattr(cuda, "HELD_TILES", 0)
    ready = Denoise(weights, 5, dtype=torch.bfloat16, blocks=132, shared=shared, load=load)
    found = ready(*rest)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_shim
def test_equal_inputs_give_equal_bits_in_any_order_and_any_split(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, *rest = inputs(generator, policy(generator, width=64, blocks=1), 11)
    whole = Denoise(weights, 11, dtype=torch.bfloat16, **HOPPER, load=load)(*rest)
    monkeypatch.setenv("WA_SHIM_SEED", "2")
    for rows in (slice(0, 11), slice(0, 3), slice(3, 11)):
        part = [tensor[rows] for tensor in rest[:3]]
        ready = Denoise(weights, len(part[0]), dtype=torch.bfloat16, **HOPPER, load=load)
        some = ready(*part, rest[3])
        assert all(torch.equal(a, b[rows]) for a, b in zip(some, whole, strict=True))


def test_fragments_are_where_the_instruction_looks_for_them() -> None:
    matrix = torch.arange(32 * 48).reshape(32, 48).float()
    packed = fragments(matrix / 8.0).float() * 8.0
    exact = (matrix / 8.0).bfloat16().float() * 8.0
    tiles = packed.reshape(2, 3, 32, 4, 2)
    for lane in range(32):
        for i in range(4):
            row, column = lane // 4 + 8 * (i % 2), 2 * (lane % 4) + 8 * (i // 2)
            assert tiles[1, 2, lane, i].tolist() == exact[16 + row, 32 + column : 34 + column].tolist()


def test_the_cut_fits_on_chip() -> None:
    for width in (64, 128, 256):
        for batch in (16, 1024, 4096):
            cut = plan({"width": width, "blocks": 1, "chunk": 28}, batch, **HOPPER)
            assert cut is not None
            assert cut.shared <= HOPPER["shared"]
            assert cut.rows % 8 == 0
    assert plan({"width": 250, "blocks": 1, "chunk": 28}, 16, **HOPPER) is None


def test_without_a_gpu_the_kernel_says_what_is_missing() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "no GPU that torch can use" in str(cuda.available(typical()))
    narrow = Request(torch.device("cpu"), torch.bfloat16, 16, {"width": 250, "blocks": 1, "chunk": 28})
    assert "width 250 has no tiles of 16" in str(cuda.available(narrow))

"""The rollout's CUDA kernels, executed on the CPU: held to the definition in float64, and to themselves bit by bit."""

from __future__ import annotations

import pytest
import torch
from kernels_shim import load, needs_shim
from kernels_world import UNIMIX, World, errors, generator, world
from torch import Tensor

from worldaction.kernels import typical
from worldaction.kernels.rollout import cuda
from worldaction.kernels.rollout.cuda import Rollout
from worldaction.kernels.rollout.persistent import Plan, plan

__all__ = ["generator"]  # a fixture

pytestmark = needs_shim
HOPPER = {"blocks": 132, "shared": 232_448}

# sizes that divide nothing; and those that the kernel of one launch takes, with an inner width that must be padded
ODD = {"deter": 22, "hidden": 19, "groups": 3, "classes": 9, "action": 5}
TILED = {"deter": 64, "hidden": 40, "groups": 6, "classes": 12, "action": 7}


def roll(made: World, *, dtype: torch.dtype = torch.float32, cut: Plan | None = None) -> tuple[Tensor, Tensor]:
    """Through the kernels, into results that are poisoned."""
    batch, horizon, groups = made.uniforms.shape
    shape = {"batch": batch, "horizon": horizon, "groups": groups}
    rollout = Rollout(made.weights, **shape, unimix=UNIMIX, dtype=dtype, cut=cut, load=load)
    rollout._beliefs.fill_(torch.nan)
    rollout._codes.fill_(255)
    return rollout(*made.inputs)


def two_columns(batch: int) -> Plan:
    """The cut of `TILED` into two blocks a group."""
    cut = next(c for c in [plan(TILED, batch, blocks=2 * -(-batch // 32), shared=232_448)] if c)
    assert cut.columns == 2
    return cut


@pytest.mark.parametrize("batch", [1, 13])
@pytest.mark.parametrize(("dtype", "belief", "draw"), [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 2e-2, 0.02)])
def test_the_steps_meet_the_definition(
    batch: int, dtype: torch.dtype, belief: float, draw: float, generator: torch.Generator
) -> None:
    made = world(generator, batch=batch, horizon=4, **ODD)
    worst, outside = errors(made, *roll(made, dtype=dtype))
    assert worst < belief
    assert outside < draw


@pytest.mark.parametrize("batch", [5, 40])
def test_the_kernel_of_one_launch_meets_the_definition(batch: int, generator: torch.Generator) -> None:
    made = world(generator, batch=batch, horizon=4, **TILED)
    worst, outside = errors(made, *roll(made, dtype=torch.bfloat16, cut=two_columns(batch)))
    assert worst < 1.5e-2
    assert outside < 0.02


@pytest.mark.parametrize("one_launch", [False, True])
def test_equal_inputs_give_equal_bits_whatever_the_order_of_threads(
    one_launch: bool, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world(generator, batch=20, horizon=3, **TILED)
    cut = two_columns(20) if one_launch else None
    found = []
    for seed in ("1", "2"):
        monkeypatch.setenv("WA_SHIM_SEED", seed)
        found.append(roll(made, dtype=torch.bfloat16, cut=cut))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_split_batch_gives_equal_bits(generator: torch.Generator) -> None:
    made = world(generator, batch=20, horizon=3, **TILED)
    beliefs, codes = roll(made, dtype=torch.bfloat16, cut=two_columns(20))
    for rows in (slice(0, 7), slice(7, 20)):
        part = World(made.weights, *(tensor[rows] for tensor in made.inputs))
        some, drawn = roll(part, dtype=torch.bfloat16, cut=two_columns(len(part.belief)))
        assert torch.equal(some, beliefs[rows])
        assert torch.equal(drawn, codes[rows])


def test_a_second_call_takes_its_own_inputs(generator: torch.Generator) -> None:
    first, second = (world(generator, batch=4, horizon=2, **ODD) for _ in range(2))
    rollout = Rollout(
        first.weights, batch=4, horizon=2, groups=ODD["groups"], unimix=UNIMIX, dtype=torch.float32, cut=None, load=load
    )
    kept = rollout(*first.inputs)
    worst, outside = errors(World(first.weights, *second.inputs), *rollout(*second.inputs))
    assert worst < 1e-5
    assert outside < 1e-5
    assert errors(first, *kept)[0] < 1e-5


def test_the_cut_keeps_weights_on_chip_or_there_is_none() -> None:
    quick = {"deter": 256, "hidden": 200, "groups": 32, "classes": 16}
    for batch in (1, 64, 256, 512):
        cut = plan(quick, batch, **HOPPER)
        assert cut is not None
        assert cut.shared <= HOPPER["shared"]
        assert cut.groups * cut.columns <= HOPPER["blocks"]
        assert cut.groups * cut.rows >= batch > (cut.groups - 1) * cut.rows
    assert plan(quick | {"deter": 2048}, 64, **HOPPER) is None
    assert plan(quick, 100_000, **HOPPER) is None
    assert plan(quick | {"deter": 250}, 64, **HOPPER) is None


def test_without_a_gpu_the_kernels_say_what_is_missing() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "no GPU that torch can use" in str(cuda.available(typical()))
    assert "float64 is not built" in str(cuda.available(typical(dtype=torch.float64)))

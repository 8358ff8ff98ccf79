"""Random numbers and classes that the CUDA kernels draw, on the CPU: the same ones as the library's, and fairly."""

from __future__ import annotations

import math

import pytest
import torch
from kernels_shim import load, needs_shim
from kernels_world import UNIMIX, generator
from torch import Tensor

from worldaction.kernels.categorical.reference import probabilities, sample
from worldaction.kernels.cuda.launch import Load, long
from worldaction.kernels.cuda.source import source
from worldaction.random import Stream, normal, uniform

__all__ = ["generator"]  # a fixture

pytestmark = needs_shim
CPU = torch.device("cpu")


def draw(kernel: str, key: tuple[int, int, int], rows: Tensor, steps: int, width: int, *, load: Load = load) -> Tensor:
    out = torch.full((len(rows), steps, width), torch.nan)
    made = load(source("random", BF16=0), CPU)
    per_row = steps * width if kernel == "uniforms" else steps * ((width + 1) // 2)
    blocks = -(-len(rows) * per_row // 64)
    made.launch(kernel, blocks, 64, torch.tensor(key), rows, out, len(rows), steps, width)
    return out


@pytest.mark.parametrize(("seed", "words"), [(0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8))])
def test_the_generator_gives_the_published_numbers(seed: int, words: tuple[int, ...]) -> None:
    """Random123's known answer for a counter and a key of zeros."""
    found = draw("uniforms", (seed, 0, 0), torch.tensor([0]), 1, 4)
    assert found.flatten().tolist() == [((word >> 9) + 0.5) / 2**23 for word in words]


@pytest.mark.parametrize("width", [1, 6, 9])
def test_uniform_numbers_are_the_library_s(width: int, generator: torch.Generator) -> None:
    seed = int(torch.randint(2**32, (), generator=generator))
    rows = torch.randint(2**40, (5,), generator=generator)
    found = draw("uniforms", (seed, Stream.PRIOR, 7), rows, 3, width)
    for step in range(3):
        assert torch.equal(found[:, step], uniform(seed, Stream.PRIOR, rows, 7 + step, width))


@pytest.mark.parametrize("width", [1, 6, 9])
def test_normal_numbers_are_the_library_s(width: int, generator: torch.Generator) -> None:
    seed = int(torch.randint(2**32, (), generator=generator))
    rows = torch.randint(1000, (5,), generator=generator)
    found = draw("normals", (seed, Stream.POLICY, 7), rows, 2, width)
    for step in range(2):
        assert torch.allclose(found[:, step], normal(seed, Stream.POLICY, rows, 7 + step, width), atol=2e-6)


def classes_of(logits: Tensor, uniforms: Tensor, classes: int) -> Tensor:
    """[B, S] from logits [B, S C]."""
    batch, groups = uniforms.shape
    codes = torch.full((batch, groups), 255, dtype=torch.uint8)
    made = load(source("categorical", BF16=0, S=groups, C=classes), CPU)
    given = (logits, torch.zeros(groups * classes), uniforms, long(groups), codes, long(groups), UNIMIX, batch)
    made.launch("sample_step", -(-batch * groups // 4), 128, *given)
    return codes


@pytest.mark.parametrize("classes", [2, 33, 256])
def test_classes_are_the_definition_s(classes: int, generator: torch.Generator) -> None:
    logits = 2 * torch.randn(40, 3, classes, generator=generator)
    uniforms = torch.rand(40, 3, generator=generator).clamp(1e-6, 1 - 1e-6)
    probs = probabilities(logits.double(), UNIMIX)
    # where the number is a rounding error away from a boundary, float32 may land on either side
    clear = (probs.cumsum(-1) - uniforms.unsqueeze(-1)).abs().min(-1).values > 1e-5
    assert clear.float().mean() > 0.9
    found = classes_of(logits.flatten(1), uniforms, classes)
    assert torch.equal(found[clear], sample(probs, uniforms.double())[clear])


def test_frequencies_match_the_probabilities(generator: torch.Generator) -> None:
    count, classes = 6_000, 12
    one = torch.randn(2, classes, generator=generator)
    uniforms = draw("uniforms", (int(torch.randint(2**32, (), generator=generator)), 1, 0), torch.arange(count), 1, 2)
    found = classes_of(one.flatten().repeat(count, 1), uniforms.squeeze(1).contiguous(), classes).long()
    for group in range(2):
        expected = probabilities(one[group], UNIMIX) * count
        seen = torch.bincount(found[:, group], minlength=classes)
        assert ((seen - expected) ** 2 / expected).sum() < 51.0  # 11 degrees of freedom, p = 4e-7


def test_one_class_with_all_the_probability_is_always_drawn() -> None:
    logits = torch.full((8, 2, 32), -1e4)
    logits[..., 5] = 0.0
    uniforms = torch.full((8, 2), (1 - UNIMIX) / 2 + UNIMIX * 6 / 32)
    assert classes_of(logits.flatten(1), uniforms, 32).unique().tolist() == [5]
    assert math.isclose(float(probabilities(logits, UNIMIX).sum(-1).mean()), 1.0, rel_tol=1e-6)

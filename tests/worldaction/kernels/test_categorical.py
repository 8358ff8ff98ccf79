"""The sampler of the latent groups: exact inverse CDF, right frequencies, and a floor under every class."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from worldaction.kernels.categorical.reference import probabilities, sample


@pytest.fixture
def generator(record_property: Callable[[str, object], None]) -> torch.Generator:
    """New inputs in every run. The seed is kept in the report; WORLDACTION_TEST_SEED replays a failure."""
    seed = int(os.environ.get("WORLDACTION_TEST_SEED") or int.from_bytes(os.urandom(4), "big"))
    record_property("seed", seed)
    return torch.Generator().manual_seed(seed)


def loop(probs: Tensor, uniform: Tensor) -> list[int]:
    """The definition in float64: the first class whose cumulative probability exceeds the uniform number."""
    found = []
    for row, u in zip(probs.double().tolist(), uniform.double().tolist(), strict=True):
        cumulative = list(itertools.accumulate(row))
        found.append(min(bisect.bisect_right(cumulative, u * cumulative[-1]), len(row) - 1))
    return found


def test_probabilities_are_a_softmax_above_a_floor(generator: torch.Generator) -> None:
    logits = torch.randn(50, 4, 32, generator=generator) * 20
    probs = probabilities(logits, 0.01)
    assert (probs.sum(-1) - 1).abs().max() < 1e-5
    assert probs.min() >= 0.01 / 32
    expected = 0.99 * torch.softmax(logits.double(), -1) + 0.01 / 32
    assert torch.allclose(probs.double(), expected, atol=1e-6)


def test_unimix_of_one_is_uniform_and_of_zero_is_the_softmax() -> None:
    logits = torch.tensor([[0.0, 5.0, -3.0, 1.0]])
    assert torch.allclose(probabilities(logits, 1.0), torch.full((1, 4), 0.25))
    assert torch.equal(probabilities(logits, 0.0), torch.softmax(logits, -1))


@pytest.mark.parametrize("classes", [2, 5, 32, 256])
def test_sample_is_the_inverse_cdf(classes: int, generator: torch.Generator) -> None:
    probs = probabilities(torch.randn(2_000, classes, generator=generator) * 2, 0.01)
    uniform = torch.rand(2_000, generator=generator).clamp(1e-7, 1 - 1e-7)
    # where the number is a rounding error away from a boundary, float32 may land on either side
    cumulative = probs.double().cumsum(-1)
    clear = (cumulative / cumulative[:, -1:] - uniform[:, None].double()).abs().min(-1).values > 1e-5
    assert clear.float().mean() > 0.9
    drawn = sample(probs, uniform)
    assert drawn.dtype == torch.uint8
    assert drawn[clear].tolist() == loop(probs[clear], uniform[clear])


def test_a_number_on_a_boundary_belongs_to_the_class_above_it() -> None:
    probs = torch.tensor([0.25, 0.5, 0.25]).expand(6, 3)
    below, above = 2.0**-24, 1 - 2.0**-24
    uniform = torch.tensor([below, 0.25 - below, 0.25, 0.75 - 2 * below, 0.75, above])
    assert sample(probs, uniform).tolist() == [0, 0, 1, 1, 2, 2] == loop(probs, uniform)


def test_a_class_without_probability_is_never_drawn(generator: torch.Generator) -> None:
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    uniform = torch.cat([torch.rand(1_000, generator=generator), torch.tensor([0.5, 2.0**-24, 1 - 2.0**-24])])
    drawn = sample(probs.expand(len(uniform), 5), uniform.clamp_min(2.0**-24))
    assert set(drawn.tolist()) == {1, 3}


def test_only_the_ratios_of_the_probabilities_count(generator: torch.Generator) -> None:
    probs = probabilities(torch.randn(500, 8, generator=generator), 0.01)
    uniform = torch.rand(500, generator=generator).clamp_min(1e-7)
    # powers of two, which round nothing
    for scale in (0.5, 4.0):
        assert torch.equal(sample(probs * scale, uniform), sample(probs, uniform))


def test_the_result_is_a_class_even_where_sums_round_above_one() -> None:
    probs = torch.full((1, 255), 1 / 255)
    for scale in (1.0, 1.00001, 0.99999):
        assert sample(probs * scale, torch.tensor([1 - 2.0**-24])).item() == 254


def test_frequencies_match_the_probabilities(generator: torch.Generator) -> None:
    probs = probabilities(torch.randn(3, 8, generator=generator), 0.01)
    count = 30_000
    drawn = sample(probs.expand(count, 3, 8), torch.rand(count, 3, generator=generator).clamp_min(1e-7))
    for group in range(3):
        seen = torch.bincount(drawn[:, group].long(), minlength=8)
        expected = probs[group] * count
        assert ((seen - expected) ** 2 / expected).sum() < 40.5  # 7 degrees of freedom, p = 1e-6


def test_groups_are_drawn_independently(generator: torch.Generator) -> None:
    count = 20_000
    probs = torch.full((count, 2, 4), 0.25)
    drawn = sample(probs, torch.rand(count, 2, generator=generator).clamp_min(1e-7)).long()
    joint = torch.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16)
    assert ((joint - count / 16) ** 2 / (count / 16)).sum() < 56.5  # 15 degrees of freedom, p = 1e-6

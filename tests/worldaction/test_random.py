"""The generator is Philox, its numbers are what they claim to be, and they belong to rows, not to batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldaction.random import Stream, Use, branch, normal, philox, uniform

# kat_vectors of Random123: counter, key, expected, for philox4x32 with ten rounds
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def big_sample() -> Tensor:
    """[40_000] numbers of 500 rows, 5 steps and 16 lanes."""
    rows = torch.arange(500)
    return torch.cat([uniform(7, Stream.PRIOR, rows, step, 16).flatten() for step in range(5)])


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_its_authors(counter: str, key: str, expected: str) -> None:
    first, second = words(key)
    assert philox(torch.tensor(words(counter)), (first, second)).tolist() == words(expected)


def test_philox_agrees_with_python_integers_on_random_counters() -> None:
    generator = torch.Generator().manual_seed(2011)
    counters = torch.randint(0, 2**32, (20, 4), generator=generator)
    key = (0xDEADBEEF, 0x00000001)
    found = philox(counters, key).tolist()
    for counter, result in zip(counters.tolist(), found, strict=True):
        c, k = list(counter), list(key)
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            low = 0xFFFFFFFF
            c = [(b >> 32) ^ c[1] ^ k[0], b & low, (a >> 32) ^ c[3] ^ k[1], a & low]
            k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
        assert c == result


def test_uniform_never_returns_zero_or_one_even_for_the_extreme_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (0, 2**32 - 1):
        monkeypatch.setattr("worldaction.random.philox", lambda counter, key, word=word: torch.full_like(counter, word))
        value = uniform(0, Stream.PRIOR, torch.arange(1), 0, 1).item()
        assert 0.0 < value < 1.0
    assert value == 1.0 - 2.0**-24


def test_rows_give_the_same_numbers_in_any_batch() -> None:
    rows = torch.tensor([3, 70_000, 2**32 - 1, 0])
    whole = uniform(5, Stream.POLICY, rows, 9, 6)
    assert whole.shape == (4, 6)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(uniform(5, Stream.POLICY, rows[order], 9, 6), whole[order])
    for i in range(4):
        assert torch.equal(uniform(5, Stream.POLICY, rows[i : i + 1], 9, 6), whole[i : i + 1])
        assert torch.equal(
            normal(5, Stream.POLICY, rows[i : i + 1], 9, 6), normal(5, Stream.POLICY, rows, 9, 6)[i, None]
        )


def test_a_wider_draw_begins_with_the_narrow_one() -> None:
    rows = torch.arange(3)
    assert torch.equal(uniform(0, Stream.START, rows, 2, 10)[:, :5], uniform(0, Stream.START, rows, 2, 5))


def test_seed_stream_row_and_step_each_change_every_number() -> None:
    rows = torch.arange(200)
    base = uniform(1, Stream.PRIOR, rows, 0, 8)
    others = [
        uniform(2, Stream.PRIOR, rows, 0, 8),
        uniform(1, Stream.PRIOR, rows, 1, 8),
        uniform(1, Stream.PRIOR, rows + 200, 0, 8),
        *(uniform(1, stream, rows, 0, 8) for stream in Stream if stream != Stream.PRIOR),
    ]
    for other in others:
        # two independent draws agree to 23 bits once in 8 million
        assert (base == other).float().mean() < 0.005
        assert torch.corrcoef(torch.stack([base.flatten(), other.flatten()]))[0, 1].abs() < 0.1


def test_uses_of_a_seed_share_no_numbers_with_each_other_or_with_the_seed() -> None:
    seeds = [seed for root in range(100) for seed in (root, *(branch(root, use) for use in Use))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert branch(2**32 + 5, Use.DREAMS) == branch(5, Use.DREAMS)
    drawn = [uniform(seed, Stream.POLICY, torch.arange(200), 0, 8) for seed in (7, *(branch(7, use) for use in Use))]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert (one == other).float().mean() < 0.005


def test_uniform_numbers_are_uniform() -> None:
    sample = big_sample()
    assert len(sample.unique()) > 0.99 * len(sample)
    counts = torch.histc(sample, 100, 0.0, 1.0)
    expected = len(sample) / 100
    assert ((counts - expected) ** 2 / expected).sum() < 149.4  # 99 degrees of freedom, p = 0.001
    assert abs(sample.mean().item() - 0.5) < 4 * math.sqrt(1 / 12 / len(sample))
    assert abs(sample.var().item() - 1 / 12) < 4 * math.sqrt(1 / 180 / len(sample))


def test_neighbouring_lanes_rows_and_steps_are_uncorrelated() -> None:
    rows = torch.arange(2_000)
    now, later = (uniform(3, Stream.POSTERIOR, rows, step, 8) for step in (0, 1))
    pairs = [(now[:, :-1], now[:, 1:]), (now[:-1], now[1:]), (now, later)]
    for a, b in pairs:
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 4 / math.sqrt(a.numel())


def test_normal_numbers_are_standard_normal() -> None:
    sample = normal(11, Stream.POLICY, torch.arange(4_000), 0, 10).flatten().double()
    count = len(sample)
    assert abs(sample.mean()) < 4 / math.sqrt(count)
    assert abs(sample.var() - 1) < 4 * math.sqrt(2 / count)
    assert abs((sample**3).mean()) < 4 * math.sqrt(15 / count)
    assert abs((sample**4).mean() - 3) < 4 * math.sqrt(96 / count)
    # Kolmogorov-Smirnov, p = 0.001
    cdf = 0.5 * (1 + torch.erf(sample.sort().values / math.sqrt(2)))
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = torch.maximum((cdf - steps[:-1]).abs(), (cdf - steps[1:]).abs()).max()
    assert distance < 1.95 / math.sqrt(count)


def test_the_two_numbers_of_a_box_muller_pair_are_uncorrelated_and_odd_widths_work() -> None:
    drawn = normal(0, Stream.POLICY, torch.arange(4_000), 3, 7)
    assert drawn.shape == (4_000, 7)
    corr = torch.corrcoef(drawn.T) - torch.eye(7)
    assert corr.abs().max() < 4.5 / math.sqrt(4_000)
    squares = torch.corrcoef(drawn.square().T) - torch.eye(7)
    assert squares.abs().max() < 4.5 / math.sqrt(4_000)

"""Counter-based random numbers: the same number for the same (seed, stream, row, step), whatever the batch split.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), in int64 tensor arithmetic, so that
the identical stream is available on every device and in the kernels. Dreams and evaluations draw from here, which is
why their results do not depend on how many run side by side. Training loops use a `torch.Generator` instead.
"""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


class Stream(IntEnum):
    """Independent streams under one seed: a new use of randomness gets a new member, never a shared one."""

    POSTERIOR = 0
    PRIOR = 1
    POLICY = 2
    START = 3
    SCENE = 4  # which of the given starts a dream begins at


class Use(IntEnum):
    """What a seed of a study serves, beside evaluations, which take it as it is; `branch` parts their numbers."""

    DREAMS = 1  # that a policy learns from
    MEASURED_DREAMS = 2  # in which it is measured
    EVALUATED_DREAMS = 3  # that other world models replay, where there is no simulator


def branch(seed: int, use: Use) -> int:
    """A seed of its own for a use: its streams have nothing in common with the seed's, nor with other uses'.

    Args:
        seed: any integer in [0, 2**32).
        use: what for.

    Returns:
        a seed in [0, 2**32).
    """
    # the last word of the counter is 0 in every stream, and never here
    return int(philox(torch.tensor([0, 0, 0, int(use)]), (seed & _MASK, 0))[0])


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Ten rounds of Philox4x32.

    Args:
        counter: [..., 4] int64, each in [0, 2**32).
        key: two words in [0, 2**32).

    Returns:
        [..., 4] int64, each in [0, 2**32).
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack([c0, c1, c2, c3], -1)


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of the 64-bit product of two 32-bit numbers."""
    # int64 arithmetic wraps, so the product has the right 64 bits, whatever its sign
    product = a * b
    return (product >> 32).bitwise_and_(_MASK), product.bitwise_and_(_MASK)


def uniform(seed: int, stream: Stream, rows: Tensor, step: int | Tensor, width: int) -> Tensor:
    """Uniform numbers in (0, 1), `width` per row.

    Args:
        seed: any integer in [0, 2**32).
        stream: which use of randomness this is.
        rows: [B] int64, a global name for each row (the dream's or the episode's number).
        step: the time step, in [0, 2**32); [B] int64 where the rows are at different ones.
        width: how many numbers per row.

    Returns:
        [B, width] float32.
    """
    blocks = (width + 3) // 4
    lane = torch.arange(blocks, device=rows.device)
    if not isinstance(step, Tensor):
        step = torch.full_like(rows, step)
    # [B, blocks, 4]
    counter = torch.stack(
        [
            lane.expand(len(rows), blocks),
            rows[:, None].expand(-1, blocks) & _MASK,
            step[:, None].expand(-1, blocks),
            torch.zeros(len(rows), blocks, dtype=torch.int64, device=rows.device),
        ],
        -1,
    )
    words = philox(counter, (seed & _MASK, int(stream))).flatten(1)[:, :width]
    # 23 bits and a half: float32 holds the value exactly, so neither 0 nor 1 is ever returned
    return ((words >> 9).to(torch.float32) + 0.5) / (1 << 23)


def normal(seed: int, stream: Stream, rows: Tensor, step: int | Tensor, width: int) -> Tensor:
    """Standard normal numbers by Box-Muller, arguments as for `uniform`.

    Returns:
        [B, width] float32.
    """
    half = (width + 1) // 2
    u, v = uniform(seed, stream, rows, step, 2 * half).chunk(2, -1)
    radius = (-2.0 * u.log()).sqrt()
    angle = 2.0 * math.pi * v
    return torch.cat([radius * angle.cos(), radius * angle.sin()], -1)[:, :width]

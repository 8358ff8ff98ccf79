"""Which library multiplies float32 matrices on a CPU.

PyTorch asks MKL, which leaves half of the width of an AMD processor unused. It asks oneDNN where it may compute in
bfloat16. oneDNN has float32 products in bfloat16 for processors with AMX alone; on others it takes the permission, does
not use it, and computes in float32 at twice MKL's speed. So the permission is given there, and only there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

WIDTH = 8
"""Rows of float32 numbers on which it is tried that products are exact."""
ERROR = 1e-5
"""Largest relative error of an exact product; bfloat16's is a hundred times larger."""


@contextmanager
def fast_float32() -> Iterator[None]:
    """Compute float32 products on a CPU with the library that is faster here, and as exact; else change nothing."""
    before = torch.get_float32_matmul_precision()
    if before != "highest" or not onednn_is_better():
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def onednn_is_better() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL here and just as exactly.

    The processor decides, not a measured time: the same machine must compute the same numbers in every run.
    """
    if torch.cuda.is_available() or not torch.backends.mkldnn.is_available():
        return False
    found = torch.cpu.get_capabilities()
    known = "AMD" in str(found.get("cpu_name", "")) and found.get("avx512_f", False)
    return bool(known) and not found.get("amx_tile", False) and _exact()


def _exact() -> bool:
    """Whether products stay in float32 when they need not."""
    generator = torch.Generator().manual_seed(0)
    torch.set_float32_matmul_precision("medium")
    try:
        return all(_error(rows, generator) < ERROR for rows in (WIDTH, 16 * WIDTH))
    finally:
        torch.set_float32_matmul_precision("highest")


def _error(rows: int, generator: torch.Generator) -> float:
    """Relative error of a product of float32 matrices."""
    x, w = (torch.randn(count, 512, generator=generator) for count in (rows, 256))
    wanted = x.double() @ w.double().T
    return float((torch.nn.functional.linear(x, w) - wanted).norm() / wanted.norm())

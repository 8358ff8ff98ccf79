"""The denoising loop on an NVIDIA GPU: one kernel for all steps of a block's rows, on tensor cores or in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worldaction.kernels import UNPROVEN, Request
from worldaction.kernels.cuda.launch import Argument, Load, load, long, room, unavailable
from worldaction.kernels.cuda.source import Source, source
from worldaction.kernels.denoise.reference import DenoiserWeights, sizes_of
from worldaction.kernels.weight_cache import WeightCache

PRIORITY = 30
OPT_IN = UNPROVEN
PAD = 8
TILE = 4 * 128  # bytes of a 16 x 16 tile of bfloat16
HELD_TILES = 32  # tiles of one matrix that a warp can hold in registers: 128 of them
HELD_BESIDE = 4  # accumulator tiles for which there is room beside it
TILES_PER_WARP = 8  # 16 x 8 accumulator tiles of a warp; there are three sets of them in registers
EXACT_ROWS, EXACT_THREADS = 8, 256
SMALLEST_SHARED = 163 * 1024  # of the GPUs that are served
_kept: WeightCache[Denoise] = WeightCache(4)


@dataclass(frozen=True)
class Plan:
    """How the kernel on tensor cores is cut.

    Attributes:
        rows: of a block.
        warps: of a block.
        padded: numbers of a chunk, rounded up with zeros.
        resident: how many matrices lie in shared memory.
        held: whether one lies in registers.
        shared: bytes of shared memory of a block.
    """

    rows: int
    warps: int
    padded: int
    resident: int
    held: bool
    shared: int


def plan(sizes: Mapping[str, int], batch: int, *, blocks: int, shared: int) -> Plan | None:
    """The cut of a batch, or None if the width has no tiles or its activations do not fit.

    Args:
        sizes: width, blocks (of the network), chunk.
        batch: rows B.
        blocks: multiprocessors.
        shared: bytes of shared memory that a block may have.
    """
    width, padded = sizes["width"], -(-sizes["chunk"] // 16) * 16
    if width % 16:
        return None
    tiles = width // 16
    warps = next(count for count in (16 if tiles >= 32 else 8, 8, 4, 2, 1) if tiles % count == 0)
    # as few rows as keep the batch on the chip at once: a step's time is latency
    most = max(8, 8 * (TILES_PER_WARP // max(warps // 8, 1)) // (tiles // warps))
    rows = min(next((rows for rows in (8, 16, 24) if rows * blocks >= batch), 32), most)
    edge, square = tiles * padded // 16 * TILE, tiles * tiles * TILE
    work = rows * (2 * 2 * (width + PAD) + 2 * (padded + PAD) + 4 * padded * (1 + warps))
    sizes_in_order = [edge, edge, *[square] * (2 * sizes["blocks"])]
    held = tiles // warps * tiles <= HELD_TILES and tiles // warps * rows // 8 <= HELD_BESIDE
    # the matrix in registers is the last one
    candidates = sizes_in_order[: len(sizes_in_order) - held]
    resident = sum(work + sum(candidates[: k + 1]) <= shared for k in range(len(candidates)))
    total = work + sum(candidates[:resident])
    return Plan(rows, warps, padded, resident, held, total) if work <= shared else None


def available(request: Request) -> str | None:
    """Why the kernels cannot serve a request; None if they can."""
    if request.dtype not in (torch.float32, torch.bfloat16):
        return f"{request.dtype} is not built; ask for float32 or bfloat16"
    sizes = {"width": 256, "blocks": 1, "chunk": 28} | dict(request.sizes)
    if request.dtype == torch.bfloat16 and plan(sizes, request.batch, blocks=1, shared=SMALLEST_SHARED) is None:
        return f"width {sizes['width']} has no tiles of 16 or does not fit on chip; ask for float32"
    if _exact_shared(sizes) > SMALLEST_SHARED:
        return f"width {sizes['width']} does not fit on chip; use a narrower policy"
    return unavailable(request)


def run(
    weights: DenoiserWeights, condition: Tensor, x: Tensor, noise: Tensor, table: Tensor, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`denoise`; arguments and results as there. Packed weights are kept, for the last few networks."""

    def make() -> Denoise:
        blocks, shared = room(condition.device)
        return Denoise(weights, len(x), dtype=dtype, blocks=blocks, shared=shared, load=load)

    return _kept.get(weights, (len(x), dtype), make)(condition, x, noise, table)


def _exact_shared(sizes: Mapping[str, int]) -> int:
    return 4 * EXACT_ROWS * (sizes["chunk"] + 3 * sizes["width"])


def denoise_source(sizes: Mapping[str, int], cut: Plan | None) -> Source:
    """What is compiled for sizes (width, chunk, blocks) and a cut; without one, in float32."""
    macros = {"W": sizes["width"], "X": sizes["chunk"], "BLOCKS": sizes["blocks"]}
    if cut is None:
        return source("denoise_exact", BF16=0, ROWS=EXACT_ROWS, SHARED=_exact_shared(sizes), **macros)
    macros |= {"XP": cut.padded, "WARPS": cut.warps, "RESIDENT": cut.resident, "HELD": int(cut.held)}
    return source("denoise", BF16=1, ROWS=cut.rows, SHARED=cut.shared, **macros)


def sources(sizes: Mapping[str, int], batch: int, *, blocks: int, shared: int) -> Iterator[Source]:
    """What is compiled for sizes (width, chunk, blocks) and a batch, on a GPU of so many multiprocessors and bytes."""
    yield denoise_source(sizes, None)
    cut = plan(sizes, batch, blocks=blocks, shared=shared)
    if cut is not None:
        yield denoise_source(sizes, cut)


class Denoise:
    """The kernel with its weights, for one batch.

    Args:
        weights: see `DenoiserWeights`, float32.
        batch: rows B.
        dtype: of products, float32 or bfloat16.
        blocks: multiprocessors.
        shared: bytes of shared memory that a block may have.
        load: how programs come to the device.
    """

    def __init__(
        self, weights: DenoiserWeights, batch: int, *, dtype: torch.dtype, blocks: int, shared: int, load: Load
    ) -> None:
        self.batch = batch
        sizes = sizes_of(weights)
        self._vectors = [t.contiguous() for t in (weights.steps, weights.biases, weights.out_bias)]
        cut = plan(sizes, batch, blocks=blocks, shared=shared) if dtype == torch.bfloat16 else None
        if cut is None:
            self._rows, self._threads, self._shared = EXACT_ROWS, EXACT_THREADS, _exact_shared(sizes)
            turned = (weights.noisy.t(), weights.out.t(), weights.layers.transpose(1, 2))
            self._matrices = [matrix.contiguous() for matrix in turned]
        else:
            self._rows, self._threads, self._shared = cut.rows, 32 * cut.warps, cut.shared
            self._matrices = [pack(weights, cut.padded)]
        what = denoise_source(sizes, cut)
        # a file has one kernel, of its own name
        self._kernel, self._program = what.name, load(what, weights.noisy.device)

    def __call__(self, condition: Tensor, x: Tensor, noise: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Arguments and results of `denoise`."""
        count, chunk = len(table), x.shape[1]
        states, means = x.new_empty(self.batch, count + 1, chunk), x.new_empty(self.batch, count, chunk)
        self.into(condition.contiguous(), x.contiguous(), noise.contiguous(), table, states=states, means=means)
        return states, means

    def into(
        self, condition: Tensor, x: Tensor, noise: Tensor, table: Tensor, *, states: Tensor, means: Tensor
    ) -> None:
        """The same with results written to contiguous tensors; rows of x and of noise may lie apart."""
        arguments: list[Argument] = [*self._matrices, *self._vectors, table, condition]
        arguments += [x, long(x.stride(0)), noise, long(noise.stride(0))]
        arguments += [states, means, self.batch, len(table)]
        grid = -(-self.batch // self._rows)
        self._program.launch(self._kernel, grid, self._threads, *arguments, shared=self._shared)


def pack(weights: DenoiserWeights, padded: int) -> Tensor:
    """All matrices in bfloat16 in the order of tensor-core fragments, as denoise.cuh says, in one row of numbers."""
    more = padded - weights.noisy.shape[1]
    noisy, out = functional.pad(weights.noisy, (0, more)), functional.pad(weights.out, (0, 0, 0, more))
    layers = [*weights.layers[1:], weights.layers[0]]
    return torch.cat([fragments(matrix) for matrix in (noisy, out, *layers)])


def fragments(matrix: Tensor) -> Tensor:
    """A matrix [M, K] of whole tiles as operand A of mma.m16n8k16: tile by tile, lane by lane, eight numbers each.

    The numbers of lane 4 g + t are at row g + 8 (i % 2) and columns 2 t + 8 (i / 2), and one more, for i = 0 .. 3.
    """
    rows, columns = matrix.shape
    # [M / 16, high row, g, K / 16, high column, t, pair]
    parts = matrix.to(torch.bfloat16).reshape(rows // 16, 2, 8, columns // 16, 2, 4, 2)
    return parts.permute(0, 3, 2, 5, 4, 1, 6).contiguous().flatten()

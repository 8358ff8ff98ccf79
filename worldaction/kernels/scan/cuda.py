"""The filter over training windows on an NVIDIA GPU: torch's products, and a kernel for each part between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from worldaction.kernels import UNPROVEN
from worldaction.kernels.cuda.launch import Argument, Load, load, long
from worldaction.kernels.cuda.source import Source, source
from worldaction.kernels.rollout.cuda import available as available
from worldaction.kernels.scan.explicit import Normed, forward
from worldaction.kernels.scan.reference import ScanWeights

PRIORITY = 30
OPT_IN = UNPROVEN
THREADS, WARPS = 128, 4  # SCAN_THREADS of scan.cuh; warps of a block that draws


def scan_source(sizes: Mapping[str, int], dtype: torch.dtype) -> Source:
    """What is compiled for sizes (deter, hidden, groups, classes) and a precision of products."""
    macros = {"D": sizes["deter"], "U": sizes["hidden"], "S": sizes["groups"], "C": sizes["classes"]}
    return source("scan", BF16=int(dtype == torch.bfloat16), **macros)


def sources(sizes: Mapping[str, int]) -> Iterator[Source]:
    """What is compiled in both precisions."""
    for dtype in (torch.float32, torch.bfloat16):
        yield scan_source(sizes, dtype)


def run(
    weights: ScanWeights,
    looks: Tensor,
    actions: Tensor,
    keep: Tensor,
    uniforms: Tensor,
    imagined: Tensor | None,
    *,
    unimix: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`scan` without a gradient; `worldaction.kernels.scan.op` has it with one."""
    seen, moved, kept, draws = (part.transpose(0, 1).contiguous() for part in (looks, actions, keep, uniforms))
    turned = None if imagined is None else imagined.transpose(0, 1).contiguous()
    parts = parts_of(weights, uniforms.shape[2], dtype=dtype)
    saved = forward(weights, seen, moved, kept, draws, turned, unimix=unimix, dtype=dtype, parts=parts)
    states = functional.one_hot(saved.codes.long(), saved.posterior.shape[3]).to(looks.dtype).flatten(-2)
    found = [part.transpose(0, 1) for part in (saved.beliefs, states, saved.posterior, saved.prior)]
    return found[0], found[1], found[2], found[3]


def parts_of(weights: ScanWeights, groups: int, *, dtype: torch.dtype) -> KernelParts:
    """The parts for the GPU that the weights are on."""
    return KernelParts(weights, groups, dtype=dtype, load=load)


class KernelParts:
    """`worldaction.kernels.scan.explicit.Parts` as kernels.

    Args:
        weights: of which the sizes are taken.
        groups: S.
        dtype: of operands, float32 or bfloat16.
        load: how programs come to the device.
    """

    def __init__(self, weights: ScanWeights, groups: int, *, dtype: torch.dtype, load: Load) -> None:
        (hidden, deter), flat = weights.look.shape, weights.look_bias.shape[0]
        sizes = {"deter": deter, "hidden": hidden, "groups": groups, "classes": flat // groups}
        self._dtype, self._sizes = dtype, sizes
        self._program = load(scan_source(sizes, dtype), weights.gates.device)

    def input(
        self, rows: Tensor, code: Tensor, keep: Tensor, action: Tensor, belief: Tensor, gain: Tensor, offset: Tensor
    ) -> tuple[Normed, Tensor, Tensor]:
        """See `Parts.input`."""
        norm, kept = self._norm(belief, self._sizes["hidden"]), torch.empty_like(belief)
        operand = self._operand(belief, self._sizes["hidden"] + self._sizes["deter"])
        given = (rows, code, keep.contiguous(), action.contiguous(), belief, gain, offset)
        self._rows("scan_input", belief, *given, *norm, operand, kept)
        return norm, operand, kept

    def gates(self, pre: Tensor, belief: Tensor, gain: Tensor, offset: Tensor) -> tuple[Normed, Tensor]:
        """See `Parts.gates`."""
        norm, after = self._norm(belief, pre.shape[1]), torch.empty_like(belief)
        self._rows("scan_gates", pre, pre, belief, gain, offset, *norm, after)
        return norm, after

    def hidden(self, pre: Tensor, add: Tensor, gain: Tensor, offset: Tensor) -> tuple[Normed, Tensor]:
        """See `Parts.hidden`."""
        norm, out = self._norm(gain, pre.shape[1], len(pre)), self._operand(pre, pre.shape[1])
        stride = long(add.stride(0) if add.ndim > 1 else 0)
        self._rows("scan_hidden", pre, pre, add, stride, gain, offset, *norm, out)
        return norm, out

    def draw(
        self, logits: Tensor, bias: Tensor, other: Tensor | None, other_bias: Tensor, imagined: Tensor | None,
        uniform: Tensor, unimix: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """See `Parts.draw`."""
        batch, groups = uniform.shape
        posterior = bias.new_empty(batch, groups, self._sizes["classes"])
        codes = torch.empty(batch, groups, dtype=torch.uint8, device=bias.device)
        if other is None or imagined is None:
            prior, rest = posterior[:0], (logits, other_bias, codes, 1)
        else:
            prior, rest = torch.empty_like(posterior), (other, other_bias, imagined.contiguous(), 0)
        results = (uniform.contiguous(), posterior, prior, codes, unimix, batch)
        self._warps("scan_draw", batch * groups, logits, bias, *rest, *results)
        return posterior, prior, codes

    def draw_back(
        self, probs: Tensor, grad: Tensor, state_grad: Tensor, counts: Tensor | None, unimix: float
    ) -> Tensor:
        """See `Parts.draw_back`."""
        batch, groups, classes = probs.shape
        out = self._operand(probs, groups * classes)
        counted = (probs, 1) if counts is None else (counts.contiguous(), 0)
        given = (probs, grad.contiguous(), state_grad.contiguous(), *counted)
        self._warps("scan_draw_back", batch * groups, *given, out, unimix, batch)
        return out

    def hidden_back(self, grad: Tensor, norm: Normed, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parts.hidden_back`."""
        out, affine = self._operand(norm.value, gain.shape[0]), torch.empty_like(norm.value)
        self._rows("scan_hidden_back", grad, grad, long(grad.stride(0)), *norm, gain, offset, out, affine)
        return out, affine

    def gates_back(
        self, grad: Tensor, norm: Normed, belief: Tensor, gain: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Parts.gates_back`."""
        out, affine = self._operand(norm.value, gain.shape[0]), torch.empty_like(norm.value)
        past = torch.empty_like(belief)
        self._rows("scan_gates_back", grad, grad.contiguous(), *norm, belief, gain, offset, out, affine, past)
        return out, affine, past

    def _norm(self, like: Tensor, size: int, batch: int | None = None) -> Normed:
        rows = len(like) if batch is None else batch
        return Normed(like.new_empty(rows, size), like.new_empty(rows))

    def _operand(self, like: Tensor, size: int) -> Tensor:
        return torch.empty(len(like), size, dtype=self._dtype, device=like.device)

    def _rows(self, kernel: str, like: Tensor, *arguments: Argument) -> None:
        self._program.launch(kernel, len(like), THREADS, *arguments)

    def _warps(self, kernel: str, count: int, *arguments: Argument) -> None:
        self._program.launch(kernel, -(-count // WARPS), 32 * WARPS, *arguments)

"""The prior's step on a GPU for every size and batch: torch multiplies, a kernel does all that lies between products.

Seven launches a step, which a CUDA graph over the horizon makes cheap. Nothing but the random numbers and the actions
comes from outside.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldaction.kernels.cuda.launch import Load, long
from worldaction.kernels.cuda.source import Source, source
from worldaction.kernels.rollout.reference import PriorWeights, sizes_of

ROW = 128  # STEP_THREADS of steps.cuh
WARPS = 4


def steps_source(sizes: Mapping[str, int], dtype: torch.dtype) -> Source:
    """What is compiled for sizes (deter, hidden, groups, classes, action) and a precision of products."""
    macros = {"D": sizes["deter"], "U": sizes["hidden"], "S": sizes["groups"], "C": sizes["classes"]}
    return source("steps", BF16=int(dtype == torch.bfloat16), A=sizes["action"], **macros)


class PriorStep:
    """The step, with weights in the precision of the products and buffers for one batch.

    Args:
        weights: see `PriorWeights`, float32.
        groups: S.
        batch: rows B.
        unimix: share of the uniform distribution.
        dtype: of products, float32 or bfloat16.
        load: how programs come to the device.
    """

    def __init__(
        self, weights: PriorWeights, groups: int, *, batch: int, unimix: float, dtype: torch.dtype, load: Load
    ) -> None:
        flat, hidden = weights.state_rows.shape
        device, deter = weights.gates.device, weights.hidden.shape[1]
        self.program = load(steps_source(sizes_of(weights, groups), dtype), device)
        self.batch, self.groups, self.unimix, self._half = batch, groups, unimix, hidden
        self.weights = weights
        self.rows = weights.state_rows.to(dtype).contiguous()
        self.action = weights.action.t().to(dtype).contiguous()
        self.gates, self.hidden, self.logits = (
            weight.to(dtype).t() for weight in (weights.gates, weights.hidden, weights.logits)
        )
        # [x | h], and what the three products give
        self.operand = torch.zeros(batch, hidden + deter, dtype=dtype, device=device)
        self.parts = self.operand.new_empty(batch, 3 * deter)
        self.inner, self.outer = self.operand.new_empty(batch, hidden), self.operand.new_empty(batch, hidden)
        self.scores = self.operand.new_empty(batch, flat)

    def begin(self, belief: Tensor) -> None:
        """Take the belief [B, D] that the first step starts from."""
        blocks = -(-belief.numel() // 256)
        self.program.launch("first_step", blocks, 256, belief, long(belief.stride(0)), self.operand, self.batch)

    def advance(
        self, belief: Tensor, code: Tensor, action: Tensor, uniform: Tensor, *, next_belief: Tensor, next_code: Tensor
    ) -> None:
        """One step, into tensors that are given; all are rows of one stride with adjacent numbers in a row.

        Args:
            belief: [B, D] float32, of the step before; its rounded copy is in place already.
            code: [B, S] uint8.
            action: [B, A] float32.
            uniform: [B, S] float32 in (0, 1).
            next_belief: [B, D] float32, written.
            next_code: [B, S] uint8, written.
        """
        w, launch = self.weights, self.program.launch
        x = (self.rows, self.action, w.input_bias, *w.input_norm)
        moved = (action, long(action.stride(0)), self.operand, self.batch)
        launch("input_step", self.batch, ROW, *x, code, long(code.stride(0)), *moved)
        torch.mm(self.operand, self.gates, out=self.parts)
        before, after = (belief, long(belief.stride(0))), (next_belief, long(next_belief.stride(0)))
        launch("gates_step", self.batch, ROW, self.parts, *w.gates_norm, *before, *after, self.operand, self.batch)
        torch.mm(self.operand[:, self._half :], self.hidden, out=self.inner)
        launch("hidden_step", self.batch, ROW, self.inner, w.hidden_bias, *w.hidden_norm, self.outer, self.batch)
        torch.mm(self.outer, self.logits, out=self.scores)
        drawn = (uniform, long(uniform.stride(0)), next_code, long(next_code.stride(0)), self.unimix, self.batch)
        blocks = -(-self.batch * self.groups // WARPS)
        launch("sample_step", blocks, 32 * WARPS, self.scores, w.logits_bias, *drawn)

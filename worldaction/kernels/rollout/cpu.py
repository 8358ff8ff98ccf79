"""The prior on a CPU: weights packed once for oneDNN, products in float32 or bfloat16, everything else in float32.

PyTorch sends float32 products to MKL, which leaves half of an AMD processor's width unused; oneDNN does not. Beliefs
equal the reference's up to rounding, and so do codes except where a uniform number lies within rounding of a boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from worldaction.kernels import Request
from worldaction.kernels.rollout.reference import PriorWeights

PRIORITY = 5
_SERVED = (torch.float32, torch.bfloat16)
BLOCK = 256
"""Rows that are computed together, and for which oneDNN lays the weights out; it serves any number."""


class Layer(NamedTuple):
    """A linear layer as oneDNN wants it."""

    matrix: Tensor  # opaque
    bias: Tensor | None
    dtype: torch.dtype


class PackedPrior(NamedTuple):
    """`PriorWeights` of which the three matrices that take the time are packed."""

    plain: PriorWeights
    offsets: Tensor  # [S] int32, row of each group's first class
    classes: int
    gates: Layer
    hidden: Layer
    logits: Layer


def available(request: Request) -> str | None:
    """Why this cannot serve a request; None if it can."""
    if request.device.type != "cpu":
        return f"it computes on the CPU, the inputs are on {request.device.type}"
    if not torch.backends.mkldnn.is_available():
        return "this build of PyTorch has no oneDNN; install a standard one"
    if request.dtype not in _SERVED:
        kind = str(request.dtype).removeprefix("torch.")
        return f"products are float32 or bfloat16 here, not {kind}; give one of those"
    return None


def run(
    weights: PriorWeights,
    belief: Tensor,
    code: Tensor,
    actions: Tensor,
    uniforms: Tensor,
    *,
    unimix: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`prior_rollout`; arguments and results as there, and the precision of the products."""
    packed = pack(weights, code.shape[-1], dtype=dtype)
    return over_horizon(partial(step, packed, unimix=unimix), belief, code, actions, uniforms)


def over_horizon(
    take: Callable[..., tuple[Tensor, Tensor]], belief: Tensor, code: Tensor, actions: Tensor, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """A step at a time, in blocks of rows that stay in the processor's cache for the whole horizon.

    Args:
        take: `step` without what is the same in every one of them.
        belief, code, actions, uniforms: as for `run`, and the results.
    """
    beliefs = belief.new_empty(*actions.shape[:2], belief.shape[-1])
    codes = code.new_empty(*actions.shape[:2], code.shape[-1])
    for first in range(0, len(belief), BLOCK):
        rows = slice(first, first + BLOCK)
        now = belief[rows], code[rows]
        for time in range(actions.shape[1]):
            out = beliefs[rows, time], codes[rows, time]
            now = take(*now, actions[rows, time], uniforms[rows, time], out=out)
    return beliefs, codes


@torch.no_grad()
def pack(weights: PriorWeights, groups: int, *, dtype: torch.dtype = torch.float32) -> PackedPrior:
    """Lay the weights out for `step`. They are copied in part: weights that change must be packed again.

    Args:
        weights: float32, on the CPU.
        groups: S.
        dtype: precision of the products, float32 or bfloat16.
    """
    classes = weights.state_rows.shape[0] // groups

    def layer(matrix: Tensor, bias: Tensor | None) -> Layer:
        packed = torch.ops.mkldnn._reorder_linear_weight(matrix.to(dtype), BLOCK)
        return Layer(packed, None if bias is None else bias.to(dtype), dtype)

    return PackedPrior(
        plain=weights,
        offsets=torch.arange(groups, dtype=torch.int32) * classes,
        classes=classes,
        gates=layer(weights.gates, None),
        hidden=layer(weights.hidden, weights.hidden_bias),
        logits=layer(weights.logits, weights.logits_bias),
    )


@torch.no_grad()
def step(
    packed: PackedPrior,
    belief: Tensor,
    code: Tensor,
    action: Tensor,
    uniform: Tensor,
    *,
    unimix: float,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """`prior_step`; arguments and results as there, without a gradient. `out` is where they are written, too."""
    weights = packed.plain
    # [B, U]
    x = F.embedding_bag(code.int() + packed.offsets, weights.state_rows, mode="sum")
    x = F.linear(action, weights.action, weights.input_bias).add_(x)
    x = F.elu(F.layer_norm(x, x.shape[-1:], *weights.input_norm), inplace=True)
    # [B, 3 D]
    parts = _product([x, belief], packed.gates)
    belief = _gru(F.layer_norm(parts, parts.shape[-1:], *weights.gates_norm), belief)
    x = _product([belief], packed.hidden)
    x = F.elu(F.layer_norm(x, x.shape[-1:], *weights.hidden_norm), inplace=True)
    # [B, S, C]
    logits = _product([x], packed.logits).unflatten(-1, (-1, packed.classes))
    code = _sample(logits, uniform, unimix)
    if out is not None:
        out[0].copy_(belief)
        out[1].copy_(code)
    return belief, code


def _product(inputs: Sequence[Tensor], layer: Layer) -> Tensor:
    """Inputs side by side through a packed layer, to float32."""
    parts = [part.to(layer.dtype) for part in inputs]
    joined = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
    product: Tensor = torch.ops.mkldnn._linear_pointwise(joined, layer.matrix, layer.bias, "none", [], "")
    return product.float()


def _gru(parts: Tensor, belief: Tensor) -> Tensor:
    """The end of `gru`, from its normalised parts [B, 3 D]."""
    reset, candidate, update = parts.chunk(3, -1)
    # tanh(x) = 2 sigmoid(2 x) - 1: PyTorch's sigmoid is ten times faster than its tanh
    candidate = torch.sigmoid(torch.sigmoid(reset).mul_(2.0).mul_(candidate)).mul_(2.0).sub_(1.0)
    return torch.lerp(belief, candidate, torch.sigmoid(update - 1.0))


def _sample(logits: Tensor, uniform: Tensor, unimix: float) -> Tensor:
    """`sample` of the `probabilities` of logits [B, S, C], without writing down what is not needed."""
    classes = logits.shape[-1]
    cumulative = torch.softmax(logits, -1).mul_(1.0 - unimix).add_(unimix / classes).cumsum(-1)
    target = uniform.unsqueeze(-1) * cumulative[..., -1:]
    # a search counts the entries that do not exceed the target, as the definition does, without writing them all down
    found = torch.searchsorted(cumulative, target, right=True, out_int32=True)
    return found.squeeze(-1).clamp_max_(classes - 1).to(torch.uint8)

"""The prior on a CPU: oneDNN's products, and between them C++ that passes over each row once.

Products are as in `worldaction.kernels.rollout.cpu`. PyTorch passes over memory once for every operation between them,
native.cpp four times a step, and in bfloat16 what goes into a product is never written in float32. Beliefs equal
the reference's up to rounding, and so do codes except where a uniform number lies within rounding of a boundary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.kernels import Request, host
from worldaction.kernels.rollout import cpu
from worldaction.kernels.rollout.reference import PriorWeights, flat
from worldaction.kernels.weight_cache import WeightCache

PRIORITY = 6
SOURCE = Path(__file__).with_suffix(".cpp")
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}
_VECTORS = ("input_bias", "input_gain", "input_offset", "gates_gain", "gates_offset", "hidden_gain", "hidden_offset")


class _Prior(ctypes.Structure):
    """`Prior` of native.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("deter", "groups", "classes", "hidden", "action")),
        *((name, ctypes.c_void_p) for name in ("state_rows", "action_rows", *_VECTORS)),
    )


class _Functions(NamedTuple):
    """What native.cpp does, in one precision of products."""

    enter: Callable[..., int]
    believe: Callable[..., None]
    expect: Callable[..., None]
    draw: Callable[..., None]


class NativePrior(NamedTuple):
    """`PriorWeights` made ready."""

    gates: cpu.Layer
    hidden: cpu.Layer
    logits: cpu.Layer
    functions: _Functions
    prior: _Prior
    kept: tuple[Tensor, ...]  # what `prior` points to


_kept: WeightCache[NativePrior] = WeightCache(4)


def available(request: Request) -> str | None:
    """Why this cannot serve a request; None if it can. Compiles on first use."""
    return cpu.available(request) or host.problem(SOURCE)


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
    """`prior_rollout`; arguments and results as there, and the precision of the products.

    What is prepared for weights is kept, for the last few of them.
    """
    groups = code.shape[-1]
    packed = _kept.get(flat(weights), (groups, dtype), lambda: pack(weights, groups, dtype=dtype))
    return cpu.over_horizon(partial(step, packed, unimix=unimix), belief, code, actions, uniforms)


@torch.no_grad()
def pack(weights: PriorWeights, groups: int, *, dtype: torch.dtype = torch.float32) -> NativePrior:
    """Lay the weights out for `step`. They are copied in part: weights that change must be packed again.

    Args:
        weights: float32, on the CPU.
        groups: S.
        dtype: precision of the products, float32 or bfloat16.

    Raises:
        UserError: the weights are not float32.
    """
    if weights.gates.dtype != torch.float32:
        raise UserError(f"weights are {weights.gates.dtype}, this takes torch.float32; convert them, or force another")
    packed = cpu.pack(weights, groups, dtype=dtype)
    norms = (*weights.input_norm, *weights.gates_norm, *weights.hidden_norm)
    rows, matrix = weights.state_rows.to(dtype).contiguous(), weights.action.t().contiguous()
    kept = (rows, matrix, weights.input_bias.contiguous(), *(vector.contiguous() for vector in norms))
    deter, hidden, action = weights.hidden.shape[1], weights.hidden.shape[0], weights.action.shape[1]
    sizes = (deter, groups, packed.classes, hidden, action)
    prior = _Prior(*sizes, *(tensor.data_ptr() for tensor in kept))
    return NativePrior(packed.gates, packed.hidden, packed.logits, _functions(dtype), prior, kept)


@torch.no_grad()
def step(
    packed: NativePrior,
    belief: Tensor,
    code: Tensor,
    action: Tensor,
    uniform: Tensor,
    *,
    unimix: float,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """`prior_step`; arguments and results as there, without a gradient.

    Args:
        packed: from `pack`.
        belief, code, action, uniform, unimix: as there.
        out: the next belief and code, where they are to be written.

    Raises:
        UserError: shapes do not fit to the weights, or a code is not uint8 or names no class.
    """
    if code.dtype != torch.uint8:
        raise UserError(f"a code is {code.dtype}; give torch.uint8")
    sizes, functions, batch = packed.prior, packed.functions, len(belief)
    belief, code = _laid(belief.float(), sizes.deter, batch), _laid(code, sizes.groups, batch)
    action, uniform = _laid(action.float(), sizes.action, batch), _laid(uniform.float(), sizes.groups, batch)
    after, drawn = out or (torch.empty_like(belief), torch.empty_like(code))
    # [B, U + D]
    joined = belief.new_empty(batch, sizes.hidden + sizes.deter, dtype=packed.gates.dtype)
    scratch = belief.new_empty(batch, sizes.hidden)
    if functions.enter(sizes, batch, *_at(code), *_at(action), *_at(belief), scratch.data_ptr(), joined.data_ptr()):
        raise UserError(f"a code names a class from {sizes.classes} on; the model has classes 0 to {sizes.classes - 1}")
    # [B, 3 D]
    parts = _product(joined, packed.gates)
    rounded = joined.new_empty(batch, sizes.deter)
    functions.believe(sizes, batch, parts.data_ptr(), *_at(belief), *_at(after), rounded.data_ptr())
    # [B, U]
    x = _product(rounded, packed.hidden)
    functions.expect(sizes, batch, x.data_ptr())
    # [B, S * C]
    logits = _product(x, packed.logits)
    functions.draw(sizes, batch, unimix, logits.data_ptr(), *_at(uniform), *_at(drawn))
    return after, drawn


def _product(x: Tensor, layer: cpu.Layer) -> Tensor:
    """Through a packed layer, in its precision."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.matrix, layer.bias, "none", [], "")
    return product


def _laid(tensor: Tensor, width: int, batch: int) -> Tensor:
    """[B, width] with each row's numbers side by side, as native.cpp reads them without a further look."""
    if tensor.shape != (batch, width) or tensor.device.type != "cpu":
        raise UserError(f"{list(tensor.shape)} on {tensor.device} where [{batch}, {width}] on the CPU is wanted")
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _at(tensor: Tensor) -> tuple[int, int]:
    """Where a matrix is, and the numbers from one row to the next."""
    return tensor.data_ptr(), tensor.stride(0)


def _functions(dtype: torch.dtype) -> _Functions:
    matrix, at, rows, some = (ctypes.c_void_p, ctypes.c_int64), ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    signatures = _Functions(
        enter=(*matrix, *matrix, *matrix, at, at),  # type: ignore[arg-type]
        believe=(at, *matrix, *matrix, at),  # type: ignore[arg-type]
        expect=(at,),  # type: ignore[arg-type]
        draw=(some, at, *matrix, *matrix),  # type: ignore[arg-type]
    )
    found: list[Any] = []
    for name, signature in signatures._asdict().items():
        function = host.library(SOURCE)[f"{name}_{NAMES[dtype]}"]
        function.argtypes = (ctypes.POINTER(_Prior), rows, *signature)
        function.restype = ctypes.c_int64 if name == "enter" else None
        found.append(function)
    return _Functions(*found)

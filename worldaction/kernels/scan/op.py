"""The filter over training windows as a torch.library op with a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from worldaction.kernels import Request, choose
from worldaction.kernels.scan import cuda
from worldaction.kernels.scan.explicit import Parts, Saved, TorchParts, backward, forward
from worldaction.kernels.scan.reference import ScanWeights, prior_of

_LIBRARY = torch.library.Library("worldaction", "FRAGMENT")
_OUT = ", ".join(["Tensor"] * (1 + len(Saved._fields)))


def scan(
    weights: ScanWeights,
    looks: Tensor,
    actions: Tensor,
    keep: Tensor,
    uniforms: Tensor,
    imagined: Tensor | None = None,
    *,
    unimix: float,
    dtype: torch.dtype = torch.float32,
    force: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Filter windows, as `worldaction.kernels.scan.reference.scan` does, with its gradient.

    Args:
        weights, looks, actions, keep, uniforms, imagined, unimix: as there.
        dtype: lowest precision of products.
        force: name of the implementation to take.

    Returns:
        beliefs, states, posterior and prior probabilities as there; the prior is always given.

    Raises:
        UserError: the forced implementation is not available.
    """
    given = [tensor.transpose(0, 1).contiguous() for tensor in (looks, actions, keep, uniforms)]
    turned = None if imagined is None else imagined.transpose(0, 1).contiguous()
    states, *rest = torch.ops.worldaction.scan(list(weights), *given, turned, unimix, dtype, force)
    saved = Saved(*rest)
    results = [part.transpose(0, 1) for part in (saved.beliefs, states, saved.posterior, saved.prior)]
    if imagined is None:
        results[3] = prior_of(weights, results[0], uniforms.shape[2], unimix=unimix)
    return results[0], results[1], results[2], results[3]


def scan_request(weights: ScanWeights, uniforms: Tensor, dtype: torch.dtype) -> Request:
    """What a scan asks for; uniforms are [T, B, S]."""
    (hidden, deter), (time, batch, groups) = weights.look.shape, uniforms.shape
    sizes = {"deter": deter, "hidden": hidden, "groups": groups, "classes": len(weights.look_bias) // groups}
    return Request(device=uniforms.device, dtype=dtype, batch=batch, sizes=sizes | {"horizon": time})


def _parts(weights: ScanWeights, uniforms: Tensor, dtype: torch.dtype, force: str | None) -> tuple[Parts, torch.dtype]:
    """The parts that run here, and the precision of products."""
    groups = uniforms.shape[2]
    if choose("scan", scan_request(weights, uniforms, dtype), force=force).name == "cuda":
        return cuda.parts_of(weights, groups, dtype=dtype), dtype
    exact = weights.gates.dtype
    return TorchParts(exact), exact


def _scan(
    tensors: list[Tensor],
    looks: Tensor,
    actions: Tensor,
    keep: Tensor,
    uniforms: Tensor,
    imagined: Tensor | None,
    unimix: float,
    dtype: torch.dtype,
    force: str | None,
) -> tuple[Tensor, ...]:
    weights = ScanWeights(*tensors)
    parts, kind = _parts(weights, uniforms, dtype, force)
    saved = forward(weights, looks, actions, keep, uniforms, imagined, unimix=unimix, dtype=kind, parts=parts)
    classes = len(weights.look_bias) // uniforms.shape[2]
    states = functional.one_hot(saved.codes.long(), classes).to(looks.dtype).flatten(-2)
    return states, *saved


def _scan_fake(
    tensors: list[Tensor],
    looks: Tensor,
    actions: Tensor,
    keep: Tensor,
    uniforms: Tensor,
    imagined: Tensor | None,
    unimix: float,
    dtype: torch.dtype,
    force: str | None,
) -> tuple[Tensor, ...]:
    weights = ScanWeights(*tensors)
    (time, batch, groups), (hidden, deter) = uniforms.shape, weights.look.shape
    flat, seen = weights.look_bias.shape[0], 0 if imagined is None else batch
    new = looks.new_empty
    return (
        new(time, batch, flat),
        new(time, batch, groups, dtype=torch.uint8),
        new(time, batch, deter),
        new(time, batch, deter),
        new(time, batch, hidden),
        new(time, batch),
        new(time, batch, 3 * deter),
        new(time, batch),
        new(time, batch, hidden),
        new(time, batch),
        new(time, batch, groups, flat // groups),
        new(time, seen, hidden),
        new(time, seen),
        new(time, seen, groups, flat // groups),
    )


def _scan_backward(
    tensors: list[Tensor],
    saved: list[Tensor],
    keep: Tensor,
    uniforms: Tensor,
    imagined: Tensor | None,
    grads: list[Tensor],
    unimix: float,
    dtype: torch.dtype,
    force: str | None,
) -> list[Tensor]:
    weights = ScanWeights(*tensors)
    parts, kind = _parts(weights, uniforms, dtype, force)
    four = (grads[0], grads[1], grads[2], grads[3])
    found = backward(weights, Saved(*saved), keep, imagined, four, unimix=unimix, dtype=kind, parts=parts)
    return [*found[0], *found[1:]]


def _scan_backward_fake(
    tensors: list[Tensor],
    saved: list[Tensor],
    keep: Tensor,
    uniforms: Tensor,
    imagined: Tensor | None,
    grads: list[Tensor],
    unimix: float,
    dtype: torch.dtype,
    force: str | None,
) -> list[Tensor]:
    rows = tensors[0].new_empty(*uniforms.shape[:2], tensors[0].shape[0])
    return [*(torch.empty_like(tensor) for tensor in tensors), rows, torch.empty_like(rows)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, _, _, keep, uniforms, imagined, unimix, dtype, force = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, keep, uniforms, *output[1:], *([] if imagined is None else [imagined]))
    ctx.options = (unimix, dtype, force)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    count, kept = len(ScanWeights._fields), list(ctx.saved_tensors)
    tensors, (keep, uniforms) = kept[:count], kept[count : count + 2]
    saved = kept[count + 2 : count + 2 + len(Saved._fields)]
    imagined = kept[-1] if len(kept) > count + 2 + len(Saved._fields) else None
    s = Saved(*saved)
    names = list(Saved._fields)
    wanted = [grads[1 + names.index("beliefs")], grads[0], *(grads[1 + names.index(n)] for n in ("posterior", "prior"))]
    shapes = (s.beliefs, s.beliefs.new_empty(0), s.posterior, s.prior)
    full = [torch.zeros_like(like) if grad is None else grad for grad, like in zip(wanted, shapes, strict=True)]
    if wanted[1] is None:
        full[1] = s.posterior.new_zeros(*s.posterior.shape[:2], s.posterior.shape[2] * s.posterior.shape[3])
    found = torch.ops.worldaction.scan_backward(tensors, saved, keep, uniforms, imagined, full, *ctx.options)
    return list(found[:count]), found[count], found[count + 1], None, None, None, None, None, None


_LIBRARY.define(
    "scan(Tensor[] weights, Tensor looks, Tensor actions, Tensor keep, Tensor uniforms, Tensor? imagined, "
    f"float unimix, ScalarType dtype, str? force) -> ({_OUT})"
)
_LIBRARY.define(
    "scan_backward(Tensor[] weights, Tensor[] saved, Tensor keep, Tensor uniforms, Tensor? imagined, Tensor[] grads, "
    "float unimix, ScalarType dtype, str? force) -> Tensor[]"
)
_LIBRARY.impl("scan", _scan, "CompositeExplicitAutograd")
_LIBRARY.impl("scan_backward", _scan_backward, "CompositeExplicitAutograd")
torch.library.register_fake("worldaction::scan", _scan_fake, lib=_LIBRARY)
torch.library.register_fake("worldaction::scan_backward", _scan_backward_fake, lib=_LIBRARY)
torch.library.register_autograd("worldaction::scan", _backward, setup_context=_setup, lib=_LIBRARY)

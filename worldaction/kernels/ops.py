"""The operations as torch.library ops, so that torch.compile and the profiler see one node each, and their typed calls.

Each op asks `worldaction.kernels.choose` which implementation runs. None of them has a gradient: they serve frozen
models. ``dtype`` is the lowest precision that products may have (float32, or bfloat16 where that is enough); results
are in the precision of the inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldaction.kernels import Request, choose
from worldaction.kernels.denoise.reference import DenoiserWeights
from worldaction.kernels.rollout.reference import PriorWeights

_LIBRARY = torch.library.Library("worldaction", "DEF")

# Rollout --------------------------------------------------------------------------------------------------------------


def rollout(
    weights: PriorWeights,
    belief: Tensor,
    code: Tensor,
    actions: Tensor,
    uniforms: Tensor,
    *,
    unimix: float,
    dtype: torch.dtype = torch.float32,
    force: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Imagine a horizon with given actions, as `worldaction.kernels.rollout.reference.prior_rollout` does.

    Args:
        weights: see `PriorWeights`.
        belief: [B, D].
        code: [B, S] uint8.
        actions: [B, H, A].
        uniforms: [B, H, S] in (0, 1).
        unimix: share of the uniform distribution.
        dtype: lowest precision of products.
        force: name of the implementation to take.

    Returns:
        beliefs [B, H, D] and codes [B, H, S] after each action.

    Raises:
        UserError: the forced implementation is not available.
    """
    return torch.ops.worldaction.rollout(flat(weights), belief, code, actions, uniforms, unimix, dtype, force)


def flat(weights: PriorWeights) -> list[Tensor]:
    """The weights in one list, as an op takes them; `unflat` is the inverse."""
    return [tensor for part in weights for tensor in (part if isinstance(part, tuple) else (part,))]


def unflat(tensors: list[Tensor]) -> PriorWeights:
    """`PriorWeights` from the list that `flat` makes."""
    rows, action, bias, gain, offset, gates, *rest = tensors
    gates_norm, (hidden, hidden_bias), hidden_norm, (logits, logits_bias) = rest[:2], rest[2:4], rest[4:6], rest[6:]
    return PriorWeights(
        state_rows=rows,
        action=action,
        input_bias=bias,
        input_norm=(gain, offset),
        gates=gates,
        gates_norm=(gates_norm[0], gates_norm[1]),
        hidden=hidden,
        hidden_bias=hidden_bias,
        hidden_norm=(hidden_norm[0], hidden_norm[1]),
        logits=logits,
        logits_bias=logits_bias,
    )


def rollout_request(weights: PriorWeights, actions: Tensor, groups: int, dtype: torch.dtype) -> Request:
    """What a rollout asks for; actions are [B, H, A]."""
    batch, horizon, action = actions.shape
    sizes = {"deter": weights.hidden.shape[1], "groups": groups, "classes": weights.state_rows.shape[0] // groups}
    sizes |= {"hidden": weights.hidden.shape[0], "action": action, "horizon": horizon}
    return Request(device=actions.device, dtype=dtype, batch=batch, sizes=sizes)


def _rollout(
    tensors: list[Tensor],
    belief: Tensor,
    code: Tensor,
    actions: Tensor,
    uniforms: Tensor,
    unimix: float,
    dtype: torch.dtype,
    force: str | None,
) -> tuple[Tensor, Tensor]:
    weights = unflat(tensors)
    request = rollout_request(weights, actions, code.shape[1], dtype)
    run = choose("rollout", request, force=force).run
    beliefs, codes = run(weights, belief, code, actions, uniforms, unimix=unimix, dtype=dtype)
    return beliefs, codes


def _rollout_fake(
    tensors: list[Tensor],
    belief: Tensor,
    code: Tensor,
    actions: Tensor,
    uniforms: Tensor,
    unimix: float,
    dtype: torch.dtype,
    force: str | None,
) -> tuple[Tensor, Tensor]:
    horizon = actions.shape[1]
    return belief.new_empty(len(belief), horizon, belief.shape[1]), code.new_empty(len(code), horizon, code.shape[1])


_LIBRARY.define(
    "rollout(Tensor[] weights, Tensor belief, Tensor code, Tensor actions, Tensor uniforms, float unimix, "
    "ScalarType dtype, str? force) -> (Tensor, Tensor)"
)
_LIBRARY.impl("rollout", _rollout, "CompositeExplicitAutograd")
torch.library.register_fake("worldaction::rollout", _rollout_fake, lib=_LIBRARY)

# Denoise --------------------------------------------------------------------------------------------------------------


def denoise(
    weights: DenoiserWeights,
    condition: Tensor,
    x: Tensor,
    noise: Tensor,
    table: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    force: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Take denoising steps, as `worldaction.kernels.denoise.reference.denoise` does.

    Args:
        weights: see `DenoiserWeights`.
        condition: [B, W] what the network sees of the world.
        x: [B, X] noisy chunk before the first step.
        noise: [B, n, X] standard normal.
        table: [n, 5] from `worldaction.kernels.denoise.reference.undo_table`.
        dtype: lowest precision of products.
        force: name of the implementation to take.

    Returns:
        states [B, n + 1, X] and means [B, n, X].

    Raises:
        UserError: the forced implementation is not available.
    """
    return torch.ops.worldaction.denoise(list(weights), condition, x, noise, table, dtype, force)


def _denoise(
    tensors: list[Tensor],
    condition: Tensor,
    x: Tensor,
    noise: Tensor,
    table: Tensor,
    dtype: torch.dtype,
    force: str | None,
) -> tuple[Tensor, Tensor]:
    weights = DenoiserWeights(*tensors)
    width, chunk = weights.noisy.shape
    sizes = {"width": width, "chunk": chunk, "blocks": len(weights.layers) // 2, "steps": len(table)}
    request = Request(device=x.device, dtype=dtype, batch=len(x), sizes=sizes)
    states, means = choose("denoise", request, force=force).run(weights, condition, x, noise, table, dtype=dtype)
    return states, means


def _denoise_fake(
    tensors: list[Tensor],
    condition: Tensor,
    x: Tensor,
    noise: Tensor,
    table: Tensor,
    dtype: torch.dtype,
    force: str | None,
) -> tuple[Tensor, Tensor]:
    count = table.shape[0]
    return x.new_empty(x.shape[0], count + 1, x.shape[1]), x.new_empty(x.shape[0], count, x.shape[1])


_LIBRARY.define(
    "denoise(Tensor[] weights, Tensor condition, Tensor x, Tensor noise, Tensor table, ScalarType dtype, str? force)"
    " -> (Tensor, Tensor)"
)
_LIBRARY.impl("denoise", _denoise, "CompositeExplicitAutograd")
torch.library.register_fake("worldaction::denoise", _denoise_fake, lib=_LIBRARY)

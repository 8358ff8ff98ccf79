"""The operations as torch.library ops, so that torch.compile and the profiler see one node each, and their typed calls.

Each op asks `worldaction.kernels.choose` which implementation runs. None but `scan` has a gradient: they serve frozen
models. ``dtype`` is the lowest precision that products may have (float32, or bfloat16 where that is enough); results
are in the precision of the inputs. What is prepared for weights is kept for as long as these very tensors do not
change: make `PriorWeights` and `DenoiserWeights` once for a model, not at every call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.kernels import Request, choose
from worldaction.kernels.denoise.reference import DenoiserWeights
from worldaction.kernels.denoise.reference import sizes_of as denoiser_sizes
from worldaction.kernels.dream.reference import Decider, Dreamed, SuccessWeights, flat_deciders, unflat_deciders
from worldaction.kernels.rollout.reference import PriorWeights, flat, sizes_of, unflat
from worldaction.kernels.scan.op import scan

__all__ = ["denoise", "dream", "rollout", "scan"]

_LIBRARY = torch.library.Library("worldaction", "FRAGMENT")


def _without_gradient(op: str, tensors: Sequence[Tensor]) -> None:
    """Refuse rather than return results that a gradient would end at."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise UserError(f"{op} has no gradient and an input requires one; call it under torch.no_grad()")


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
        UserError: the forced implementation is not available, or an input requires a gradient.
    """
    _without_gradient("rollout", [*flat(weights), belief, actions])
    return torch.ops.worldaction.rollout(flat(weights), belief, code, actions, uniforms, unimix, dtype, force)


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
    batch, horizon, _ = actions.shape
    sizes = sizes_of(weights, code.shape[1]) | {"horizon": horizon}
    request = Request(device=actions.device, dtype=dtype, batch=batch, sizes=sizes)
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
        UserError: the forced implementation is not available, or an input requires a gradient.
    """
    _without_gradient("denoise", [*weights, condition, x, noise])
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
    sizes = denoiser_sizes(weights) | {"steps": len(table)}
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

# Dream ----------------------------------------------------------------------------------------------------------------


def dream(
    prior: PriorWeights,
    deciders: Sequence[Decider],
    success: SuccessWeights,
    belief: Tensor,
    code: Tensor,
    rows: Tensor,
    *,
    seed: int,
    decisions: int,
    chunk: int,
    binary: Sequence[int],
    unimix: float,
    threshold: float,
    dtype: torch.dtype = torch.float32,
    force: str | None = None,
) -> Dreamed:
    """Imagine episodes, as `worldaction.kernels.dream.reference.dream` does.

    Args:
        prior, deciders, success, belief, code, rows, seed, decisions, chunk, binary, unimix, threshold: as there.
        dtype: lowest precision of products.
        force: name of the implementation to take.

    Raises:
        UserError: the forced implementation is not available, or an input requires a gradient.
    """
    _without_gradient("dream", [*flat(prior), *flat_deciders(deciders), *success, belief])
    tensors = (flat(prior), flat_deciders(deciders), list(success), belief, code, rows)
    numbers = (seed, decisions, chunk, list(binary), unimix, threshold, dtype, force)
    return Dreamed(*torch.ops.worldaction.dream(*tensors, *numbers))


def dream_request(
    prior: PriorWeights,
    deciders: Sequence[Decider],
    success: SuccessWeights,
    code: Tensor,
    *,
    horizon: int,
    dtype: torch.dtype,
) -> Request:
    """What dreams ask for, of `horizon` actions from codes [B, S]."""
    sizes = sizes_of(prior, code.shape[1]) | denoiser_sizes(deciders[0].weights)
    sizes |= {"horizon": horizon, "success": len(success.bias)}
    return Request(device=code.device, dtype=dtype, batch=len(code), sizes=sizes)


def _dream(
    prior: list[Tensor],
    deciders: list[Tensor],
    success: list[Tensor],
    belief: Tensor,
    code: Tensor,
    rows: Tensor,
    seed: int,
    decisions: int,
    chunk: int,
    binary: list[int],
    unimix: float,
    threshold: float,
    dtype: torch.dtype,
    force: str | None,
) -> tuple[Tensor, ...]:
    weights, networks, last = unflat(prior), unflat_deciders(deciders), SuccessWeights(*success)
    request = dream_request(weights, networks, last, code, horizon=decisions * chunk, dtype=dtype)
    options = {"seed": seed, "decisions": decisions, "chunk": chunk, "binary": binary}
    run = choose("dream", request, force=force).run
    parts = (weights, networks, last, belief, code, rows)
    return tuple(run(*parts, **options, unimix=unimix, threshold=threshold, dtype=dtype))


def _dream_fake(
    prior: list[Tensor],
    deciders: list[Tensor],
    success: list[Tensor],
    belief: Tensor,
    code: Tensor,
    rows: Tensor,
    seed: int,
    decisions: int,
    chunk: int,
    binary: list[int],
    unimix: float,
    threshold: float,
    dtype: torch.dtype,
    force: str | None,
) -> tuple[Tensor, ...]:
    networks, batch = unflat_deciders(deciders), rows.shape[0]
    steps, size = sum(each.table.shape[0] for each in networks), networks[0].weights.noisy.shape[1]
    return (
        belief.new_empty(batch, decisions + 1, belief.shape[1]),
        code.new_empty(batch, decisions + 1, code.shape[1]),
        belief.new_empty(batch, decisions, steps + 1, size),
        belief.new_empty(batch, decisions, steps, size),
        rows.new_empty(batch, decisions, dtype=torch.int32),
    )


_LIBRARY.define(
    "dream(Tensor[] prior, Tensor[] deciders, Tensor[] success, Tensor belief, Tensor code, Tensor rows, int seed, "
    "int decisions, int chunk, int[] binary, float unimix, float threshold, ScalarType dtype, str? force)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.impl("dream", _dream, "CompositeExplicitAutograd")
torch.library.register_fake("worldaction::dream", _dream_fake, lib=_LIBRARY)

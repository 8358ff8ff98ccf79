"""The definition of one imagined step and of a whole imagined rollout, on plain tensors.

The weights come as a flat tuple and the randomness as an input, so that a fused kernel can be held to the same indices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from worldaction.kernels.categorical.reference import probabilities, sample


class PriorWeights(NamedTuple):
    """Weights of the prior, each as stored by `torch.nn.Linear` (out, in) and `torch.nn.LayerNorm`."""

    state_rows: Tensor  # [S * C, U], the input layer's weight for the one-hots, transposed: one row per class
    action: Tensor  # [U, A]
    input_bias: Tensor  # [U]
    input_norm: tuple[Tensor, Tensor]  # [U] gain and offset
    gates: Tensor  # [3 D, U + D]
    gates_norm: tuple[Tensor, Tensor]  # [3 D]
    hidden: Tensor  # [U, D]
    hidden_bias: Tensor  # [U]
    hidden_norm: tuple[Tensor, Tensor]  # [U]
    logits: Tensor  # [S * C, U]
    logits_bias: Tensor  # [S * C]


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


def sizes_of(weights: PriorWeights, groups: int) -> dict[str, int]:
    """Sizes of a prior by name: deter, hidden, groups, classes, action."""
    (flat, hidden), (_, action) = weights.state_rows.shape, weights.action.shape
    sizes = {"deter": weights.hidden.shape[1], "hidden": hidden, "groups": groups}
    return sizes | {"classes": flat // groups, "action": action}


def gru(x: Tensor, belief: Tensor, gates: Tensor | Callable[[Tensor], Tensor], norm: tuple[Tensor, Tensor]) -> Tensor:
    """Layer-normalised GRU with the update gate biased towards keeping (DreamerV2, its `GRUCell`).

    Args:
        x: [B, U].
        belief: [B, D].
        gates: [3 D, U + D], or a function that multiplies by it.
        norm: gain and offset, [3 D] each.

    Returns:
        [B, D], the next belief.
    """
    joined = torch.cat([x, belief], -1)
    parts = F.linear(joined, gates) if isinstance(gates, Tensor) else gates(joined)
    parts = F.layer_norm(parts, norm[0].shape, *norm)
    reset, candidate, update = parts.chunk(3, -1)
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    update = torch.sigmoid(update - 1.0)
    return update * candidate + (1.0 - update) * belief


def prior_step(
    weights: PriorWeights, belief: Tensor, code: Tensor, action: Tensor, uniform: Tensor, *, unimix: float
) -> tuple[Tensor, Tensor]:
    """One imagined step.

    Args:
        weights: see `PriorWeights`.
        belief: [B, D].
        code: [B, S] uint8.
        action: [B, A].
        uniform: [B, S] in (0, 1).
        unimix: share of the uniform distribution.

    Returns:
        the next belief [B, D] and code [B, S].
    """
    groups = code.shape[-1]
    classes = weights.state_rows.shape[0] // groups
    offsets = torch.arange(groups, device=code.device) * classes
    # a one-hot times a matrix is a sum of rows; [B, U]
    x = F.embedding_bag(code.long() + offsets, weights.state_rows, mode="sum")
    x = x + F.linear(action, weights.action, weights.input_bias)
    x = F.elu(F.layer_norm(x, weights.input_norm[0].shape, *weights.input_norm))
    belief = gru(x, belief, weights.gates, weights.gates_norm)
    x = F.linear(belief, weights.hidden, weights.hidden_bias)
    x = F.elu(F.layer_norm(x, weights.hidden_norm[0].shape, *weights.hidden_norm))
    # [B, S, C]
    logits = F.linear(x, weights.logits, weights.logits_bias).unflatten(-1, (groups, classes))
    return belief, sample(probabilities(logits, unimix), uniform)


def prior_rollout(
    weights: PriorWeights, belief: Tensor, code: Tensor, actions: Tensor, uniforms: Tensor, *, unimix: float
) -> tuple[Tensor, Tensor]:
    """`prior_step` over a horizon with given actions.

    Args:
        weights: see `PriorWeights`.
        belief: [B, D].
        code: [B, S] uint8.
        actions: [B, H, A].
        uniforms: [B, H, S] in (0, 1).
        unimix: share of the uniform distribution.

    Returns:
        beliefs [B, H, D] and codes [B, H, S] after each action.
    """
    beliefs, codes = [], []
    for action, uniform in zip(actions.unbind(1), uniforms.unbind(1), strict=True):
        belief, code = prior_step(weights, belief, code, action, uniform, unimix=unimix)
        beliefs.append(belief)
        codes.append(code)
    return torch.stack(beliefs, 1), torch.stack(codes, 1)

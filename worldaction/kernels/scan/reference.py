"""The definition of the filter over training windows on plain tensors: the loop of `RSSM.observe`, open to autograd."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from worldaction.kernels.categorical.reference import probabilities, sample
from worldaction.kernels.rollout.reference import gru


class ScanWeights(NamedTuple):
    """Weights of the recurrent model that stand inside the loop, each as stored by its layer."""

    state: Tensor  # [U, S * C] of the input layer
    input_gain: Tensor  # [U]
    input_offset: Tensor  # [U]
    gates: Tensor  # [3 D, U + D]
    gates_gain: Tensor  # [3 D]
    gates_offset: Tensor  # [3 D]
    look: Tensor  # [U, D] of the posterior's hidden layer, whose other half, of the embedding, comes as `looks`
    look_gain: Tensor  # [U]
    look_offset: Tensor  # [U]
    look_logits: Tensor  # [S * C, U]
    look_bias: Tensor  # [S * C]
    hidden: Tensor  # [U, D] of the prior
    hidden_bias: Tensor  # [U]
    hidden_gain: Tensor  # [U]
    hidden_offset: Tensor  # [U]
    logits: Tensor  # [S * C, U]
    logits_bias: Tensor  # [S * C]


def scan(
    weights: ScanWeights,
    looks: Tensor,
    actions: Tensor,
    keep: Tensor,
    uniforms: Tensor,
    imagined: Tensor | None,
    *,
    unimix: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Filter windows, each from an empty state.

    Args:
        weights: see `ScanWeights`.
        looks: [B, T, U] the posterior's hidden layer's part of what is seen.
        actions: [B, T, U] the input layer's part of the action before.
        keep: [B, T] one where belief and state go on from the step before, zero where they begin anew.
        uniforms: [B, T, S] in (0, 1).
        imagined: [B, T] bool, where the state is drawn from the prior; None if it never is.
        unimix: share of the uniform distribution.

    Returns:
        beliefs [B, T, D], states [B, T, S * C] (one-hot forward, the gradient of the probabilities backward), posterior
        and prior probabilities [B, T, S, C]. Without `imagined` the prior is left out: [B, T, 0, C].
    """
    batch, time, groups = uniforms.shape
    shape = (groups, weights.look_bias.shape[0] // groups)
    belief, state = looks.new_zeros(batch, weights.look.shape[1]), looks.new_zeros(batch, shape[0] * shape[1])
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for t in range(time):
        kept = keep[:, t, None]
        x = functional.linear(state * kept, weights.state) + actions[:, t]
        x = _elu_norm(x, weights.input_gain, weights.input_offset)
        belief = gru(x, belief * kept, weights.gates, (weights.gates_gain, weights.gates_offset))
        x = functional.linear(belief, weights.look) + looks[:, t]
        x = _elu_norm(x, weights.look_gain, weights.look_offset)
        posterior = _probabilities(functional.linear(x, weights.look_logits, weights.look_bias), shape, unimix)
        believed, prior = posterior, posterior[:, :0]
        if imagined is not None:
            prior = prior_of(weights, belief, groups, unimix=unimix)
            believed = torch.where(imagined[:, t, None, None], prior, posterior)
        hard = functional.one_hot(sample(believed.detach(), uniforms[:, t]).long(), shape[1]).to(believed.dtype)
        # exact one-hots forward: (hard - p) + p would leave rounding dust on them
        state = (hard + (believed - believed.detach())).flatten(-2)
        found.append((belief, state, posterior, prior))
    beliefs, states, posteriors, priors = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
    return beliefs, states, posteriors, priors


def prior_of(weights: ScanWeights, belief: Tensor, groups: int, *, unimix: float) -> Tensor:
    """The prior's probabilities [..., S, C] for beliefs [..., D]."""
    x = functional.linear(belief, weights.hidden, weights.hidden_bias)
    x = _elu_norm(x, weights.hidden_gain, weights.hidden_offset)
    shape = (groups, weights.logits_bias.shape[0] // groups)
    return _probabilities(functional.linear(x, weights.logits, weights.logits_bias), shape, unimix)


def _elu_norm(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    return functional.elu(functional.layer_norm(x, gain.shape, gain, offset))


def _probabilities(logits: Tensor, shape: tuple[int, int], unimix: float) -> Tensor:
    return probabilities(logits.unflatten(-1, shape), unimix)

"""The definition of a batch of dreams on plain tensors: the loop of `agents.imagination.dream`, all rows to the end.

A row that has succeeded goes on here, because a fixed sequence of launches cannot stop; what comes after its success is
to be ignored. All random numbers are functions of (seed, row, step), as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from worldaction.kernels.denoise.reference import DenoiserWeights, denoise
from worldaction.kernels.rollout.reference import PriorWeights, prior_step
from worldaction.random import Stream, normal, uniform


class Decider(NamedTuple):
    """A denoiser, the steps that it takes, and what it sees of the world: belief and code, through one linear layer."""

    weights: DenoiserWeights
    table: Tensor  # [n, 5] from `undo_table`
    belief: Tensor  # [W, D]
    rows: Tensor  # [S * C, W], transposed: one row per class
    bias: Tensor  # [W]


def flat_deciders(deciders: Sequence[Decider]) -> list[Tensor]:
    """The policy's networks in one list, as an op takes them; `unflat_deciders` is the inverse."""
    return [tensor for each in deciders for tensor in (*each.weights, *each[1:])]


def unflat_deciders(tensors: Sequence[Tensor]) -> list[Decider]:
    """Deciders from the list that `flat_deciders` makes."""
    inner = len(DenoiserWeights._fields)
    size = inner + len(Decider._fields) - 1
    parts = [tensors[k : k + size] for k in range(0, len(tensors), size)]
    return [Decider(DenoiserWeights(*part[:inner]), *part[inner:]) for part in parts]


class SuccessWeights(NamedTuple):
    """Weights of `worldaction.success.SuccessClassifier`, its first layer parted as a `Decider`'s."""

    belief: Tensor  # [Q, D]
    rows: Tensor  # [S * C, Q]
    bias: Tensor  # [Q]
    gain: Tensor  # [Q] of the layer norm
    offset: Tensor  # [Q]
    head: Tensor  # [Q]
    head_bias: Tensor  # [1]


class Dreamed(NamedTuple):
    """What happened in a batch of dreams."""

    beliefs: Tensor  # [B, H + 1, D] on which each decision was taken, and after the last
    codes: Tensor  # [B, H + 1, S] uint8
    states: Tensor  # [B, H, N + 1, X] denoising chains
    means: Tensor  # [B, H, N, X]
    done_at: Tensor  # [B, H] int32: the action after which the task was first done, counted from 1; 0 if it was not


def seen(belief: Tensor, code: Tensor, weight: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
    """A linear layer of [belief; one-hot code].

    Args:
        belief: [B, D].
        code: [B, S] uint8.
        weight: [W, D].
        rows: [S * C, W].
        bias: [W].

    Returns:
        [B, W].
    """
    groups = code.shape[-1]
    offsets = torch.arange(groups, device=code.device) * (len(rows) // groups)
    return functional.linear(belief, weight, bias) + functional.embedding_bag(code.long() + offsets, rows, mode="sum")


def success_probability(weights: SuccessWeights, belief: Tensor, code: Tensor) -> Tensor:
    """The probability [B] that the task is done in a state: belief [B, D], code [B, S]."""
    x = seen(belief, code, weights.belief, weights.rows, weights.bias)
    x = functional.elu(functional.layer_norm(x, weights.gain.shape, weights.gain, weights.offset))
    return (x @ weights.head + weights.head_bias).sigmoid()


def executed(action: Tensor, binary: Sequence[int] = (-1,)) -> Tensor:
    """The action that the simulator carries out: clipped to [-1, 1], a gripper open (+1) above 0, else closed (-1).

    Args:
        action: [..., A].
        binary: which numbers of an action are grippers; CALVIN's is the last.
    """
    action = action.clamp(-1.0, 1.0)
    for number in binary:
        action[..., number] = torch.where(action[..., number] > 0, 1.0, -1.0)
    return action


def decide(deciders: Sequence[Decider], belief: Tensor, code: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """One denoising chain, of which each network takes its steps in turn.

    Args:
        deciders: the networks in the order in which they work.
        belief: [B, D].
        code: [B, S].
        noise: [B, N + 1, X], the initial noise first.

    Returns:
        states [B, N + 1, X] and means [B, N, X].
    """
    states, means, taken = [noise[:, :1]], [], 1
    for network in deciders:
        count = len(network.table)
        condition = seen(belief, code, network.belief, network.rows, network.bias)
        added = noise[:, taken : taken + count]
        after, mean = denoise(network.weights, condition, states[-1][:, -1], added, network.table)
        states.append(after[:, 1:])
        means.append(mean)
        taken += count
    return torch.cat(states, 1), torch.cat(means, 1)


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
) -> Dreamed:
    """Imagine episodes.

    Args:
        prior: weights of the prior.
        deciders: the policy's networks, the one of the noisiest steps first.
        success: weights of the success classifier.
        belief: [B, D] where the dreams begin.
        code: [B, S] uint8.
        rows: [B] int64, global names of the dreams.
        seed: of all random numbers.
        decisions: decisions H.
        chunk: actions K of a decision.
        binary: dimensions of an action that are thresholded at 0.
        unimix: share of the uniform distribution.
        threshold: probability from which a state counts as success.
    """
    total, size = sum(len(each.table) for each in deciders), deciders[0].weights.noisy.shape[1]
    beliefs, codes, chains, done = [belief], [code], [], []
    for decision in range(decisions):
        noise = normal(seed, Stream.POLICY, rows, decision, (total + 1) * size).view(-1, total + 1, size)
        chains.append(decide(deciders, belief, code, noise.to(belief.dtype)))
        actions = executed(chains[-1][0][:, -1].unflatten(-1, (chunk, -1)), binary)
        first = torch.zeros(len(rows), dtype=torch.int32, device=rows.device)
        for step in range(decision * chunk, (decision + 1) * chunk):
            draws = uniform(seed, Stream.PRIOR, rows, step, code.shape[-1]).to(belief.dtype)
            belief, code = prior_step(prior, belief, code, actions[:, step % chunk], draws, unimix=unimix)
            now = (success_probability(success, belief, code) >= threshold) & (first == 0)
            first = first.masked_fill(now, step + 1)
        beliefs.append(belief)
        codes.append(code)
        done.append(first)
    states, means = (torch.stack(parts, 1) for parts in zip(*chains, strict=True))
    return Dreamed(torch.stack(beliefs, 1), torch.stack(codes, 1), states, means, torch.stack(done, 1))

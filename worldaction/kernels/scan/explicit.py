"""The filter with its backward written out: products by torch, what lies between them by exchangeable parts.

Forward keeps what the norms and gates need; backward runs the recurrence in reverse with products of the batch alone,
and all weight gradients are one product each over T * B rows afterwards (as haste and TorchRL do). `TorchParts` says in
plain PyTorch what each part computes; `worldaction.kernels.scan.cuda` has the same parts as kernels.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from worldaction.kernels.categorical.reference import probabilities, sample
from worldaction.kernels.scan.reference import ScanWeights

EPS = 1e-5  # of layer norms


class Normed(NamedTuple):
    """A row before its layer norm's gain and offset."""

    value: Tensor  # [B, N] zero mean, unit deviation
    scale: Tensor  # [B] reciprocal of the deviation


class Parts(Protocol):
    """What lies between two products. Operands of products are in the precision of products, all else is float32."""

    def input(
        self, rows: Tensor, code: Tensor, keep: Tensor, action: Tensor, belief: Tensor, gain: Tensor, offset: Tensor
    ) -> tuple[Normed, Tensor, Tensor]:
        """Rows [S C, U] of the classes [B, S] that are kept [B], plus the action [B, U]; norm, ELU.

        Returns:
            the norm, the operand [x | h] [B, U + D], and the kept belief [B, D].
        """
        ...

    def gates(self, pre: Tensor, belief: Tensor, gain: Tensor, offset: Tensor) -> tuple[Normed, Tensor]:
        """The norm of [B, 3 D] and the next belief [B, D]."""
        ...

    def hidden(self, pre: Tensor, add: Tensor, gain: Tensor, offset: Tensor) -> tuple[Normed, Tensor]:
        """The norm of [B, U] plus what is added ([B, U] or [U]), and the operand after ELU."""
        ...

    def draw(
        self, logits: Tensor, bias: Tensor, other: Tensor | None, other_bias: Tensor, imagined: Tensor | None,
        uniform: Tensor, unimix: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Probabilities [B, S, C] of both logits [B, S C] and classes [B, S] drawn from those that `imagined` names."""
        ...

    def draw_back(
        self, probs: Tensor, grad: Tensor, state_grad: Tensor, counts: Tensor | None, unimix: float
    ) -> Tensor:
        """Gradient of logits [B, S C] from that of probabilities, plus the state's in rows that count [B] (all)."""
        ...

    def hidden_back(self, grad: Tensor, norm: Normed, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient [B, U] before the norm, as an operand, and after its gain and offset, in float32."""
        ...

    def gates_back(
        self, grad: Tensor, norm: Normed, belief: Tensor, gain: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `hidden_back` for [B, 3 D], and the gradient [B, D] of the kept belief past the gates."""
        ...


class Saved(NamedTuple):
    """What backward needs of a forward pass, time first."""

    codes: Tensor  # [T, B, S] uint8
    kept: Tensor  # [T, B, D] belief that each step began with
    beliefs: Tensor  # [T, B, D]
    input_value: Tensor  # [T, B, U]
    input_scale: Tensor  # [T, B]
    gates_value: Tensor  # [T, B, 3 D]
    gates_scale: Tensor  # [T, B]
    look_value: Tensor  # [T, B, U]
    look_scale: Tensor  # [T, B]
    posterior: Tensor  # [T, B, S, C]
    hidden_value: Tensor  # [T, B, U]; of no rows where the prior is not in the loop
    hidden_scale: Tensor
    prior: Tensor


class Frozen(NamedTuple):
    """Weights in the precision of products, as the loop multiplies with them."""

    rows: Tensor  # [S C, U]
    gates: Tensor  # [3 D, U + D]
    look: Tensor
    look_logits: Tensor
    hidden: Tensor
    logits: Tensor


def frozen(weights: ScanWeights, dtype: torch.dtype) -> Frozen:
    """The matrices for products in a precision."""
    matrices = (weights.gates, weights.look, weights.look_logits, weights.hidden, weights.logits)
    return Frozen(weights.state.t().to(dtype).contiguous(), *(matrix.to(dtype) for matrix in matrices))


def forward(
    weights: ScanWeights,
    looks: Tensor,
    actions: Tensor,
    keep: Tensor,
    uniforms: Tensor,
    imagined: Tensor | None,
    *,
    unimix: float,
    dtype: torch.dtype,
    parts: Parts,
) -> Saved:
    """The filter; arguments as for `scan`, but time first: [T, B, ...]."""
    w, m = weights, frozen(weights, dtype)
    time, batch, groups = uniforms.shape
    belief = looks.new_zeros(batch, weights.look.shape[1])
    code = torch.zeros(batch, groups, dtype=torch.uint8, device=looks.device)
    found: list[tuple[Tensor, ...]] = []
    for t in range(time):
        # the empty state before the first step has no code
        kept = keep[t] if t else torch.zeros_like(keep[t])
        first, operand, before = parts.input(m.rows, code, kept, actions[t], belief, w.input_gain, w.input_offset)
        gates, belief = parts.gates(operand @ m.gates.T, before, w.gates_gain, w.gates_offset)
        half = belief.to(dtype)
        look, seen = parts.hidden(half @ m.look.T, looks[t], w.look_gain, w.look_offset)
        hidden, expected = Normed(look.value[:0], look.scale[:0]), None
        if imagined is not None:
            hidden, inner = parts.hidden(half @ m.hidden.T, w.hidden_bias, w.hidden_gain, w.hidden_offset)
            expected = inner @ m.logits.T
        turn = None if imagined is None else imagined[t]
        scores = seen @ m.look_logits.T
        drawn = parts.draw(scores, w.look_bias, expected, w.logits_bias, turn, uniforms[t], unimix)
        posterior, prior, code = drawn
        found.append((code, before, belief, *first, *gates, *look, posterior, *hidden, prior))
    return Saved(*(torch.stack(column) for column in zip(*found, strict=True)))


def backward(
    weights: ScanWeights,
    saved: Saved,
    keep: Tensor,
    imagined: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    unimix: float,
    dtype: torch.dtype,
    parts: Parts,
) -> tuple[ScanWeights, Tensor, Tensor]:
    """Gradients of the filter.

    Args:
        weights, keep, imagined, unimix, dtype, parts: as for `forward`.
        saved: what it returned.
        grads: of beliefs [T, B, D], states [T, B, S C], posterior and prior probabilities [T, B, S, C].

    Returns:
        gradients of the weights, of looks and of actions [T, B, U].
    """
    w, m, s = weights, frozen(weights, dtype), saved
    belief_grads, state_grads, posterior_grads, prior_grads = grads
    time, half = len(s.codes), w.look.shape[0]
    to_belief, to_state = torch.zeros_like(s.beliefs[0]), torch.zeros_like(state_grads[0])
    found: list[tuple[Tensor, ...]] = []
    for t in reversed(range(time)):
        to_belief, to_state = to_belief + belief_grads[t], to_state + state_grads[t]
        counts = None if imagined is None else ~imagined[t]
        scores = parts.draw_back(s.posterior[t], posterior_grads[t], to_state, counts, unimix)
        norm = Normed(s.look_value[t], s.look_scale[t])
        look, look_affine = parts.hidden_back(scores @ m.look_logits, norm, w.look_gain, w.look_offset)
        to_belief = to_belief + (look @ m.look).to(to_belief.dtype)
        expected, inner, inner_affine = scores[:0], look[:0], look_affine[:0]
        if imagined is not None:
            expected = parts.draw_back(s.prior[t], prior_grads[t], to_state, imagined[t], unimix)
            norm = Normed(s.hidden_value[t], s.hidden_scale[t])
            inner, inner_affine = parts.hidden_back(expected @ m.logits, norm, w.hidden_gain, w.hidden_offset)
            to_belief = to_belief + (inner @ m.hidden).to(to_belief.dtype)
        norm = Normed(s.gates_value[t], s.gates_scale[t])
        pre, gates_affine, past = parts.gates_back(to_belief, norm, s.kept[t], w.gates_gain, w.gates_offset)
        both = pre @ m.gates
        norm = Normed(s.input_value[t], s.input_scale[t])
        first, input_affine = parts.hidden_back(both[:, :half], norm, w.input_gain, w.input_offset)
        found.append((scores, look, look_affine, expected, inner, inner_affine, pre, gates_affine, first, input_affine))
        kept = keep[t, :, None] if t else torch.zeros_like(keep[t, :, None])
        to_belief = (past + both[:, half:].to(past.dtype)) * kept
        to_state = (first @ m.rows.T).to(past.dtype) * kept
    columns = [torch.stack(column[::-1]) for column in zip(*found, strict=True)]
    return _weight_grads(w, s, keep, columns, dtype), columns[1].to(w.look.dtype), columns[8].to(w.look.dtype)


def _weight_grads(w: ScanWeights, s: Saved, keep: Tensor, columns: list[Tensor], dtype: torch.dtype) -> ScanWeights:
    """One product for each matrix, over all rows of all steps."""
    scores, look, look_affine, expected, inner, inner_affine, pre, gates_affine, first, input_affine = columns

    def outer(grad: Tensor, operand: Tensor) -> Tensor:
        return (grad.flatten(0, 1).T @ operand.to(dtype).flatten(0, 1)).to(w.gates.dtype)

    def total(grad: Tensor) -> Tensor:
        return grad.sum((0, 1), dtype=w.gates.dtype)

    def after(value: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        return functional.elu(value * gain + offset)

    classes = s.posterior.shape[3]
    # the state that each step began with; nothing before the first
    states = functional.one_hot(s.codes[:-1].long(), classes).flatten(-2) * keep[1:, :, None]
    operand = torch.cat([after(s.input_value, w.input_gain, w.input_offset), s.kept], -1)
    return ScanWeights(
        state=outer(first[1:], states),
        input_gain=total(input_affine * s.input_value),
        input_offset=total(input_affine),
        gates=outer(pre, operand),
        gates_gain=total(gates_affine * s.gates_value),
        gates_offset=total(gates_affine),
        look=outer(look, s.beliefs),
        look_gain=total(look_affine * s.look_value),
        look_offset=total(look_affine),
        look_logits=outer(scores, after(s.look_value, w.look_gain, w.look_offset)),
        look_bias=total(scores),
        hidden=outer(inner, s.beliefs[:, : inner.shape[1]]),
        hidden_bias=total(inner),
        hidden_gain=total(inner_affine * s.hidden_value),
        hidden_offset=total(inner_affine),
        logits=outer(expected, after(s.hidden_value, w.hidden_gain, w.hidden_offset)),
        logits_bias=total(expected),
    )


class TorchParts:
    """The parts in plain PyTorch, in any precision.

    Args:
        dtype: of operands.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def input(
        self, rows: Tensor, code: Tensor, keep: Tensor, action: Tensor, belief: Tensor, gain: Tensor, offset: Tensor
    ) -> tuple[Normed, Tensor, Tensor]:
        """See `Parts.input`."""
        groups = code.shape[1]
        classes = code.long() + torch.arange(groups, device=code.device) * (len(rows) // groups)
        x = functional.embedding_bag(classes, rows, mode="sum").to(action.dtype) * keep[:, None] + action
        norm, after = self.hidden(x, torch.zeros_like(gain), gain, offset)
        kept = belief * keep[:, None]
        return norm, torch.cat([after, kept.to(self._dtype)], -1), kept

    def gates(self, pre: Tensor, belief: Tensor, gain: Tensor, offset: Tensor) -> tuple[Normed, Tensor]:
        """See `Parts.gates`."""
        norm = _normed(pre.to(gain.dtype))
        reset, candidate, update = _gates(norm, gain, offset)
        update = (update - 1.0).sigmoid()
        return norm, update * (reset.sigmoid() * candidate).tanh() + (1.0 - update) * belief

    def hidden(self, pre: Tensor, add: Tensor, gain: Tensor, offset: Tensor) -> tuple[Normed, Tensor]:
        """See `Parts.hidden`."""
        norm = _normed(pre.to(gain.dtype) + add)
        return norm, functional.elu(norm.value * gain + offset).to(self._dtype)

    def draw(
        self, logits: Tensor, bias: Tensor, other: Tensor | None, other_bias: Tensor, imagined: Tensor | None,
        uniform: Tensor, unimix: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """See `Parts.draw`."""
        shape = (uniform.shape[1], -1)
        posterior = probabilities((logits.to(bias.dtype) + bias).unflatten(-1, shape), unimix)
        if other is None or imagined is None:
            return posterior, posterior[:0], sample(posterior, uniform)
        prior = probabilities((other.to(bias.dtype) + other_bias).unflatten(-1, shape), unimix)
        return posterior, prior, sample(torch.where(imagined[:, None, None], prior, posterior), uniform)

    def draw_back(
        self, probs: Tensor, grad: Tensor, state_grad: Tensor, counts: Tensor | None, unimix: float
    ) -> Tensor:
        """See `Parts.draw_back`."""
        more = state_grad.view_as(grad)
        grad = grad + (more if counts is None else more * counts[:, None, None])
        # back through the share of the uniform distribution, and through the softmax
        soft = probs - unimix / probs.shape[-1]
        return (soft * (grad - (soft * grad).sum(-1, keepdim=True) / (1.0 - unimix))).flatten(-2).to(self._dtype)

    def hidden_back(self, grad: Tensor, norm: Normed, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parts.hidden_back`."""
        y = norm.value * gain + offset
        affine = grad.to(y.dtype) * torch.where(y > 0.0, torch.ones_like(y), y.exp())
        return _before_norm(affine * gain, norm).to(self._dtype), affine

    def gates_back(
        self, grad: Tensor, norm: Normed, belief: Tensor, gain: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Parts.gates_back`."""
        reset, candidate, update = _gates(norm, gain, offset)
        reset, update = reset.sigmoid(), (update - 1.0).sigmoid()
        new = (reset * candidate).tanh()
        inner = grad * update * (1.0 - new.square())
        of_update = grad * (new - belief) * update * (1.0 - update)
        affine = torch.cat([inner * candidate * reset * (1.0 - reset), inner * reset, of_update], -1)
        return _before_norm(affine * gain, norm).to(self._dtype), affine, grad * (1.0 - update)


def _normed(x: Tensor) -> Normed:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1) + EPS).rsqrt()
    return Normed(centred * scale[:, None], scale)


def _gates(norm: Normed, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    reset, candidate, update = (norm.value * gain + offset).chunk(3, -1)
    return reset, candidate, update


def _before_norm(grad: Tensor, norm: Normed) -> Tensor:
    """The gradient before a layer norm from the one after it."""
    along = norm.value * (norm.value * grad).mean(-1, keepdim=True)
    return norm.scale[:, None] * (grad - grad.mean(-1, keepdim=True) - along)

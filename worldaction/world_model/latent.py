"""The state of a world model: what it believes (h), and a code of discrete classes (z)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from worldaction.kernels.categorical.reference import sample


class Latent(NamedTuple):
    """The state of the world model, in the form in which it is stored and passed on."""

    belief: Tensor  # [..., D] float32
    code: Tensor  # [..., S] uint8

    def index(self, rows: Tensor | slice) -> Latent:  # type: ignore[override] # a batch's index, not a tuple's
        """The latents of some rows of the first axis."""
        return Latent(self.belief[rows], self.code[rows])


@dataclass(frozen=True)
class Latents:
    """What a training batch looks like from inside the model: the taps that losses read."""

    embed: Tensor  # [B, T, E]
    belief: Tensor  # [B, T, D]
    state: Tensor  # [B, T, S * C], one-hot forward, gradient of the probabilities backward
    posterior: Tensor  # [B, T, S, C] probabilities
    prior: Tensor  # [B, T, S, C] probabilities

    @property
    def feature(self) -> Tensor:
        """[B, T, F], belief and state side by side."""
        return torch.cat([self.belief, self.state], -1)


def one_hot(code: Tensor, classes: int) -> Tensor:
    """Class indices [..., S] to flat one-hots [..., S * C], float32."""
    return F.one_hot(code.long(), classes).to(torch.float32).flatten(-2)


def straight_through(probs: Tensor, uniform: Tensor) -> Tensor:
    """A one-hot sample whose gradient is that of the probabilities (Bengio et al. 2013).

    Args:
        probs: [..., S, C].
        uniform: [..., S].

    Returns:
        [..., S * C].
    """
    hard = F.one_hot(sample(probs.detach(), uniform).long(), probs.shape[-1]).to(probs.dtype)
    # exact one-hots forward: (hard - p) + p would leave rounding dust on them
    return (hard + (probs - probs.detach())).flatten(-2)

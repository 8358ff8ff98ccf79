"""A Gaussian policy: the same chunks of actions as the diffusion policy's, from one normal distribution.

The mean is an MLP of the feature, the deviation is the same everywhere. It is the policy of most PPO implementations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from agents.policies.base import Decision, PolicyHead, normal_log_density
from worldaction.config import Count, Times

LOG_STD_RANGE = (math.log(0.05), 0.0)
"""Demonstrated numbers that never change, such as an open gripper's, would have a density without bound."""


@dataclass(frozen=True)
class GaussianOptions:
    """Options of the Gaussian head."""

    width: Count = 512
    """Width of the hidden layers."""
    layers: Times = 2
    """How many there are."""


class GaussianPolicy(PolicyHead):
    """A normal distribution of the next K actions, given a feature.

    Args:
        feature_size, action_size, chunk, binary: as for `PolicyHead`.
        width: width of the hidden layers.
        layers: how many there are.
    """

    name = "gaussian"
    Options = GaussianOptions
    has_deterministic = True

    def __init__(
        self,
        feature_size: int,
        action_size: int,
        *,
        chunk: int,
        width: int,
        layers: int = 2,
        binary: Sequence[int] = (-1,),
    ) -> None:
        super().__init__(feature_size, action_size, chunk=chunk, binary=binary, width=width, layers=layers)
        sizes = [feature_size, *[width] * layers]
        parts: list[nn.Module] = []
        for inner, outer in pairwise(sizes):
            parts += [nn.Linear(inner, outer), nn.Mish()]
        self.trunk = nn.Sequential(*parts)
        self.mean = nn.Linear(sizes[-1], chunk * action_size)
        self.log_std = nn.Parameter(torch.full((chunk * action_size,), -1.0))

    @property
    def noise_shape(self) -> tuple[int, int]:
        """[1, K * A]: the normal numbers that one decision takes."""
        return 1, self.chunk_size

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [..., K * A] and standard deviation [K * A] of the chunk, given features [..., F]."""
        return self.mean(self.trunk(feature)), self.log_std.clamp(*LOG_STD_RANGE).exp()

    def log_density(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """Log-density of chunks, summed over their numbers; [..., F], [..., K, A] -> [...]."""
        return normal_log_density(chunk.flatten(-2), *self(feature)).sum(-1)

    def bc_loss(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """Maximum likelihood, per number, so that the learning rate fits chunks of any length."""
        return -self.log_density(feature, chunk).mean() / self.chunk_size

    @torch.no_grad()
    def after_cloning(self, features: Tensor, chunks: Tensor) -> None:
        """The most likely deviation, given the mean: that of the residuals. Gradients move its logarithm too slowly."""
        residual = chunks.flatten(1) - self(features)[0]
        # over samples and frames
        self.log_std.copy_(residual.square().mean((0, 1)).sqrt().clamp_min(1e-6).log())

    @torch.no_grad()
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        """See `PolicyHead.sample`; deterministic takes the mean."""
        mean, std = self(feature)
        return self.to_actions(mean if deterministic else mean + std * noise[:, 0])

    @torch.no_grad()
    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """See `PolicyHead.decide`; stored is the chunk before it was clipped, [B, K * A]."""
        mean, std = self(feature)
        x = mean + std.clamp(min=min_std) * noise[:, 0]
        return Decision(self.to_actions(x), {"x": x})

    def log_prob(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Tensor:
        """See `PolicyHead.log_prob`; one column, averaged over the numbers of the chunk."""
        mean, std = self(feature)
        return normal_log_density(stored["x"], mean, std.clamp(min=min_std)).mean(-1, keepdim=True)

    def divergence(
        self, cloned: Any, feature: Tensor, stored: Mapping[str, Tensor], log_prob: Tensor, *, min_std: float
    ) -> Tensor:
        """KL(self || cloned) of two Gaussians in closed form, averaged over the numbers of the chunk."""
        mean, std = self(feature)
        with torch.no_grad():
            mean_before, std_before = cloned(feature)
        std, std_before = std.clamp(min=min_std), std_before.clamp(min=min_std)
        ratio = std / std_before
        return (((mean - mean_before) / std_before).square() + ratio.square() - 1.0 - 2.0 * ratio.log()).mean() / 2.0

"""A flow-matching policy: actions in a few steps along straight paths from noise.

The network says in which direction a chunk moves at time t, from noise at t = 0 to the action at t = 1; along a
straight path that is always the action minus the noise. Few Euler steps then reach the action, where a diffusion takes
ten or twenty; with one or two it lies between ways to act that exclude each other. Given the first noise a decision is
certain; to explore, and to have a probability, every step adds noise.

Training: flow matching (Lipman et al. 2022, arXiv 2210.02747) along straight paths (Liu et al. 2022, arXiv 2209.03003).
Noise is added to plain Euler steps, as in ReinFlow (arXiv 2505.22094), where its size is learned; here it is `min_std`
in every step. The drift is not corrected for it, as it is in Flow-GRPO (arXiv 2505.05470): exploring chunks are noisier
than those of the flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.policies.chain import ChainPolicy
from worldaction.config import Count, Layers, Times


@dataclass(frozen=True)
class FlowOptions:
    """Options of the flow head."""

    steps: Times = 4
    """Euler steps N from noise to action."""
    width: Count = 512
    """Width of the network."""
    blocks: Layers = 1
    """Residual blocks of the network."""


class FlowPolicy(ChainPolicy):
    """A flow from noise to the next K actions, given a feature; arguments as for `ChainPolicy`."""

    name = "flow"
    Options = FlowOptions

    def begin(self, noise: Tensor) -> Tensor:
        """The noise itself."""
        return noise

    def move(self, condition: Tensor, x: Tensor, step: Tensor, *, min_std: float, deterministic: bool) -> Tensor:
        """An Euler step of 1 / N."""
        return x + self.velocity(condition, x, step / self.steps) / self.steps

    def velocity(self, condition: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Where chunks move; [..., W], [..., K * A] and times [...] in [0, 1] broadcast -> [..., K * A]."""
        found: Tensor = self.net(condition, x, t)
        return found

    def loss(self, feature: Tensor, chunk: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Mean squared error of the velocity on the way from noise to demonstrations.

        Args:
            feature: [B, F].
            chunk: [B, K, A] demonstrated actions.
            noise: [B, K * A] standard normal.
            t: [B] in [0, 1].
        """
        x, share = chunk.flatten(1), t[:, None]
        found = self.velocity(self.net.condition(feature), (1.0 - share) * noise + share * x, t)
        return (found - (x - noise)).square().mean()

    def bc_loss(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """`loss` at random times, with random noise."""
        noise = torch.randn(len(feature), self.chunk_size, device=feature.device)
        return self.loss(feature, chunk, noise, torch.rand(len(feature), device=feature.device))

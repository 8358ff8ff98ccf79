"""BESO: a diffusion of actions that needs three steps (Reuss et al. 2023, arXiv 2304.02532).

The noise is a level sigma, from 0.05 to 1, in place of a numbered step, and the network is scaled so that what goes in
and what it has to say are of order one at every level (EDM, Karras et al. 2022, arXiv 2206.00364). Levels to visit are
chosen when acting: evenly in log sigma. The stochastic sampler takes ancestral steps, which add noise and so have a
probability; the deterministic one is DDIM. While exploring a step adds `min_std` at least, and the network is told the
level that this leaves.

Not as in BESO: no goal and no guidance, for a policy here has one task; an MLP of the world model's feature in place of
a transformer over a window of frames; training at levels even in log sigma in place of a log-logistic density; and the
ancestral sampler unless the deterministic one is chosen, where BESO acts by DDIM. The lowest level is that of its
block-push configuration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.policies.chain import ChainPolicy
from worldaction.config import Count, Layers, Times

SIGMA_MIN, SIGMA_MAX = 0.05, 1.0
"""The noise levels that are learned; actions lie in [-1, 1]."""
SIGMA_DATA = 0.5
"""About the deviation of an action, as in BESO."""


@dataclass(frozen=True)
class BesoOptions:
    """Options of the BESO head."""

    steps: Times = 3
    """Noise levels N that are visited; of one level both samplers are the same."""
    width: Count = 512
    """Width of the network."""
    blocks: Layers = 1
    """Residual blocks of the network."""


class BesoPolicy(ChainPolicy):
    """A diffusion over noise levels to the next K actions, given a feature; arguments as for `ChainPolicy`."""

    name = "beso"
    Options = BesoOptions
    has_deterministic = True

    sigma: Tensor

    def __init__(self, *sizes: int, steps: int = 3, **options: Any) -> None:
        super().__init__(*sizes, steps=steps, **options)
        levels = torch.linspace(math.log(SIGMA_MAX), math.log(SIGMA_MIN), steps, dtype=torch.float64).exp()
        # [N + 1], the last is the action; not persistent, for it follows from the number of steps
        self.register_buffer("sigma", torch.cat([levels, levels.new_zeros(1)]).float(), persistent=False)

    def begin(self, noise: Tensor) -> Tensor:
        """Noise of the largest level."""
        return SIGMA_MAX * noise

    def own_std(self) -> Tensor:
        """Of ancestral steps: what a step from sigma to a lower level adds, 0 in the last."""
        now, after = self.sigma[:-1], self.sigma[1:]
        return after * (1.0 - (after / now).square()).sqrt()

    def move(self, condition: Tensor, x: Tensor, step: Tensor, *, min_std: float, deterministic: bool) -> Tensor:
        """A step towards the predicted chunk: to the next level, or below it where noise will be added."""
        # what the step before has added may be more than the level says
        now = self.sigma[step].clamp(min=min_std).to(x)[..., None]
        after = torch.minimum(self.sigma[step + 1].to(x)[..., None], now)
        reached = after if deterministic else after.square() / now
        clean = self.predict(condition, x, now).clamp(-1.0, 1.0)
        return clean + reached / now * (x - clean)

    def predict(self, condition: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The clean chunk; [..., W], [..., K * A] and levels [..., 1] broadcast -> [..., K * A]."""
        total = sigma.square() + SIGMA_DATA**2
        skip, out = SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt()
        # the level as a number in [0, 1]
        height = ((sigma / SIGMA_MIN).log() / math.log(SIGMA_MAX / SIGMA_MIN)).squeeze(-1)
        found: Tensor = skip * x + out * self.net(condition, x / total.sqrt(), height)
        return found

    def loss(self, feature: Tensor, chunk: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Squared error of the predicted chunk, weighted so that every level counts alike (EDM, table 1).

        Args:
            feature: [B, F].
            chunk: [B, K, A] demonstrated actions.
            noise: [B, K * A] standard normal.
            sigma: [B].
        """
        x, level = chunk.flatten(1), sigma[:, None]
        weight = (level.square() + SIGMA_DATA**2) / (level * SIGMA_DATA).square()
        found = self.predict(self.net.condition(feature), x + level * noise, level)
        return (weight * (found - x).square()).mean()

    def bc_loss(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """`loss` at random levels, even in log sigma, with random noise."""
        noise = torch.randn(len(feature), self.chunk_size, device=feature.device)
        share = torch.rand(len(feature), device=feature.device)
        return self.loss(feature, chunk, noise, SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN) ** share)

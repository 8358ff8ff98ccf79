"""A flow-matching policy: actions in a few steps along straight paths from noise.

The network says in which direction a chunk moves at time t, from noise at t = 0 to the action at t = 1; along a
straight path that is always the action minus the noise. Few Euler steps then reach the action, where a diffusion takes
ten or twenty; with one or two it lies between ways to act that exclude each other. Given the first noise a decision is
certain; to explore, and to have a probability, every step adds noise.

Training: flow matching (Lipman et al. 2022, arXiv 2210.02747) along straight paths (Liu et al. 2022, arXiv 2209.03003).
The chain with added noise as a decision process: Flow-GRPO (arXiv 2505.05470) and ReinFlow (arXiv 2505.22094), the
latter with noise that is learned, where ours is `min_std` in every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.policies.base import Decision, ImprovedPolicy, PolicyHead, copies
from agents.policies.denoiser import Block
from agents.policies.diffusion import NOISE_CLIP, divergence, gaussian_log_prob
from worldaction.config import Count, Layers, Times
from worldaction.errors import UserError

FREQUENCIES = 8
"""Waves as which the network is told the time: 1 to 128 half turns from noise to action."""


@dataclass(frozen=True)
class FlowOptions:
    """Options of the flow head."""

    steps: Times = 4
    """Euler steps N from noise to action."""
    width: Count = 512
    """Width of the network."""
    blocks: Layers = 1
    """Residual blocks of the network."""


class FlowPolicy(PolicyHead):
    """A flow from noise to the next K actions, given a feature.

    Its decisions are stored as the whole chain, of N steps from the noise to the action:

        states      [B, N + 1, K * A]   the noise, then the chunk after each step; the last is the action

    Args:
        feature_size, action_size, chunk, binary: as for `PolicyHead`.
        steps: Euler steps N.
        width: width of the network.
        blocks: residual blocks of the network.
    """

    name = "flow"
    Options = FlowOptions

    def __init__(
        self,
        feature_size: int,
        action_size: int,
        *,
        chunk: int,
        width: int,
        steps: int = 4,
        blocks: int = 1,
        binary: Sequence[int] = (-1,),
    ) -> None:
        super().__init__(feature_size, action_size, chunk=chunk, binary=binary, steps=steps, width=width, blocks=blocks)
        self.steps = steps
        self.feature = nn.Linear(feature_size, width)
        self.noisy = nn.Linear(self.chunk_size, width)
        self.time = nn.Linear(2 * FREQUENCIES, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.out = nn.Linear(width, self.chunk_size)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """[N + 1, K * A]: where the flow begins, then what is added in each step while exploring."""
        return self.steps + 1, self.chunk_size

    def condition(self, feature: Tensor) -> Tensor:
        """[..., F] -> [..., W], once per decision."""
        projected: Tensor = self.feature(feature)
        return projected

    def velocity(self, condition: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Where chunks move; [..., W], [..., K * A] and times [...] in [0, 1] broadcast -> [..., K * A]."""
        turns = t.to(x)[..., None] * math.pi * 2.0 ** torch.arange(FREQUENCIES, device=t.device)
        h = condition + self.noisy(x) + self.time(torch.cat([turns.sin(), turns.cos()], -1))
        for block in self.blocks:
            h = block(h)
        found: Tensor = self.out(functional.mish(h))
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
        found = self.velocity(self.condition(feature), (1.0 - share) * noise + share * x, t)
        return (found - (x - noise)).square().mean()

    def bc_loss(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """`loss` at random times, with random noise."""
        noise = torch.randn(len(feature), self.chunk_size, device=feature.device)
        return self.loss(feature, chunk, noise, torch.rand(len(feature), device=feature.device))

    def means(self, feature: Tensor, states: Tensor) -> Tensor:
        """Where each step of chains leads from where it was, without what is added; [M, F], [M, N + 1, X] -> [M, N, X].

        All steps of all decisions are one pass of the network.
        """
        before, t = states[:, :-1], torch.arange(self.steps, device=states.device) / self.steps
        return before + self.velocity(self.condition(feature)[:, None], before, t) / self.steps

    def _chain(self, feature: Tensor, noise: Tensor, std: float) -> Tensor:
        """[B, F], [B, N + 1, X] -> states [B, N + 1, X]."""
        condition, added = self.condition(feature), noise[:, 1:].clamp(-NOISE_CLIP, NOISE_CLIP)
        states = [noise[:, 0]]
        for step in range(self.steps):
            t = torch.full((), step / self.steps, device=noise.device)
            moved = self.velocity(condition, states[-1], t) / self.steps
            states.append(states[-1] + moved + std * added[:, step])
        return torch.stack(states, 1)

    @torch.no_grad()
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        """See `PolicyHead.sample`; of the noise only the first row is used."""
        return self.to_actions(self._chain(feature, noise, 0.0)[:, -1])

    @torch.no_grad()
    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """See `PolicyHead.decide`; every step adds noise of that deviation."""
        states = self._chain(feature, noise, min_std)
        return Decision(self.to_actions(states[:, -1]), {"states": states})

    def log_prob(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Tensor:
        """See `PolicyHead.log_prob`; a column for each step, the noisiest first."""
        states = stored["states"]
        return gaussian_log_prob(states[:, 1:], self.means(feature, states), self._std(states, min_std))

    def divergence(
        self, cloned: Any, feature: Tensor, stored: Mapping[str, Tensor], log_prob: Tensor, *, min_std: float
    ) -> Tensor:
        """KL(self || cloned) of steps of equal deviation in closed form, averaged over steps and numbers."""
        states = stored["states"]
        with torch.no_grad():
            before = cloned.means(feature, states)
        return divergence(self.means(feature, states), before, self._std(states, min_std))

    def _std(self, states: Tensor, min_std: float) -> Tensor:
        """[N] of every step."""
        if min_std <= 0.0:
            raise UserError("a flow without added noise has no probability; give --update.min-std above 0")
        return states.new_full((self.steps,), min_std)

    def improvable(self, *, trained_steps: int = 1) -> ImprovedPolicy:
        """See `PolicyHead.improvable`; all of its few steps are trained, whatever `trained_steps` says."""
        return TunedFlow(*copies(self))


class TunedFlow(ImprovedPolicy):
    """A cloned flow and the copy of it that an update trains, in all steps."""

    def __init__(self, base: FlowPolicy, tuned: FlowPolicy) -> None:
        super().__init__(base, tuned)
        self.trained_steps = base.steps

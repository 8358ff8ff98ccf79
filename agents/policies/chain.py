"""Heads that reach an action in few steps from noise, all of which an update trains: what they have in common.

Each step has a mean, which the head's network says, and a deviation, so that a decision is a chain of normal choices
and has a probability (DPPO, arXiv 2409.00588). A head says where a chain begins, where a step leads, and how much noise
is its own; while exploring every step has `min_std` at least.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.policies.base import Decision, ImprovedPolicy, PolicyHead, Score, copies
from agents.policies.denoiser import Block
from agents.policies.diffusion import NOISE_CLIP, divergence, gaussian_log_prob
from worldaction.errors import UserError

FREQUENCIES = 8
"""Waves as which the network is told a number in [0, 1]: 1 to 128 half turns."""


class ChainPolicy(PolicyHead):
    """A chain of N steps from noise to the next K actions, given a feature.

    Its decisions are stored whole:

        states      [B, N + 1, K * A]   where the chain begins, then the chunk after each step; the last is the action

    A subclass gives `begin`, `move` and, unless it has none, `own_std`. What is random about it comes from there.

    Args:
        feature_size, action_size, chunk, binary: as for `PolicyHead`.
        steps: N.
        width: width of the network.
        blocks: residual blocks of the network.
    """

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
        options = {"steps": steps, "width": width, "blocks": blocks}
        super().__init__(feature_size, action_size, chunk=chunk, binary=binary, **options)
        self.steps = steps
        self.net = Net(feature_size, self.chunk_size, width=width, blocks=blocks)

    # What a head says -------------------------------------------------------------------------------------------------

    @abstractmethod
    def begin(self, noise: Tensor) -> Tensor:
        """Where chains begin, of standard normal numbers; [..., K * A] -> [..., K * A]."""

    @abstractmethod
    def move(self, condition: Tensor, x: Tensor, step: Tensor, *, min_std: float, deterministic: bool) -> Tensor:
        """Where a step leads without the noise that it adds.

        Args:
            condition: [..., W] of `Net.condition`.
            x: [..., K * A] where the chain is.
            step: [...] int64 in [0, N), the first is the noisiest. All three broadcast against each other.
            min_std: what every step adds at least while exploring, 0 while not.
            deterministic: the step adds no noise, whatever `own_std` says.

        Returns:
            [..., K * A].
        """

    def own_std(self) -> Tensor:
        """Deviation of each step [N] without exploring; none by default."""
        return torch.zeros(self.steps)

    # What follows -----------------------------------------------------------------------------------------------------

    @property
    def noise_shape(self) -> tuple[int, int]:
        """[N + 1, K * A]: where the chain begins, then what is added in each step."""
        return self.steps + 1, self.chunk_size

    def means(self, feature: Tensor, states: Tensor, min_std: float) -> Tensor:
        """The mean of every step of chains, with gradient; [M, F], [M, N + 1, K * A] -> [M, N, K * A].

        All steps of all decisions are one pass of the network.
        """
        step, condition = torch.arange(self.steps, device=states.device), self.net.condition(feature)[:, None]
        return self.move(condition, states[:, :-1], step, min_std=min_std, deterministic=False)

    def std(self, like: Tensor, min_std: float) -> Tensor:
        """Deviation of each step while exploring, [N]."""
        return self.own_std().to(like).clamp(min=min_std)

    def _chain(self, feature: Tensor, noise: Tensor, *, min_std: float, deterministic: bool = False) -> Tensor:
        """[B, F], [B, N + 1, K * A] -> states [B, N + 1, K * A]."""
        condition, added = self.net.condition(feature), noise[:, 1:].clamp(-NOISE_CLIP, NOISE_CLIP)
        std, states = self.std(noise, min_std), [self.begin(noise[:, 0])]
        for number in range(self.steps):
            step = torch.full((), number, device=noise.device)
            mean = self.move(condition, states[-1], step, min_std=min_std, deterministic=deterministic)
            states.append(mean if deterministic else mean + std[number] * added[:, number])
        return torch.stack(states, 1)

    @torch.no_grad()
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        """See `PolicyHead.sample`; deterministic leaves out the noise of the steps."""
        return self.to_actions(self._chain(feature, noise, min_std=0.0, deterministic=deterministic)[:, -1])

    @torch.no_grad()
    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """See `PolicyHead.decide`."""
        states = self._chain(feature, noise, min_std=min_std)
        return Decision(self.to_actions(states[:, -1]), {"states": states})

    def log_prob(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Tensor:
        """See `PolicyHead.log_prob`; a column for each step, the noisiest first."""
        states = stored["states"]
        std = self.positive_std(states, min_std)
        return gaussian_log_prob(states[:, 1:], self.means(feature, states, min_std), std)

    def positive_std(self, like: Tensor, min_std: float) -> Tensor:
        """As `std`, where every step has a probability."""
        if min_std <= 0.0:
            raise UserError("a step without noise has no probability; give --update.min-std above 0")
        return self.std(like, min_std)

    def improvable(self, *, trained_steps: int = 1) -> ImprovedPolicy:
        """See `PolicyHead.improvable`; all of its few steps are trained, whatever `trained_steps` says."""
        return TunedChain(*copies(self))


class TunedChain(ImprovedPolicy):
    """A cloned chain and the copy of it that an update trains, in all steps."""

    base: ChainPolicy
    tuned: ChainPolicy

    def __init__(self, base: ChainPolicy, tuned: ChainPolicy) -> None:
        super().__init__(base, tuned)
        self.trained_steps = base.steps

    def score(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Score:
        """See `ImprovedPolicy.score`; one pass of the network for both, and the divergence in closed form."""
        states, std = stored["states"], self.tuned.positive_std(stored["states"], min_std)
        means = self.tuned.means(feature, states, min_std)
        with torch.no_grad():
            before = self.base.means(feature, states, min_std)
        return Score(gaussian_log_prob(states[:, 1:], means, std), divergence(means, before, std))


class Net(nn.Module):
    """The diffusion head's network, which is told how far the chain is as a number in [0, 1] in place of a step."""

    def __init__(self, feature_size: int, chunk_size: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.feature = nn.Linear(feature_size, width)
        self.noisy = nn.Linear(chunk_size, width)
        self.time = nn.Linear(2 * FREQUENCIES, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.out = nn.Linear(width, chunk_size)

    def condition(self, feature: Tensor) -> Tensor:
        """[..., F] -> [..., W], once per decision."""
        projected: Tensor = self.feature(feature)
        return projected

    def forward(self, condition: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """[..., W], [..., K * A] and [...] in [0, 1], which broadcast -> [..., K * A]."""
        turns = t.to(x)[..., None] * math.pi * 2.0 ** torch.arange(FREQUENCIES, device=x.device)
        h = condition + self.noisy(x) + self.time(torch.cat([turns.sin(), turns.cos()], -1))
        for block in self.blocks:
            h = block(h)
        found: Tensor = self.out(functional.mish(h))
        return found

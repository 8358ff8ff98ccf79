"""A Gaussian policy: the same chunks of actions as the diffusion policy's, from one normal distribution.

The mean is an MLP of the feature, the deviation is the same everywhere. It is the policy of most PPO implementations,
Stable-Baselines3's among them, whose layers it shares so that a cloned one can be fine-tuned there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from agents.imitate import imitate
from worldaction.errors import UserError
from worldaction.fit import Report
from worldaction.kernels.dream.reference import executed

LOG_STD_RANGE = (math.log(0.05), 0.0)
"""Demonstrated numbers that never change, such as an open gripper's, would have a density without bound."""


class GaussianPolicy(nn.Module):
    """A normal distribution of the next K actions, given a feature.

    Args:
        feature_size: size F of the feature.
        action_size: size A of an action.
        chunk: actions K per decision.
        width: width of the hidden layers.
        layers: how many there are.
        binary: numbers of an action that are thresholded at 0 to -1 or +1; the last is CALVIN's gripper.
    """

    activation: type[nn.Module] = nn.Mish

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
        super().__init__()
        if layers < 1:
            raise UserError(f"{layers} hidden layers; give at least 1")
        self.chunk, self.action_size, self.binary = chunk, action_size, tuple(binary)
        self.width, self.layers = width, layers
        sizes = [feature_size, *[width] * layers]
        parts: list[nn.Module] = []
        for inner, outer in pairwise(sizes):
            parts += [nn.Linear(inner, outer), self.activation()]
        self.trunk = nn.Sequential(*parts)
        self.mean = nn.Linear(width, chunk * action_size)
        self.log_std = nn.Parameter(torch.full((chunk * action_size,), -1.0))

    @property
    def noise_shape(self) -> tuple[int, int]:
        """[1, K * A]: the normal numbers that one decision takes."""
        return 1, self.chunk * self.action_size

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [..., K * A] and standard deviation [K * A] of the chunk, given features [..., F]."""
        return self.mean(self.trunk(feature)), self.log_std.clamp(*LOG_STD_RANGE).exp()

    def log_prob(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """Log-density of chunks, summed over their numbers; [..., F], [..., K, A] -> [...]."""
        mean, std = self(feature)
        error = (chunk.flatten(-2) - mean) / std
        constant = 0.5 * math.log(2.0 * math.pi)
        return (-0.5 * error.square() - std.log() - constant).sum(-1)

    def to_actions(self, x: Tensor) -> Tensor:
        """Numbers of a chunk [..., K * A] as actions [..., K, A] in [-1, 1], the binary ones thresholded at 0."""
        return executed(x.unflatten(-1, (self.chunk, self.action_size)), self.binary)

    @torch.no_grad()
    def sample(self, feature: Tensor, noise: Tensor, *, sampler: str = "ddpm") -> Tensor:
        """Draw action chunks, as `DiffusionPolicy.sample` does.

        Args:
            feature: [B, F].
            noise: [B, 1, K * A] standard normal.
            sampler: "ddim" takes the mean, which is the only thing that is without noise here.

        Returns:
            [B, K, A] actions.
        """
        mean, std = self(feature)
        return self.to_actions(mean if sampler == "ddim" else mean + std * noise[:, 0])

    @torch.no_grad()
    def most_likely(self, feature: Tensor) -> Tensor:
        """The mean as actions; [B, F] -> [B, K, A]."""
        return self.to_actions(self(feature)[0])


def clone_gaussian(
    features: Tensor,
    chunks: Tensor,
    *,
    width: int,
    layers: int = 2,
    binary: Sequence[int] = (-1,),
    steps: int,
    batch: int,
    lr: float,
    weight_decay: float,
    ema: float,
    seed: int,
    report: Report | None = None,
) -> GaussianPolicy:
    """Fit a Gaussian policy to demonstrations by maximum likelihood.

    Args:
        features: [R, M, F] features of M frames, each in R posterior samples, among which training draws at random.
        chunks: [M, K, A] from `agents.bc.demonstration_chunks`.
        width, layers, binary: as for `GaussianPolicy`.
        steps, batch, lr, weight_decay, ema, seed, report: as for `agents.bc.clone`.

    Returns:
        The policy with averaged weights, frozen and in evaluation mode.
    """
    resamples, frames, feature_size = features.shape
    if frames != len(chunks) or not frames:
        raise UserError(
            f"features {list(features.shape)} do not go with chunks {list(chunks.shape)}; give equal frames"
        )
    with torch.random.fork_rng(devices=[features.device] if features.is_cuda else []):
        torch.manual_seed(seed)
        policy = GaussianPolicy(
            feature_size, chunks.shape[2], chunk=chunks.shape[1], width=width, layers=layers, binary=binary
        ).to(features.device)

        def loss() -> Tensor:
            frame = torch.randint(frames, (batch,), device=features.device)
            sample = torch.randint(resamples, (batch,), device=features.device)
            # per number, so that the learning rate fits chunks of any length
            return -policy.log_prob(features[sample, frame], chunks[frame]).mean() / policy.noise_shape[1]

        average = imitate(policy, loss, steps=steps, lr=lr, weight_decay=weight_decay, ema=ema, report=report)
    return _fit_deviation(average, features, chunks)


@torch.no_grad()
def _fit_deviation(policy: GaussianPolicy, features: Tensor, chunks: Tensor) -> GaussianPolicy:
    """The most likely deviation, given the mean: that of what is left. Gradient steps move its logarithm too slowly."""
    left = chunks.flatten(1) - policy(features)[0]
    # over samples and frames
    policy.log_std.copy_(left.square().mean((0, 1)).sqrt().clamp_min(1e-6).log())
    return policy

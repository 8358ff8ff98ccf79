"""The value of a latent state, for PPO."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Critic(nn.Module):
    """An MLP that predicts the discounted reward still to come, from the world model's feature and the time left.

    Without the time a task with a limit has no value function: what is worth much early on is worth nothing at the end
    (Pardo et al. 2018, arXiv 1712.00378).

    Args:
        feature_size: size F of the feature.
        width: width of the two hidden layers.
    """

    def __init__(self, feature_size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(feature_size + 1, width),
            nn.LayerNorm(width),
            nn.Mish(),
            nn.Linear(width, width),
            nn.Mish(),
            nn.Linear(width, 1),
        )

    def forward(self, feature: Tensor, left: Tensor) -> Tensor:
        """The value.

        Args:
            feature: [..., F].
            left: [...] share of the time limit that is left, from 1 to 0; a constant if there is no limit.

        Returns:
            [...].
        """
        value: Tensor = self.layers(torch.cat([feature, left.unsqueeze(-1)], -1)).squeeze(-1)
        return value

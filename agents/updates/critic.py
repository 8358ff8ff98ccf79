"""The value of a latent state, for PPO."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Critic(nn.Module):
    """An MLP that predicts the discounted reward still to come, from the world model's feature and the time left.

    Reward is 1 for success, once, so this return lies in [0, 1]: it is a probability, discounted, and learned like one,
    by cross-entropy (as values by classification in Farebrother et al. 2024, arXiv 2403.03950). A squared error through
    a sigmoid would stop to learn where the value is far off.

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
        """The value, in (0, 1).

        Args:
            feature: [..., F].
            left: [...] share of the time limit that is left, from 1 to 0; a constant if there is no limit.

        Returns:
            [...].
        """
        return self._logit(feature, left).sigmoid()

    def loss(self, feature: Tensor, left: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy against returns [...] in [0, 1], smallest where the value is their mean; []."""
        return functional.binary_cross_entropy_with_logits(self._logit(feature, left), target)

    def _logit(self, feature: Tensor, left: Tensor) -> Tensor:
        logit: Tensor = self.layers(torch.cat([feature, left.unsqueeze(-1)], -1)).squeeze(-1)
        return logit

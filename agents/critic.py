"""The value of a latent state, for PPO."""

from __future__ import annotations

from torch import Tensor, nn


class Critic(nn.Module):
    """An MLP that predicts the discounted reward still to come, from the world model's feature alone.

    Args:
        feature_size: size F of the feature.
        width: width of the two hidden layers.
    """

    def __init__(self, feature_size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(feature_size, width),
            nn.LayerNorm(width),
            nn.Mish(),
            nn.Linear(width, width),
            nn.Mish(),
            nn.Linear(width, 1),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """[..., F] -> [...]."""
        value: Tensor = self.layers(feature).squeeze(-1)
        return value

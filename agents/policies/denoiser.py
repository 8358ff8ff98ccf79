"""The network inside the diffusion policy: a residual MLP that predicts the noise in an action chunk.

What it sees of the world enters as one vector, computed once per decision and shared by all denoising steps; the
denoising step enters as a row of a table. Sizes after DPPO (Ren et al. 2024, arXiv 2409.00588). The activation before
the last layer, which DPPO leaves out, makes demonstrations that go one way or the other come out as such.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Denoiser(nn.Module):
    """Predicts the noise in a noisy action chunk.

    Args:
        feature_size: size F of the world model's feature.
        chunk_size: numbers in an action chunk, K * A.
        denoising_steps: denoising steps N.
        width: width W of every layer.
        blocks: residual blocks of two layers each.
    """

    def __init__(self, feature_size: int, chunk_size: int, *, denoising_steps: int, width: int, blocks: int) -> None:
        super().__init__()
        self.feature = nn.Linear(feature_size, width)
        self.noisy = nn.Linear(chunk_size, width)
        self.step = nn.Embedding(denoising_steps, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.out = nn.Linear(width, chunk_size)

    def condition(self, feature: Tensor) -> Tensor:
        """What the denoiser needs of a feature, [..., F] -> [..., W]: call it once per decision."""
        projected: Tensor = self.feature(feature)
        return projected

    def forward(self, condition: Tensor, x: Tensor, k: Tensor) -> Tensor:
        """The predicted noise.

        Args:
            condition: [..., W] from `condition`.
            x: [..., K * A] noisy chunk.
            k: [...] int64 denoising step, 0 is the last one. All three broadcast against each other.

        Returns:
            [..., K * A].
        """
        h = condition + self.noisy(x) + self.step(k)
        for block in self.blocks:
            h = block(h)
        noise: Tensor = self.out(functional.mish(h))
        return noise


class Block(nn.Module):
    """Two layers with activations before them, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """[..., W] -> [..., W]."""
        inner: Tensor = self.second(functional.mish(self.first(functional.mish(h))))
        return h + inner

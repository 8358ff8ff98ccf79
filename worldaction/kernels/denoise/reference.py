"""The definition of the policy's denoising loop on plain tensors: `agents.policies.denoiser`, step after step.

Every sampler of `agents.policies.diffusion` is linear in the clean chunk that the network promises and in the noisy
one, so that a step is five numbers of a table, and one loop serves DDPM and DDIM, from any step to any step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

NOISE_CLIP = 3.0


class Network(Protocol):
    """What `agents.policies.denoiser.Denoiser` has; a block has the layers `first` and `second`."""

    noisy: nn.Linear
    step: nn.Embedding
    blocks: nn.ModuleList
    out: nn.Linear


class DenoiserWeights(NamedTuple):
    """Weights of the denoiser, each as stored by `torch.nn.Linear` (out, in), and the steps that are to be taken."""

    noisy: Tensor  # [W, X]
    steps: Tensor  # [n, W] rows of the table of steps in the order in which they are taken, plus the bias of `noisy`
    layers: Tensor  # [2 L, W, W] first and second layer of each block
    biases: Tensor  # [2 L, W]
    out: Tensor  # [X, W]
    out_bias: Tensor  # [X]


def sizes_of(weights: DenoiserWeights) -> dict[str, int]:
    """Sizes of a denoiser by name: width, chunk, blocks."""
    width, chunk = weights.noisy.shape
    return {"width": width, "chunk": chunk, "blocks": len(weights.layers) // 2}


def weights_of(network: Network, visited: Sequence[int]) -> DenoiserWeights:
    """The weights of a denoiser for the steps that are taken.

    Args:
        network: the denoiser.
        visited: denoising steps k in the order in which they are taken, the noisiest first.
    """
    layers: list[nn.Linear] = [getattr(block, name) for block in network.blocks for name in ("first", "second")]
    return DenoiserWeights(
        noisy=network.noisy.weight,
        steps=network.step.weight[list(visited)] + network.noisy.bias,
        layers=torch.stack([layer.weight for layer in layers]),
        biases=torch.stack([layer.bias for layer in layers]),
        out=network.out.weight,
        out_bias=network.out.bias,
    )


def undo_table(alpha_bar: Tensor, visited: Sequence[int], *, eta: float, min_std: float, last: int = -1) -> Tensor:
    """The numbers of each step of DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12); with eta 1 and no step left out,
    those of DDPM.

    Args:
        alpha_bar: [N] share of the variance of x_k that is still the clean action.
        visited: denoising steps k in the order in which they are taken.
        eta: 0 is deterministic, 1 is DDPM.
        min_std: smallest standard deviation of a step.
        last: the step that the last one lands on; -1 is the action.

    Returns:
        [n, 5]: clean = clamp(t0 x + t1 eps), mean = t2 clean + t3 x, next x = mean + t4 noise.
    """
    exact = alpha_bar.double()
    share = exact[list(visited)]
    target = torch.stack([exact[k] if k >= 0 else torch.ones_like(exact[0]) for k in (*visited[1:], last)])
    variance = eta**2 * (1.0 - target) / (1.0 - share) * (1.0 - share / target)
    along = (1.0 - target - variance).clamp(min=0.0).sqrt() / (1.0 - share).sqrt()
    columns = [
        share.rsqrt(),
        -(1.0 - share).sqrt() * share.rsqrt(),
        target.sqrt() - along * share.sqrt(),
        along,
        variance.sqrt().clamp(min=min_std),
    ]
    return torch.stack(columns, -1).to(alpha_bar.dtype)


def epsilon(weights: DenoiserWeights, condition: Tensor, x: Tensor, step: int) -> Tensor:
    """The predicted noise [B, X] of the step that is taken as number `step`, from condition [B, W] and x [B, X]."""
    h = condition + functional.linear(x, weights.noisy) + weights.steps[step]
    blocks = zip(weights.layers.unflatten(0, (-1, 2)), weights.biases.unflatten(0, (-1, 2)), strict=True)
    for (first, second), (first_bias, second_bias) in blocks:
        inner = functional.linear(functional.mish(h), first, first_bias)
        h = h + functional.linear(functional.mish(inner), second, second_bias)
    return functional.linear(functional.mish(h), weights.out, weights.out_bias)


def denoise(
    weights: DenoiserWeights, condition: Tensor, x: Tensor, noise: Tensor, table: Tensor
) -> tuple[Tensor, Tensor]:
    """Take n denoising steps.

    Args:
        weights: see `DenoiserWeights`.
        condition: [B, W] what the network sees of the world, `Denoiser.condition`.
        x: [B, X] noisy chunk before the first step.
        noise: [B, n, X] standard normal; clipped to three deviations.
        table: [n, 5] from `undo_table`.

    Returns:
        states [B, n + 1, X], the chunk before the first step and after each, and means [B, n, X] of the steps.
    """
    states, means = [x], []
    added = noise.clamp(-NOISE_CLIP, NOISE_CLIP)
    for step, (from_x, from_noise, clean_share, x_share, std) in enumerate(table.unbind(0)):
        clean = (from_x * x + from_noise * epsilon(weights, condition, x, step)).clamp(-1.0, 1.0)
        means.append(clean_share * clean + x_share * x)
        x = means[-1] + std * added[:, step]
        states.append(x)
    return torch.stack(states, 1), torch.stack(means, 1)

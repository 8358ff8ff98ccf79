"""Behaviour cloning of the diffusion policy on latents of demonstrations."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from agents.policies.diffusion import DiffusionPolicy
from worldaction.errors import UserError
from worldaction.fit import Fit, Report, cosine_decay


def demonstration_chunks(actions: Tensor, chunk: int, *, binary: Sequence[int] = (-1,)) -> Tensor:
    """The next `chunk` actions at every frame of one demonstration.

    Past the end the arm rests: no motion, and a gripper keeps its last command.

    Args:
        actions: [T, A] actions of one episode.
        chunk: actions K per decision.
        binary: which numbers of an action are a gripper's command; CALVIN's is the last.

    Returns:
        [T, K, A]; row t belongs to frame t.
    """
    if actions.ndim != 2 or not len(actions):
        raise UserError(f"a demonstration has actions of shape {list(actions.shape)}; give [T, A] with T >= 1")
    rest = torch.zeros_like(actions[-1:])
    rest[:, list(binary)] = actions[-1, list(binary)]
    padded = torch.cat([actions, rest.expand(chunk - 1, -1)])
    # [T, A, K] -> [T, K, A]
    return padded.unfold(0, chunk, 1).transpose(1, 2).contiguous()


def clone(
    features: Tensor,
    chunks: Tensor,
    *,
    denoising_steps: int,
    width: int,
    blocks: int,
    binary: Sequence[int] = (-1,),
    steps: int,
    batch: int,
    lr: float,
    weight_decay: float,
    ema: float,
    seed: int,
    report: Report | None = None,
    checkpoint: Path | None = None,
    save_every: int = 0,
) -> DiffusionPolicy:
    """Train a diffusion policy to imitate demonstrations.

    Args:
        features: [R, M, F] features of M frames, each in R posterior samples, among which training draws at random.
        chunks: [M, K, A] from `demonstration_chunks`.
        denoising_steps: denoising steps N.
        width: width of the denoiser.
        blocks: residual blocks of the denoiser.
        binary: as for `DiffusionPolicy`.
        steps: gradient steps.
        batch: chunks per step.
        lr: learning rate of AdamW, which falls by a cosine.
        weight_decay: weight decay of AdamW.
        ema: decay of the averaged weights.
        seed: seed of the initial weights, the batches and the noise.
        report: called after each step with the number of finished steps and the metrics.
        checkpoint: file to resume from and to save to; None saves nothing.
        save_every: steps between two checkpoints.

    Returns:
        The policy with averaged weights, in evaluation mode.

    Raises:
        UserError: the shapes do not fit together, or the loss diverges.
        Interrupted: a signal came; the state is in the checkpoint.
    """
    _check(features, chunks)
    resamples, frames, feature_size = features.shape
    with torch.random.fork_rng(devices=[features.device] if features.is_cuda else []):
        torch.manual_seed(seed)
        policy = DiffusionPolicy(
            feature_size,
            chunks.shape[2],
            chunk=chunks.shape[1],
            denoising_steps=denoising_steps,
            width=width,
            blocks=blocks,
            binary=binary,
        ).to(features.device)
        average = copy.deepcopy(policy).requires_grad_(False)

        def draw(high: int) -> Tensor:
            return torch.randint(high, (batch,), device=features.device)

        def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
            frame, sample, k = draw(frames), draw(resamples), draw(denoising_steps)
            noise = torch.randn(batch, policy.chunk_size, device=features.device)
            value = policy.loss(features[sample, frame], chunks[frame], noise, k)
            return value, {"clone/loss": value.detach()}

        def after(step: int, figures: Mapping[str, float]) -> None:
            # young averages forget faster, or they would remember the initial weights
            follow(average, policy, min(ema, step / (9 + step)))
            if report is not None:
                report(step, figures)

        fit = Fit(
            policy,
            torch.optim.AdamW(policy.parameters(), lr=lr, weight_decay=weight_decay, fused=True),
            steps=steps,
            factor=lambda step: cosine_decay(step, steps=steps),
            checkpoint=checkpoint,
            save_every=save_every,
            also={"average": average},
        )
        fit.run(loss, after)
    return average.eval()


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move averaged weights towards a module's: average = decay * average + (1 - decay) * module."""
    for slow, fast in zip(average.parameters(), module.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - decay)


def _check(features: Tensor, chunks: Tensor) -> None:
    if features.ndim != 3 or chunks.ndim != 3 or features.shape[1] != chunks.shape[0] or not len(chunks):
        raise UserError(
            f"features {list(features.shape)} do not go with chunks {list(chunks.shape)}; give [R, M, F] and [M, K, A]"
        )

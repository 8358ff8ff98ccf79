"""Behaviour cloning of a policy head on latents of demonstrations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from agents.policies.base import PolicyHead
from worldaction.errors import UserError
from worldaction.fit import Fit, Report, cosine_decay
from worldaction.spec import Layout

Head = TypeVar("Head", bound=PolicyHead)
Learner = TypeVar("Learner", bound=nn.Module)


def demonstration_chunks(actions: Tensor, chunk: int, *, layout: Layout | None = None) -> Tensor:
    """The next `chunk` actions at every frame of one demonstration.

    Past the end the robot stays where it is. Told how to move it is told the null action, and a gripper its last
    command; told where to be it is told the last action again.

    Args:
        actions: [T, A] actions of one episode.
        chunk: actions K per decision.
        layout: what they are; by default moves of which the last number is a gripper's command.

    Returns:
        [T, K, A]; row t belongs to frame t.

    Raises:
        UserError: the actions have another shape.
    """
    if actions.ndim != 2 or not len(actions):
        raise UserError(f"a demonstration has actions of shape {list(actions.shape)}; give [T, A] with T >= 1")
    size = actions.shape[1]
    if layout is not None and layout.action != size:
        raise UserError(f"a demonstration has actions of {size} numbers, its layout says {layout.action}")
    rest = actions[-1:].clone()
    if layout is None:
        rest[:, :-1] = 0.0
    elif not layout.absolute:
        moves = [number for number in range(size) if number not in layout.binary]
        rest[:, moves] = rest.new_tensor(layout.null_action)[moves]
    padded = torch.cat([actions, rest.expand(chunk - 1, -1)])
    # [T, A, K] -> [T, K, A]
    return padded.unfold(0, chunk, 1).transpose(1, 2).contiguous()


def clone(
    head: type[Head],
    features: Tensor,
    chunks: Tensor,
    *,
    options: Mapping[str, Any],
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
    begin: PolicyHead | None = None,
) -> Head:
    """Train a policy head to imitate demonstrations.

    Args:
        head: its class.
        features: [R, M, F] features of M frames, each in R posterior samples, among which training draws at random.
        chunks: [M, K, A] from `demonstration_chunks`.
        options: of the head, by name; see `PolicyHead`.
        binary: as for `PolicyHead`.
        steps: gradient steps.
        batch: chunks per step.
        lr: learning rate of AdamW, which falls by a cosine.
        weight_decay: weight decay of AdamW.
        ema: decay of the averaged weights.
        seed: seed of the initial weights, the batches and the noise.
        report: called after each step with the number of finished steps and the metrics.
        checkpoint: file to resume from and to save to; None saves nothing.
        save_every: steps between two checkpoints.
        begin: a cloned head of the same sizes to go on with; None begins with nothing.

    Returns:
        The head with averaged weights, frozen and in evaluation mode.

    Raises:
        UserError: the shapes do not fit together, or the loss diverges.
        Interrupted: a signal came; the state is in the checkpoint.
    """
    _check(features, chunks)
    resamples, frames, feature_size = features.shape
    with torch.random.fork_rng(devices=[features.device] if features.is_cuda else []):
        torch.manual_seed(seed)
        policy = head(feature_size, chunks.shape[2], chunk=chunks.shape[1], binary=binary, **options)
        policy = policy.to(features.device)
        if begin is not None:
            policy.load_state_dict(begin.state_dict())

        def draw(high: int) -> Tensor:
            return torch.randint(high, (batch,), device=features.device)

        def loss() -> Tensor:
            frame, sample = draw(frames), draw(resamples)
            return policy.bc_loss(features[sample, frame], chunks[frame])

        average = fit_averaged(
            policy,
            loss,
            steps=steps,
            lr=lr,
            weight_decay=weight_decay,
            ema=ema,
            report=report,
            checkpoint=checkpoint,
            save_every=save_every,
        )
    average.after_cloning(features, chunks)
    return average


def fit_averaged(
    module: Learner,
    loss: Callable[[], Tensor],
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    ema: float,
    report: Report | None = None,
    checkpoint: Path | None = None,
    save_every: int = 0,
) -> Learner:
    """Minimise a loss over demonstrations by gradient descent; the result is an average of the weights on the way.

    Args:
        module: what is trained, in place.
        loss: draws a batch and gives the module's scalar loss of it.
        steps, lr, weight_decay, ema, report, checkpoint, save_every: as for `clone`.

    Returns:
        A copy of the module with averaged weights, frozen and in evaluation mode.

    Raises:
        UserError: the loss diverges.
        Interrupted: a signal came; the state is in the checkpoint.
    """
    average = copy.deepcopy(module).requires_grad_(False)

    def value(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        found = loss()
        return found, {"loss": found.detach()}

    def after(step: int, figures: Mapping[str, float]) -> None:
        # young averages forget faster, or they would remember the initial weights
        follow(average, module, min(ema, step / (9 + step)))
        if report is not None:
            report(step, figures)

    fit = Fit(
        module,
        torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay, fused=True),
        steps=steps,
        factor=lambda step: cosine_decay(step, steps=steps),
        checkpoint=checkpoint,
        save_every=save_every,
        also={"average": average},
    )
    fit.run(value, after)
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

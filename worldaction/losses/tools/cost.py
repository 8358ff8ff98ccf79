"""What a loss costs: its forward and backward pass beside a whole step of a world model that only draws and expects."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import nn

from worldaction.losses.base import Loss
from worldaction.losses.tools.contract import Trial, leaves, noise_batch, seeded, tiny_model
from worldaction.world_model.model import total

BASE: Final = ("reconstruction=1,share=0.25", "kl")
SIZES: Final[Mapping[str, Any]] = {
    "image_size": 64,
    "deter": 256,
    "groups": 32,
    "classes": 16,
    "hidden": 200,
    "embed": 200,
    "depth": 32,
    "patch": 4,
    "burn_in": 5,
}
"""A model that two CPU cores train in minutes: those of the `quick` preset."""
WINDOWS: Final = 16
FRAMES: Final = 24


def costs(losses: Mapping[str, type[Loss]], *, repeats: int = 3, sizes: Mapping[str, Any] = SIZES) -> dict[str, float]:
    """Seconds of the losses in shares of the seconds of a training step with reconstruction and KL.

    CPU seconds of all threads, the best of some repeats that take turns, so that it does not matter what else the
    machine does. The way back through the encoder and the recurrent model is walked once whatever the losses are, and
    is the step's.

    Args:
        losses: by name, with their default options.
        repeats: of every measurement.
        sizes: of the model, see `ModelConfig`.
    """
    model = tiny_model(BASE, **sizes)
    batch = noise_batch(WINDOWS, FRAMES, image_size=int(sizes["image_size"]))
    with seeded(0), torch.no_grad():
        targets = model.with_targets(batch)
        latents = leaves(model.filter(targets))
        built = {name: cls(cls.Options(), model.shapes) for name, cls in losses.items()}

    def step() -> None:
        total(model.losses_of(batch)[0]).backward()

    def work(loss: Loss) -> Callable[[], None]:
        trial = Trial(loss, model, targets, latents)
        return lambda: _forwards_and_back(trial)

    jobs = [step, *(work(loss) for loss in built.values())]
    best = [float("inf")] * len(jobs)
    with seeded(0):
        for _ in range(repeats + 1):
            best = [min(seconds, _seconds(job, model)) for seconds, job in zip(best, jobs, strict=True)]
    return {name: seconds / best[0] for name, seconds in zip(losses, best[1:], strict=True)}


def _forwards_and_back(trial: Trial) -> None:
    trial.run().mean().backward()
    trial.loss.after_step()


def _seconds(job: Callable[[], None], model: nn.Module) -> float:
    model.zero_grad()
    begin = time.process_time()
    job()
    return time.process_time() - begin

"""Learning from demonstrations by gradient descent, whatever the policy: averaged weights are the result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from agents.bc import follow
from worldaction.fit import Fit, Report, cosine_decay

Learner = TypeVar("Learner", bound=nn.Module)


def imitate(
    module: Learner,
    loss: Callable[[], Tensor],
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    ema: float,
    report: Report | None = None,
) -> Learner:
    """Minimise a loss over demonstrations, by the recipe of `agents.bc.clone`.

    Args:
        module: what is trained, in place.
        loss: draws a batch and gives the module's scalar loss of it.
        steps: gradient steps.
        lr: learning rate of AdamW, which falls by a cosine.
        weight_decay: weight decay of AdamW.
        ema: decay of the averaged weights.
        report: called after each step with the number of finished steps and the metrics.

    Returns:
        A copy of the module with averaged weights, frozen and in evaluation mode.

    Raises:
        UserError: the loss diverges.
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

    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    Fit(module, optimiser, steps=steps, factor=lambda step: cosine_decay(step, steps=steps)).run(value, after)
    return average.eval()

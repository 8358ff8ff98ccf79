"""What a linear probe reads off latents: fitted on filtered latents of training play, read on validation play."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from worldaction.metrics.open_loop import Rolls
from worldaction.metrics.probes import auroc, predict, r2
from worldaction.spec import CALVIN, ROBOT, SCENE, SCENE_FIELDS, Layout

LIGHTS: Final = ("lightbulb", "led")
PARTS: Final = ("slider", "drawer", "switch")


def probed(layout: Layout) -> str:
    """What is read: the privileged state where there is more of it than success, else the proprioception; or ""."""
    if layout.scene > 1 or (layout.scene and not layout.robot):
        return SCENE
    return ROBOT if layout.robot else ""


def state_probes(rolls: Rolls) -> dict[str, dict[str, float]]:
    """Scores for what is seen, imagined up to 8 frames ahead, and later.

    Args:
        rolls: the world model on play.

    Returns:
        band to score: of CALVIN's tables R2 of joints and AUROC of lights, else the mean R2 over all numbers that vary;
        NaN where nothing does.
    """
    if not (key := probed(rolls.model.config.layout)):
        return {}
    weights = rolls.probe(key)
    return {
        name: _scores(
            predict(weights, band.feature).flatten(0, 1).cpu(),
            rolls.frames[key][band.frame].flatten(0, 1),
            rolls.model.config.layout,
        )
        for name, band in rolls.read.items()
    }


def _scores(read: Tensor, true: Tensor, layout: Layout) -> dict[str, float]:
    if layout.scene != CALVIN.scene:
        return {"r2": float(torch.tensor([r2(read[:, i], true[:, i]) for i in range(true.shape[1])]).nanmean())}
    at = SCENE_FIELDS
    scores = {f"r2_{name}": r2(read[:, at[name]], true[:, at[name]]) for name in PARTS}
    return scores | {f"auroc_{name}": auroc(read[:, at[name]], true[:, at[name]] > 0.5) for name in LIGHTS}

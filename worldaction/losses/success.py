"""A head for what the simulator knows and a camera only shows: done or not, and how far (DreamerV2, 2010.02193, eq. 2)

Dreamer predicts the reward from every latent; where the reward is the success of the present step, `scene_obs` is that
number, and `success,binary=0,real=none` is its head. At CALVIN's table the same numbers judge success: both lights, and
how far slider and drawer have moved. Labels of a simulator are privileged: an upper bound beside losses without any.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor

from worldaction.config import NonNegative
from worldaction.errors import UserError
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike
from worldaction.spec import SCENE, SCENE_FIELDS
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import mlp


@dataclass(frozen=True)
class SuccessOptions:
    """Options of `Success`."""

    scale: NonNegative = 15.0
    """Weight of the loss."""
    binary: str = f"{SCENE_FIELDS['lightbulb']}/{SCENE_FIELDS['led']}"
    """Which numbers of `scene_obs` are 0 or 1, with / between them; or none."""
    real: str = f"{SCENE_FIELDS['slider']}/{SCENE_FIELDS['drawer']}"
    """Which others are predicted, with / between them; or none."""
    unit: float = 0.05
    """Error of those that weighs as much as a nat, half squared: metres at CALVIN's table."""


def numbers(text: str, option: str) -> list[int]:
    """Which numbers an option names.

    Raises:
        UserError: it cannot be read.
    """
    if text == "none":
        return []
    if not all(part.isdecimal() for part in text.split("/")):
        raise UserError(f"loss success: {option}={text!r} names no numbers; write for instance {option}=4/5, or none")
    return [int(part) for part in text.split("/")]


class Success(Loss):
    """Cross entropy of what is 0 or 1, and half the squared error of the rest."""

    name = "success"
    Options = SuccessOptions
    needs = frozenset({"belief", "state"})
    reads = frozenset({SCENE})
    binary_at: Tensor
    real_at: Tensor

    def __init__(self, options: SuccessOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.binary, self.real = numbers(options.binary, "binary"), numbers(options.real, "real")
        if not self.binary and not self.real:
            raise UserError("loss success: binary=none and real=none leave nothing to predict; name a number")
        for name, places in (("binary_at", self.binary), ("real_at", self.real)):
            # on the device: a step of training must bring nothing there
            self.register_buffer(name, torch.tensor(places, dtype=torch.int64), persistent=False)
        self.head = mlp([shapes.feature, shapes.hidden, len(self.binary) + len(self.real)])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`."""
        scene = batch.get(SCENE, None)
        wanted = 1 + max(self.binary + self.real)
        if scene is None or scene.shape[-1] < wanted:
            has = "are not in the batch" if scene is None else f"are {scene.shape[-1]} a frame"
            raise UserError(
                f"loss success needs {wanted} numbers of {SCENE}, which {has}; name others, or leave it out"
            )
        # [B, T, binary] and [B, T, real]
        logits, predictions = self.head(latents.feature).split([len(self.binary), len(self.real)], -1)
        labels, targets = scene.index_select(-1, self.binary_at), scene.index_select(-1, self.real_at)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
        # the head predicts real numbers in units of the error that weighs as much as a nat
        squared_error = (predictions - targets / self.options.unit).square()
        correct = ((logits > 0) == (labels > 0.5)).float()
        metrics = {"accuracy": correct.mean()} if self.binary else {}
        if self.real:
            metrics["error"] = squared_error.detach().mean().sqrt() * self.options.unit
        return LossOutput(cross_entropy.sum(-1) + 0.5 * squared_error.sum(-1), metrics=metrics)

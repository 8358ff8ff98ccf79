"""Reconstruction of the cameras and of the proprioception from the latent feature (DreamerV2, 2010.02193; LUMOS)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction.config import NonNegative
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike
from worldaction.spec import ROBOT
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import Decoder, mlp


@dataclass(frozen=True)
class ReconstructionOptions:
    """Options of `Reconstruction`."""

    scale: NonNegative = 1.0
    """Weight of the loss."""
    proprio: float = 1.0
    """Weight of the standardised proprioception's squared error beside the pixels'."""
    share: float = 1.0
    """Share of the frames of a batch whose images are drawn: drawing is most of the cost of a step."""


class Reconstruction(Loss):
    """Half the squared error, summed over pixels and cameras: a Gaussian likelihood of unit variance."""

    name = "reconstruction"
    Options = ReconstructionOptions
    needs = frozenset({"belief", "state"})

    def __init__(self, options: ReconstructionOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.decoder = Decoder(
            shapes.cameras,
            inputs=shapes.feature,
            image_size=shapes.image_size,
            depth=shapes.depth,
            patch=shapes.patch,
        )
        self.proprio_net = mlp([shapes.feature, shapes.hidden, shapes.proprio]) if shapes.proprio else None

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`."""
        feature = latents.feature
        batch_size, time = feature.shape[:2]
        drawn = torch.randperm(time, device=feature.device)[: max(1, round(time * self.options.share))]
        images = self._images(feature[:, drawn], batch, drawn)
        # each drawn frame stands for time / drawn frames, so that the mean over time is unbiased; [B, T]
        pixels = feature.new_zeros(batch_size, time).index_copy(1, drawn, images * (time / len(drawn)))
        body = torch.zeros_like(pixels)
        if self.proprio_net is not None:
            body = 0.5 * (self.proprio_net(feature) - batch["target", ROBOT]).square().sum(-1)
        metrics = {"pixels": images.detach().mean(), "proprio": body.detach().mean()}
        return LossOutput(pixels + self.options.proprio * body, metrics=metrics)

    def draw(self, feature: Tensor) -> dict[str, Tensor]:
        """See `DrawsImages.draw`."""
        pictures: dict[str, Tensor] = self.decoder(feature)
        return pictures

    def _images(self, feature: Tensor, batch: TensorDict, drawn: Tensor) -> Tensor:
        """Half the squared pixel error, [B, drawn]."""
        pictures = self.decoder(feature.flatten(0, 1))
        total = feature.new_zeros(feature.shape[:2])
        for camera, picture in pictures.items():
            error = picture - batch["target", camera][:, drawn].flatten(0, 1)
            total = total + 0.5 * error.square().sum((1, 2, 3)).unflatten(0, feature.shape[:2])
        return total

"""AGRA: what the encoder has half way should say of every patch what a frozen teacher says (arXiv 2606.12217)

Minus the mean cosine between a projection of the encoder's early features and a teacher's, patch by patch: features
that say where things are, before they are squeezed into one vector. The paper aligns a video model at a third of its
depth with DINOv2; here it is the encoder of every camera, after the convolution ``layer``. The teacher that needs no
weights is a histogram of gradients. ``shuffle`` gives every patch another's features: what still helps then is
regularisation, not what the teacher knows. The encoder's early features are in no tap, so the frames are looked at
again up to there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from worldaction.config import NonNegative
from worldaction.errors import UserError
from worldaction.losses.base import Loss, LossOutput, Shapes, WorldModelLike
from worldaction.losses.teachers import open_teacher
from worldaction.world_model.latent import Latents


@dataclass(frozen=True)
class AlignmentOptions:
    """Options of `Alignment`."""

    scale: NonNegative = 20.0
    """Weight of one minus the cosine."""
    teacher: str = "gradients"
    """gradients, or the local folder of a vision transformer such as DINOv2 (config.json, model.safetensors)."""
    layer: int = 1
    """After which convolution of the encoder."""
    share: float = 0.25
    """Share of the frames of a batch that are aligned."""
    shuffle: bool = False
    """The control: every patch is given another patch's features."""


class Alignment(Loss):
    """One minus the mean cosine between the encoder's early patches and the teacher's."""

    name = "alignment"
    Options = AlignmentOptions
    needs = frozenset()
    encodes = True

    def __init__(self, options: AlignmentOptions, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        if not shapes.cameras:
            raise UserError("loss alignment: the model has no cameras; leave the loss out")
        if options.layer < 1:
            raise UserError(f"loss alignment: layer={options.layer}; give 1 or more")
        self.teacher = open_teacher(options.teacher)
        # each convolution of the encoder has twice the channels of the one before
        channels = shapes.depth * 2 ** (options.layer - 1)
        self.projections = nn.ModuleDict({c: nn.Conv2d(channels, self.teacher.channels, 1) for c in shapes.cameras})

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """See `Loss.forward`."""
        size, time = batch.batch_size
        device = latents.embed.device
        chosen = torch.randperm(time, device=device)[: max(1, round(time * self.options.share))]
        distance = torch.zeros(size, len(chosen), device=device)
        for camera, projection in self.projections.items():
            images = batch["target", camera][:, chosen].flatten(0, 1)
            own = projection(early(model.encoder.streams[camera], images, self.options.layer))
            distance = distance + self._distance(own, images).view(size, -1) / len(self.projections)
        # each chosen frame stands for time / chosen frames, so that the mean over time is unbiased; [B, T]
        value = torch.zeros(size, time, device=device).index_copy(1, chosen, distance * (time / len(chosen)))
        return LossOutput(value, metrics={"cosine": 1.0 - distance.detach().mean()})

    def _distance(self, own: Tensor, images: Tensor) -> Tensor:
        """One minus the mean cosine of each image, [M]."""
        wanted = self.teacher.look(images.float(), own.shape[-1])
        if self.options.shuffle:
            order = torch.rand(len(wanted), own.shape[-1] ** 2, device=own.device).argsort(-1)
            wanted = wanted.flatten(2).gather(2, order.unsqueeze(1).expand(-1, wanted.shape[1], -1)).view_as(wanted)
        return 1.0 - F.cosine_similarity(own.float(), wanted, dim=1).mean((-1, -2))


def early(stream: nn.Module, images: Tensor, layer: int) -> Tensor:
    """What a camera's stream has after a convolution and its activation.

    Args:
        stream: of the encoder.
        images: [M, 3, H, W] in [-0.5, 0.5].
        layer: which convolution, from 1.

    Returns:
        [M, C, s, s].

    Raises:
        UserError: there are fewer.
    """
    seen, x = 0, images
    for module in stream.children():
        if seen == layer and not isinstance(module, nn.ELU):
            return x
        x = module(x)
        seen += isinstance(module, nn.Conv2d)
    raise UserError(f"loss alignment: layer={layer}, but the encoder has {seen} convolutions; give one of them")

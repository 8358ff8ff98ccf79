"""A copy of the encoder that follows it slowly, for losses whose targets must not run away with what predicts them."""

from __future__ import annotations

import weakref

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.losses.base import Shapes
from worldaction.spec import ROBOT
from worldaction.world_model.nets import Encoder


class TargetEncoder(nn.Module):
    """Exponential moving average of the encoder's weights (Grill et al. 2020, BYOL, arXiv 2006.07733, eq. 1).

    It is the encoder's equal when it is first used, and moves a little after every step.
    """

    copied: Tensor

    def __init__(self, shapes: Shapes, *, decay: float) -> None:
        """
        Args:
            shapes: sizes of the model.
            decay: share of itself that it keeps in a step, 0 to 1.
        """
        super().__init__()
        if not 0.0 <= decay <= 1.0:
            raise UserError(f"the decay of a moving average is {decay}; give 0 to 1")
        self.decay, self.seen = decay, shapes.seen
        self.encoder = Encoder(
            shapes.cameras,
            image_size=shapes.image_size,
            depth=shapes.depth,
            patch=shapes.patch,
            size=shapes.seen,
            proprio=shapes.proprio,
        ).requires_grad_(False)
        self.register_buffer("copied", torch.tensor(False))
        # no submodule: the model's encoder is not this one's to save and to move
        self._source: weakref.ref[nn.Module] | None = None

    @torch.no_grad()
    def forward(self, batch: TensorDict, encoder: nn.Module) -> Tensor:
        """The slow embedding of every frame, without the proprioception.

        Args:
            batch: [B, T] frames with targets.
            encoder: the model's.

        Returns:
            [B, T, E - P].
        """
        if self._source is None:
            # after a resume the copy is old, and stays so
            if not self.copied:
                self._move(encoder, 1.0)
            self.copied.fill_(True)
        self._source = weakref.ref(encoder)
        images = {camera: batch["target", camera].flatten(0, 1) for camera in self.encoder.streams}
        embed: Tensor = self.encoder(images, batch["target", ROBOT].flatten(0, 1))
        return embed.unflatten(0, batch.batch_size)[..., : self.seen]

    def follow(self) -> None:
        """Move towards the encoder by one step."""
        source = self._source() if self._source else None
        if source is not None:
            self._move(source, 1.0 - self.decay)

    @torch.no_grad()
    def _move(self, encoder: nn.Module, weight: float) -> None:
        for own, theirs in zip(self.encoder.parameters(), encoder.parameters(), strict=True):
            own.lerp_(theirs, weight)

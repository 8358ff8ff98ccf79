"""What a loss is: the contract between the world model and one idea of what its latents should know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldaction.rssm import Latents
from worldaction.spec import ACTION_MASK, IS_INIT

if TYPE_CHECKING:
    from worldaction.world_model import WorldModel


@dataclass(frozen=True)
class Shapes:
    """Sizes that a loss needs to build its networks."""

    embed: int  # E
    deter: int  # D
    groups: int  # S
    classes: int  # C
    action: int  # A
    proprio: int
    hidden: int  # width of the model's inner layers
    cameras: tuple[str, ...]
    image_size: int
    depth: int  # channels of the first convolution
    patch: int

    @property
    def feature(self) -> int:
        """F = D + S * C."""
        return self.deter + self.groups * self.classes


@dataclass(frozen=True)
class LossOutput:
    """One loss before it is averaged."""

    value: Tensor  # [B, T], or [] for a statistic of the whole batch
    mask: Tensor | None = None  # [B, T] bool, where the value counts; None: everywhere
    metrics: dict[str, Tensor] = field(default_factory=dict)  # scalars, logged as metrics/<loss>/<name>

    def mean(self) -> Tensor:
        """The masked mean, zero where nothing counts."""
        if self.mask is None:
            return self.value.mean()
        # selected, not multiplied: a masked value may be anything, and zero times NaN is NaN
        return torch.where(self.mask, self.value, 0.0).sum() / self.mask.sum().clamp_min(1)


def known_actions(batch: TensorDict) -> Tensor:
    """Between which frames an action lies that somebody took and that is known, [B, T - 1] bool.

    Args:
        batch: [B, T] frames; without `action_mask` all actions are known.
    """
    taken = ~batch[IS_INIT][:, 1:]
    mask = batch.get(ACTION_MASK, None)
    return taken if mask is None else taken & mask[:, :-1]


class Loss(nn.Module, ABC):
    """One dynamics loss. Subclass it in a file of its own; nothing else has to change.

    A subclass defines ``name``, a frozen dataclass ``Options`` whose first field is ``scale``, ``needs`` (which of the
    taps ``embed``, ``belief``, ``state``, ``posterior``, ``prior`` it reads), and `forward`. Masking, averaging,
    scaling and logging are done by the world model. `worldaction.losses.contract` checks all of this.
    """

    name: ClassVar[str]
    Options: ClassVar[type]
    needs: ClassVar[frozenset[str]]
    predicts_actions: ClassVar[bool] = False
    """Losses that predict actions count those of `known_actions` alone, and must pass the noise-observation leak test
    of the contract; their value, or their metric "l1" if they have one, is the mean absolute error per action
    dimension."""

    def __init__(self, options: Any, shapes: Shapes) -> None:
        """
        Args:
            options: an instance of ``Options``.
            shapes: sizes of the model.
        """
        super().__init__()
        self.options = options
        self.shapes = shapes

    @abstractmethod
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        """The loss of every frame.

        Args:
            latents: taps, see `Latents`.
            batch: [B, T] frames with the keys of `worldaction.spec`, plus float images and standardised proprioception
                under ``("target", camera)`` and ``("target", "robot_obs")``.
            model: the world model, for losses that run it forward.
        """

    def after_step(self) -> None:
        """Called after each optimiser step, for instance to move EMA targets."""

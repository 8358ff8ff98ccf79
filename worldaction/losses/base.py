"""What a loss is: the contract between the world model and one idea of what its latents should know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from worldaction.config import ModelSizes
from worldaction.errors import UserError
from worldaction.spec import ACTION_MASK, IS_INIT, PREVIOUS_ACTION
from worldaction.world_model.cores.base import RecurrentCore
from worldaction.world_model.latent import Latents
from worldaction.world_model.nets import Encoder


@dataclass(frozen=True, kw_only=True)
class Shapes(ModelSizes):
    """Sizes that a loss needs to build its networks: the model's, and what its data add.

    `embed` is all of E here: the fused image embedding with the proprioception appended. `deter` is all of the belief,
    with the pose at its end where the model carries one.
    """

    image_size: int
    action: int  # A
    proprio: int  # numbers of proprioception as networks see them

    @property
    def feature(self) -> int:
        """F = D + S * C."""
        return self.deter + self.groups * self.classes

    @property
    def seen(self) -> int:
        """Numbers at the head of the embedding that the encoder computed; behind them is the proprioception as it came.

        A loss that is to teach the encoder looks at these: the pose of the hand alone tells frames and actions apart.
        """
        return self.embed - self.proprio


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

    @classmethod
    def ahead(cls, value: Tensor, mask: Tensor, metrics: dict[str, Tensor] | None = None, *, steps: int) -> LossOutput:
        """The output of a loss that compares a frame with the one `steps` later, which the last frames do not have.

        Args:
            value: [B, T - steps].
            mask: [B, T - steps] bool.
            metrics: scalars.
            steps: frames.
        """
        return cls(F.pad(value, (0, steps)), F.pad(mask, (0, steps)), metrics or {})


# Frames that belong together ------------------------------------------------------------------------------------------


def joined(batch: TensorDict, steps: int = 1) -> Tensor:
    """Which frames lie in one episode with the frame `steps` later, [B, T - steps] bool.

    Args:
        batch: [B, T] frames.
        steps: frames, 1 to T - 1.
    """
    _check_steps(batch, steps)
    return ~batch[IS_INIT][:, 1:].unfold(1, steps, 1).any(-1)


def known_actions(batch: TensorDict, steps: int = 1) -> Tensor:
    """From which frames on `steps` actions lie that somebody took and that are all known, [B, T - steps] bool.

    Args:
        batch: [B, T] frames; without `action_mask` all actions are known.
        steps: actions, 1 to T - 1.
    """
    taken, mask = joined(batch, steps), batch.get(ACTION_MASK, None)
    return taken if mask is None else taken & mask[:, :-1].unfold(1, steps, 1).all(-1)


def actions_between(batch: TensorDict, steps: int = 1) -> Tensor:
    """The actions a_t .. a_{t + steps - 1} that lead from a frame to the one `steps` later, [B, T - steps, steps, A].

    Args:
        batch: [B, T] frames; see `known_actions` for which of the actions are to be believed.
        steps: actions, 1 to T - 1.
    """
    _check_steps(batch, steps)
    # the action that led into t + 1 is the one executed at t
    return batch[PREVIOUS_ACTION][:, 1:].unfold(1, steps, 1).transpose(-1, -2)


def _check_steps(batch: TensorDict, steps: int) -> None:
    time = batch.batch_size[1]
    if not 1 <= steps < time:
        raise UserError(
            f"a loss looks {steps} frames ahead in windows of {time}; give it steps=1 to {time - 1}, or longer windows"
        )


# What a loss may ask of the model -------------------------------------------------------------------------------------


class WorldModelLike(Protocol):
    """The part of a world model that losses may use: its encoder and its recurrent core."""

    @property
    def encoder(self) -> Encoder:
        """Images and proprioception to [..., E]."""
        ...

    @property
    def rssm(self) -> RecurrentCore:
        """For losses that run the model forward; see `RecurrentCore.prior`."""
        ...


@runtime_checkable
class DrawsImages(Protocol):
    """A loss that can draw what the model believes: `WorldModel.decode` asks the first of these."""

    def draw(self, feature: Tensor) -> dict[str, Tensor]:
        """[N, F] to each camera's images, [N, 3, H, W] in [-0.5, 0.5]."""
        ...


# The loss -------------------------------------------------------------------------------------------------------------


class Loss(nn.Module, ABC):
    """One dynamics loss. Subclass it in a file of its own; nothing else has to change.

    A subclass defines ``name``, a frozen dataclass ``Options`` whose first field is ``scale``, ``needs`` (which of the
    taps ``embed``, ``belief``, ``state``, ``posterior``, ``prior`` it reads), and `forward`. Masking, averaging,
    scaling and logging are done by the world model. `worldaction.losses.tools.contract` checks all of this.

    On a GPU a step should never wait for the host: choose with masks, not with boolean indices, and read no values.
    """

    name: ClassVar[str]
    Options: ClassVar[type]
    needs: ClassVar[frozenset[str]]
    predicts_actions: ClassVar[bool] = False
    """Losses that predict actions count those of `known_actions` alone, and must pass the noise-observation leak test
    of the contract; their value, or their metric "l1" if they have one, is the mean absolute error per action
    dimension."""
    encodes: ClassVar[bool] = False
    """Losses that run the model's encoder on ``("target", camera)`` themselves, for what the taps do not show; their
    gradient goes past the embedding, so that no share of it is counted there."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """Keys of the store beyond what every batch holds, such as `scene_obs`."""

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
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModelLike) -> LossOutput:
        """The loss of every frame.

        Args:
            latents: taps, see `Latents`.
            batch: [B, T] frames with the keys of `worldaction.spec`, plus float images and standardised proprioception
                under ``("target", camera)`` and ``("target", "robot_obs")``.
            model: its encoder and core, for losses that run them.
        """

    def after_step(self) -> None:
        """Called after each optimiser step, for instance to move EMA targets."""

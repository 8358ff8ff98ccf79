"""How dreams begin, go on and end: the frozen prior and the success classifier, on batches of plain tensors.

The semantics are those of the simulator and of `agents.imagination`: success is looked at after every action and ends
the dream; otherwise it is cut off at the horizon. A dream is a function of the seed, its name and its actions alone,
so it does not matter which dreams run beside it, or behind which of the three environments.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldaction.errors import UserError
from worldaction.kernels.dream.reference import executed
from worldaction.random import Stream, uniform
from worldaction.success import SuccessClassifier
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel


class Moment(NamedTuple):
    """Where a batch of dreams stands: all that the next step depends on, besides the action."""

    latent: Latent  # [B]
    dream: Tensor  # [B] int64, the dreams' global names, which name their random numbers
    step: Tensor  # [B] int64, actions since the start

    def take(self, rows: Tensor) -> Moment:
        """Some rows of the batch."""
        return Moment(_take(self.latent, rows), self.dream[rows], self.step[rows])

    def replace(self, rows: Tensor, fresh: Moment) -> Moment:
        """The batch with other dreams in some of its rows."""
        belief = self.latent.belief.index_copy(0, rows, fresh.latent.belief)
        code = self.latent.code.index_copy(0, rows, fresh.latent.code)
        dream = self.dream.index_copy(0, rows, fresh.dream)
        return Moment(Latent(belief, code), dream, self.step.index_copy(0, rows, fresh.step))


class Outcome(NamedTuple):
    """What an action led to. Both flags are true where the last action brings success, as in the simulator."""

    moment: Moment  # [B]
    feature: Tensor  # [B, F] of that moment
    terminated: Tensor  # [B] bool, success
    truncated: Tensor  # [B] bool, at the horizon


class Dreams:
    """The dynamics of dreams, and the book of their names."""

    def __init__(
        self,
        model: WorldModel,
        success: SuccessClassifier,
        starts: Latent,
        *,
        horizon: int = 72,
        threshold: float = 0.7,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        """
        Args:
            model: the frozen world model.
            success: the success classifier, in evaluation mode, on the model's device.
            starts: [P] latents among which each dream draws its start.
            horizon: actions after which a dream is cut off (control steps of 1/30 s).
            threshold: probability from which a state counts as success.
            seed: of all random numbers.
            first: name of the first dream. Environments that share a seed (in several processes, say) dream different
                dreams if their names are far enough apart.

        Raises:
            UserError: a number out of range, parts whose sizes do not fit, or a classifier in training mode.
        """
        _check_numbers(horizon, threshold, first)
        _check_parts(model, success, starts)
        self.device = next(model.parameters()).device
        self.starts = Latent(*(part.to(self.device) for part in starts))
        self.model, self.success, self.horizon, self.threshold = model, success, horizon, threshold
        self._first = first
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """Begin again with the first dream of a seed in [0, 2**32)."""
        if not 0 <= seed < 2**32:
            raise UserError(f"seed {seed} is out of range; give one in 0..{2**32 - 1}")
        self._seed, self._next = seed, self._first

    def begin(self, count: int, *, start: int | None = None) -> Moment:
        """The next dreams, under names that no dream of this seed has had.

        Args:
            count: how many, B.
            start: which of the given starts they begin at; drawn for each dream if not given.
        """
        total = len(self.starts.belief)
        if start is not None and not 0 <= start < total:
            raise UserError(f"start {start} does not exist; there are {total}, counted from 0")
        dream = torch.arange(self._next, self._next + count, device=self.device)
        self._next += count
        if start is None:
            draw = uniform(self._seed, Stream.SCENE, dream, 0, 1).squeeze(-1)
            # a product in float32 may round up to the next integer
            which = (draw * total).long().clamp_max(total - 1)
        else:
            which = torch.full_like(dream, start)
        return Moment(_take(self.starts, which), dream, torch.zeros_like(dream))

    @torch.no_grad()
    def step(self, moment: Moment, action: Tensor) -> Outcome:
        """One control step of every dream.

        Args:
            moment: [B].
            action: [B, A], carried out as `executed` says.

        Raises:
            UserError: the actions have another shape, or are not finite.
        """
        layout = self.model.config.layout
        if action.shape != (len(moment.dream), layout.action):
            wanted = [len(moment.dream), layout.action]
            raise UserError(f"actions of shape {list(action.shape)} do not fit the dreams; give {wanted}")
        if not bool(action.isfinite().all()):
            raise UserError(f"action {action[~action.isfinite().all(-1)][0].tolist()} is not finite; check the policy")
        draws = uniform(self._seed, Stream.PRIOR, moment.dream, moment.step, moment.latent.code.shape[-1])
        action = executed(action.to(self.device, moment.latent.belief.dtype), layout.binary)
        after = Moment(self.model.prior(moment.latent, action, draws), moment.dream, moment.step + 1)
        feature = self.feature(after)
        terminated = self.success.probability(feature) >= self.threshold
        return Outcome(after, feature, terminated, after.step >= self.horizon)

    def feature(self, moment: Moment) -> Tensor:
        """What a policy sees, [B, F]: beliefs and one-hots."""
        return self.model.feature(moment.latent)

    @torch.no_grad()
    def draw(self, feature: Tensor) -> NDArray[np.uint8]:
        """The decoder's picture of each dream: the cameras side by side, [B, H, cameras * W, 3].

        Args:
            feature: [B, F].

        Raises:
            UserError: the model has no decoder.
        """
        pictures = self.model.decode(feature)
        return torch.cat([pictures[camera] for camera in self.model.config.cameras], -2).cpu().numpy()


def check_render_mode(render_mode: str | None, model: WorldModel) -> None:
    """Refuse what cannot be drawn, before the first dream rather than after the last."""
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"render_mode {render_mode!r} is not supported; use None or 'rgb_array'")
    if render_mode and not model.draws_images():
        raise UserError(
            f"render_mode {render_mode!r} needs a decoder, and this model has none; "
            "train one with the loss `reconstruction`, and load it with WorldModel.load(folder)"
        )


def _take(latent: Latent, rows: Tensor) -> Latent:
    return Latent(latent.belief[rows], latent.code[rows])


def _check_numbers(horizon: int, threshold: float, first: int) -> None:
    if horizon < 1:
        raise UserError(f"horizon {horizon} must be at least 1 step")
    if not 0.0 < threshold <= 1.0:
        raise UserError(f"threshold {threshold} is no probability of success; give one in (0, 1]")
    if first < 0:
        raise UserError(f"first {first} names no dream; names count from 0")


def _check_parts(model: WorldModel, success: SuccessClassifier, starts: Latent) -> None:
    sizes = model.config
    belief, code = starts
    if (
        belief.ndim != 2
        or not len(belief)
        or belief.shape[1] != model.rssm.deter
        or code.shape != (len(belief), sizes.groups)
    ):
        raise UserError(
            f"starts of shapes {list(belief.shape)} and {list(code.shape)} do not fit the model; "
            f"give at least one row of [P, {model.rssm.deter}] and [P, {sizes.groups}]"
        )
    if success.config["feature_size"] != model.feature_size:
        raise UserError(
            f"the success classifier reads features of size {success.config['feature_size']}, "
            f"but this model's have {model.feature_size}; train one on this model"
        )
    if success.training:
        raise UserError("the success classifier is in training mode, where it is random; call .eval() on it")

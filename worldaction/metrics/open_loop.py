"""Open-loop imagination against recorded play: how far ahead can the model be trusted?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from worldaction.latents import EpisodeLatents, encode, imagine_recorded
from worldaction.metrics.images import psnr, ssim
from worldaction.metrics.moving import average_picture, moving_pixels
from worldaction.metrics.probes import ridge
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel

NEAR: Final = 8
"""Frames ahead that count as near: two chunks of actions."""
SEEN: Final = "seen"
IMAGINED_NEAR: Final = f"imagined_{NEAR}"
IMAGINED_LATE: Final = "imagined_late"
PENALTY: Final = 30.0
"""Of the squared weights of linear probes."""
EVERY: Final = 16
"""Of the frames of training windows, which follow each other closely, one in so many makes the average picture."""


class Band(NamedTuple):
    """Latents that are equally far from what was last seen, beside the frames that they stand for."""

    feature: Tensor  # [M, T, F]
    frame: Tensor  # [M, T] int64, into the store
    span: slice  # of the window


@dataclass(frozen=True)
class OpenLoop:
    """Windows seen up to the context and imagined after it."""

    episodes: EpisodeLatents  # M windows of context + H frames, filtered
    imagined: Latent  # [M, context + H, ...], equal to the filtered latents up to the context
    context: int

    def frames_after(self) -> Tensor:
        """[M, H] indices into the store of the frames that were imagined."""
        return self.episodes.frame[:, self.context :]

    def bands(self, model: WorldModel, *, settled: int | None = None) -> dict[str, Band]:
        """What is seen, what is imagined `NEAR` frames ahead at most, and the rest; without those that are empty.

        Args:
            model: whose latents these are.
            settled: first frame that counts as seen; by default half the context, for the first looks are poor.
        """
        filtered = model.feature(Latent(*(part[0] for part in self.episodes.latent)))
        imagined = model.feature(self.imagined)
        middle = self.context + NEAR
        parts = {
            SEEN: (filtered, slice(self.context // 2 if settled is None else settled, None)),
            IMAGINED_NEAR: (imagined, slice(self.context, middle)),
            IMAGINED_LATE: (imagined, slice(middle, None)),
        }
        bands = {
            name: Band(feature[:, span], self.episodes.frame[:, span], span) for name, (feature, span) in parts.items()
        }
        return {name: band for name, band in bands.items() if band.frame.shape[1]}


@dataclass(frozen=True)
class Rolls:
    """A world model on play that it was trained on, which probes are fitted on, and on play that it was not."""

    model: WorldModel
    frames: TensorDictBase  # [N], of the play store
    training: OpenLoop
    validation: OpenLoop
    dreams: OpenLoop | None = None
    """Episodes from their first frame on, the only one that is seen, as in a dream; None if all are too short."""

    @cached_property
    def fitted(self) -> Band:
        """Filtered latents of training play."""
        return self.training.bands(self.model, settled=0)[SEEN]

    @cached_property
    def read(self) -> dict[str, Band]:
        """Latents of validation play."""
        return self.validation.bands(self.model)

    def recorded(self, key: str, frame: Tensor) -> Tensor:
        """What the store holds for some frames [...], as [..., P], where the latents are."""
        return self.frames[key][frame].to(self.fitted.feature.device)

    def probe(self, key: str) -> Tensor:
        """Weights [F + 1, P] of a linear probe of something that the store holds."""
        target = self.recorded(key, self.fitted.frame.flatten())
        return ridge(self.fitted.feature.flatten(0, 1), target, penalty=PENALTY)


@torch.no_grad()
def open_loop(
    model: WorldModel, frames: TensorDictBase, starts: Tensor, *, context: int, horizon: int, seed: int
) -> OpenLoop:
    """Filter `context` frames of each window, then imagine the rest under the recorded actions.

    Args:
        model: the frozen world model.
        frames: [N] frames of a play store.
        starts: [M] first frames of windows that lie inside an episode.
        context: frames that are seen.
        horizon: H, frames that are imagined.
        seed: of the samples.
    """
    ranges = [(int(s), int(s) + context + horizon) for s in starts]
    episodes = encode(model, frames, ranges, resamples=1, seed=seed)
    begin = torch.full((1, len(ranges)), context - 1)
    imagined, _ = imagine_recorded(model, frames, episodes, begin=begin, seed=seed)
    return OpenLoop(episodes, Latent(imagined.belief[0], imagined.code[0]), context)


@torch.no_grad()
def image_fidelity(
    model: WorldModel,
    frames: TensorDictBase,
    result: OpenLoop,
    *,
    training: OpenLoop | None = None,
) -> dict[str, dict[str, Any]]:
    """PSNR (dB) and SSIM of imagined images, averaged over windows.

    Args:
        model: with a decoder.
        frames: [N] frames of a play store.
        result: see `open_loop`.
        training: windows of training play, of which the average picture is made; without it "moving" is left out.

    Returns:
        "psnr" and "ssim" to camera to [H], and "moving" to camera to what `moving_pixels` says.
    """
    scores: dict[str, dict[str, Any]] = {name: {} for name in ("psnr", "ssim", *(["moving"] if training else []))}
    index = result.frames_after()
    feature = model.feature(Latent(*(part[:, result.context :] for part in result.imagined))).flatten(0, 1)
    drawn = model.decode(feature)
    for camera in model.config.cameras:
        pictures = drawn[camera].cpu()
        true = frames[camera][index.flatten()]
        scores["psnr"][camera] = psnr(pictures, true).unflatten(0, index.shape).mean(0)
        if pictures.shape[-2] >= 11:
            scores["ssim"][camera] = ssim(pictures, true).unflatten(0, index.shape).mean(0)
        if training:
            last = frames[camera][result.episodes.frame[:, result.context - 1]]
            usual = average_picture(frames[camera][training.episodes.frame.flatten()[::EVERY]])
            imagined, truth = (part.unflatten(0, index.shape) for part in (pictures, true))
            scores["moving"][camera] = moving_pixels(imagined, truth, last, usual)
    return scores

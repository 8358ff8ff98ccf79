"""Latents of recorded episodes: what behaviour cloning and the success classifier learn from.

Every episode is filtered from its first frame with the same burn-in as a dream or an episode in the simulator, so that
training and use see latents of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

from worldaction.random import Stream, uniform
from worldaction.spec import ACTION, PREVIOUS_ACTION
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel


@dataclass(frozen=True)
class EpisodeLatents:
    """Filtered episodes, padded to the longest."""

    latent: Latent  # [R, M, T, ...], R posterior samples of M episodes
    mask: Tensor  # [M, T] bool, where there is a frame
    frame: Tensor  # [M, T] int64, index of the frame in the store; the last one repeated in the padding

    def __len__(self) -> int:
        return len(self.mask)


def embed_frames(model: WorldModel, frames: TensorDictBase, index: Tensor, *, chunk: int = 256) -> Tensor:
    """Embeddings of some frames of a store.

    Args:
        model: the world model.
        frames: [N] memory-mapped frames.
        index: [M] int64.
        chunk: frames encoded at a time; more were no faster on a CPU.

    Returns:
        [M, E].
    """
    device = model.proprio_mean.device
    parts = [{key: frames[key][part].to(device) for key in model.config.observed} for part in index.split(chunk)]
    return torch.cat([model.embed(part) for part in parts])


@torch.no_grad()
def encode(
    model: WorldModel, frames: TensorDictBase, ranges: Sequence[tuple[int, int]], *, resamples: int, seed: int
) -> EpisodeLatents:
    """Filter episodes given as frame ranges (start, stop), stop exclusive.

    Args:
        model: the frozen world model.
        frames: [N] frames of a play store.
        ranges: M episodes.
        resamples: R independent posterior samples of each.
        seed: of those samples.
    """
    starts = torch.tensor([start for start, _ in ranges])
    lengths = torch.tensor([stop - start for start, stop in ranges])
    time = int(lengths.max())
    # [M, T]
    steps = torch.arange(time)
    mask = steps < lengths[:, None]
    frame = starts[:, None] + torch.minimum(steps, lengths[:, None] - 1)
    flat, where = frame.flatten().unique(return_inverse=True)
    embed = embed_frames(model, frames, flat)[where].unflatten(0, (len(ranges), time))
    previous = frames[PREVIOUS_ACTION][frame.flatten()].unflatten(0, (len(ranges), time)).to(embed.device)
    rows = _rows(frame, resamples, len(frames)).to(embed.device)
    latent = _filter(model, embed.repeat(resamples, 1, 1), previous.repeat(resamples, 1, 1), rows, seed)
    shaped = Latent(*(part.unflatten(0, (resamples, len(ranges))) for part in latent))
    return EpisodeLatents(shaped, mask, frame)


def _rows(frame: Tensor, resamples: int, total: int) -> Tensor:
    """Names [R * M] for the random numbers, after the first frame: an episode's samples do not depend on the others."""
    return (torch.arange(resamples)[:, None] * total + frame[:, 0]).flatten()


def _filter(model: WorldModel, embed: Tensor, previous_action: Tensor, rows: Tensor, seed: int) -> Latent:
    """Posterior of padded episodes [B, T, E], as latents [B, T, ...]."""
    latent = model.start(embed[:, 0], seed=seed, rows=rows)
    found = [latent]
    for step in range(1, embed.shape[1]):
        draws = uniform(seed, Stream.POSTERIOR, rows, step, model.config.groups)
        latent = model.posterior(latent, previous_action[:, step], embed[:, step], draws)
        found.append(latent)
    return Latent(*(torch.stack(parts, 1) for parts in zip(*found, strict=True)))


@torch.no_grad()
def imagine_recorded(
    model: WorldModel, frames: TensorDictBase, episodes: EpisodeLatents, *, begin: Tensor, seed: int
) -> tuple[Latent, Tensor]:
    """Open-loop continuation of each episode from one of its frames, under the recorded actions.

    Args:
        model: the frozen world model.
        frames: [N] frames of a play store.
        episodes: R x M filtered episodes.
        begin: [R, M] int64, the frame from which imagination takes over.
        seed: of the imagination.

    Returns:
        imagined latents [R, M, T, ...], and a mask [R, M, T] of where they are imagined (later than `begin`).
    """
    resamples, count, time = episodes.latent.belief.shape[:3]
    actions = frames[ACTION][episodes.frame.flatten()].unflatten(0, (count, time))
    flat = Latent(*(part.flatten(0, 1) for part in episodes.latent))
    actions = actions.repeat(resamples, 1, 1).to(flat.belief.device)
    first = begin.flatten().to(flat.belief.device)
    rows = _rows(episodes.frame, resamples, len(frames)).to(first.device)
    latent = Latent(flat.belief[:, 0], flat.code[:, 0])
    found = [latent]
    for step in range(1, time):
        draws = uniform(seed, Stream.PRIOR, rows, step, model.config.groups)
        dreamed = model.prior(latent, actions[:, step - 1], draws)
        real = (step <= first)[:, None]
        latent = Latent(
            torch.where(real, flat.belief[:, step], dreamed.belief), torch.where(real, flat.code[:, step], dreamed.code)
        )
        found.append(latent)
    imagined = Latent(*(torch.stack(parts, 1).unflatten(0, (resamples, count)) for parts in zip(*found, strict=True)))
    later = torch.arange(time, device=first.device) > first[:, None]
    mask = later.unflatten(0, (resamples, count)) & episodes.mask.to(first.device)
    return imagined, mask

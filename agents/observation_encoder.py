"""What a policy sees without a world model: the present frame and nothing else, in a world model's place.

`agents.policy.Policy` asks a world model to embed frames and to filter them. Here filtering forgets everything but the
present embedding, so that policies with and without a world model act by the same code: equal chunks, equal noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.spec import ROBOT, Layout
from worldaction.world_model.latent import Latent
from worldaction.world_model.nets import Encoder, proprio, to_float


@dataclass(frozen=True)
class ObservationConfig:
    """What is seen of a frame."""

    layout: Layout
    cameras: tuple[str, ...] = ()
    vectors: tuple[str, ...] = (ROBOT,)
    """Vectors of the frame, such as robot_obs; scene_obs is privileged."""
    image_size: int = 0
    depth: int = 0
    """Channels of the first convolution; as patch and embed, of the cameras' encoder alone."""
    patch: int = 1
    embed: int = 0
    groups: int = 0
    """Random numbers that filtering takes: none."""

    @property
    def observed(self) -> tuple[str, ...]:
        """Keys of the frame."""
        return (*self.cameras, *self.vectors)

    @property
    def numbers(self) -> int:
        """How many numbers the vectors have together, as networks see them."""
        return sum(self.layout.proprio if key == ROBOT else self.layout.vectors[key] for key in self.vectors)


class ObservationEncoder(nn.Module):
    """The present frame as a feature: standardised numbers, with an encoder of the cameras' images where there are any.

    The buffers bear the world model's names, because they stand for the same thing.
    """

    proprio_mean: Tensor
    proprio_std: Tensor

    def __init__(self, config: ObservationConfig) -> None:
        super().__init__()
        if not config.observed:
            raise UserError("nothing is to be seen; name at least one camera or vector")
        self.config = config
        self.encoder = _encoder(config) if config.cameras else None
        self.feature_size = self.encoder.size if self.encoder is not None else config.numbers
        self.register_buffer("proprio_mean", torch.zeros(config.numbers))
        self.register_buffer("proprio_std", torch.ones(config.numbers))

    def standardise(self, frames: Mapping[str, Tensor]) -> None:
        """Set the scale of the numbers from data.

        Args:
            frames: the vectors of frames that are learned from, each [M, ...].
        """
        if self.config.vectors:
            values = self._numbers(frames)
            self.proprio_mean.copy_(values.mean(0))
            # as the world model's: what hardly moves must not be blown up
            self.proprio_std.copy_(values.std(0, correction=0).clamp_min(1e-2))

    def embed(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Encode frames.

        Args:
            observation: each camera uint8 [..., H, W, 3] and each vector [..., P].

        Returns:
            [..., F].
        """
        lead = self.check(observation)
        flat = {
            key: observation[key].flatten(0, len(lead) - 1) if lead else observation[key][None] for key in self.seen
        }
        count = len(next(iter(flat.values())))
        body = self.proprio_mean.new_zeros(count, 0)
        if self.config.vectors:
            body = (self._numbers(flat) - self.proprio_mean) / self.proprio_std
        if self.encoder is not None:
            body = self.encoder({camera: to_float(flat[camera]) for camera in self.config.cameras}, body)
        return body.reshape(*lead, -1)

    @property
    def seen(self) -> Sequence[str]:
        """Keys of the frame that are looked at."""
        return self.config.observed

    def check(self, observation: Mapping[str, Tensor]) -> torch.Size:
        """Refuse frames that lack something, or that have images of another size; the leading axes."""
        if missing := [key for key in self.seen if key not in observation]:
            raise UserError(f"observation has no {missing[0]!r}, which this policy sees; it has {sorted(observation)}")
        side, cameras = self.config.image_size, self.config.cameras
        for camera in cameras:
            if tuple(observation[camera].shape[-3:]) != (side, side, 3):
                raise UserError(f"{camera!r} is {list(observation[camera].shape)}; give [..., {side}, {side}, 3]")
        return observation[cameras[0]].shape[:-3] if cameras else observation[self.seen[0]].shape[:-1]

    def start(self, embed: Tensor, *, seed: int, rows: Tensor) -> Latent:
        """What is known after an episode's first frame [B, E]: that frame."""
        return Latent(embed, torch.zeros(len(embed), 0, dtype=torch.uint8, device=embed.device))

    def posterior(self, latent: Latent, previous_action: Tensor, embed: Tensor, uniform: Tensor) -> Latent:
        """What is known after one more frame [B, E]: that frame."""
        return Latent(embed, latent.code)

    def feature(self, latent: Latent) -> Tensor:
        """[..., F]."""
        return latent.belief

    def _numbers(self, frames: Mapping[str, Tensor]) -> Tensor:
        """The vectors side by side, angles as rotations, [M, numbers]."""
        layout = self.config.layout
        parts = [
            proprio(frames[key].float(), layout.euler) if key == ROBOT else frames[key] for key in self.config.vectors
        ]
        return torch.cat([part.float() for part in parts], -1)


def _encoder(config: ObservationConfig) -> Encoder:
    return Encoder(
        config.cameras,
        image_size=config.image_size,
        depth=config.depth,
        patch=config.patch,
        size=config.embed,
        proprio=config.numbers,
    )

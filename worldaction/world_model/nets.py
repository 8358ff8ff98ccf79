"""Networks that see and draw images, and the small blocks that the rest is built of.

Two image stacks share one interface. ``patch == 1`` is DreamerV2's (four 4x4 convolutions of stride 2, deconvolutions
of 5, 5, 6, 6), as in LUMOS and DiWA, for 64x64 images. ``patch > 1`` folds patches into channels first: several times
cheaper on a CPU at small sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.spec import CALVIN
from worldaction.world_model.convolution import Deconvolution, Flatten, PatchConvolution


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with layer norm and ELU between them; the last one is bare.

    Args:
        sizes: input, hidden ..., output.
    """
    layers: list[nn.Module] = []
    for inner, outer in pairwise(sizes[:-1]):
        layers += [nn.Linear(inner, outer), nn.LayerNorm(outer), nn.ELU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def proprio(robot_obs: Tensor, euler: int | None = CALVIN.euler) -> Tensor:
    """Robot observation with its Euler angles replaced by two columns of the rotation matrix, which have no jumps.

    Zhou et al. 2019, "On the continuity of rotation representations"; DiWA's input.

    Args:
        robot_obs: [..., P], of CALVIN [..., 15].
        euler: where three angles of R = Rz Ry Rx (rad) begin; None if there are none, and nothing is replaced.

    Returns:
        [..., P + 3], of CALVIN [..., 18]; the same numbers if there are no angles.
    """
    if euler is None:
        return robot_obs
    angles = robot_obs[..., euler : euler + 3]
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rotation = torch.stack(
        [cz * cy, sz * cy, -sy, cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx],
        -1,
    )
    return torch.cat([robot_obs[..., :euler], rotation, robot_obs[..., euler + 3 :]], -1)


def to_float(image: Tensor) -> Tensor:
    """uint8 images [..., H, W, 3] to float [..., 3, H, W] in [-0.5, 0.5]."""
    return image.movedim(-1, -3).float().div_(255.0).sub_(0.5)


def to_uint8(image: Tensor) -> Tensor:
    """Float images [..., 3, H, W] in [-0.5, 0.5] to uint8 [..., H, W, 3]."""
    return ((image + 0.5).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).movedim(-3, -1)


def _need_64(image_size: int) -> None:
    if image_size != 64:
        raise UserError(
            f"image size {image_size} does not fit patch 1, whose convolutions need 64; set patch to 2 or more"
        )


def _dreamer_encoder(image_size: int, depth: int) -> tuple[nn.Sequential, int]:
    _need_64(image_size)
    channels = [3, depth, 2 * depth, 4 * depth, 8 * depth]
    layers: list[nn.Module] = []
    for inner, outer in pairwise(channels):
        layers += [nn.Conv2d(inner, outer, 4, 2), nn.ELU(inplace=True)]
    return nn.Sequential(*layers, Flatten()), 8 * depth * 2 * 2


def _dreamer_decoder(inputs: int, image_size: int, depth: int) -> nn.Sequential:
    _need_64(image_size)
    layers: list[nn.Module] = [nn.Linear(inputs, 32 * depth), nn.Unflatten(-1, (32 * depth, 1, 1))]
    channels, kernels = [32 * depth, 4 * depth, 2 * depth, depth, 3], [5, 5, 6, 6]
    for inner, outer, kernel in zip(channels[:-1], channels[1:], kernels, strict=True):
        layers += [Deconvolution(inner, outer, kernel), nn.ELU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _halvings(image_size: int, patch: int) -> int:
    """How often a folded image is halved on its way to 4x4."""
    side, halvings = image_size // max(patch, 1), 0
    while side > 4 and side % 2 == 0:
        side, halvings = side // 2, halvings + 1
    if patch < 1 or image_size % patch or side != 4 or halvings == 0:
        raise UserError(f"image size {image_size} does not fit patch {patch}; it must be patch times 8, 16, 32, ...")
    return halvings


def _patch_encoder(image_size: int, depth: int, patch: int) -> tuple[nn.Sequential, int]:
    # the first place is empty: saved models know the layers by their places
    layers: list[nn.Module] = [nn.Identity(), PatchConvolution(3, depth, patch), nn.ELU(inplace=True)]
    channels = depth
    for _ in range(_halvings(image_size, patch) - 1):
        layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.ELU(inplace=True)]
        channels *= 2
    return nn.Sequential(*layers, Flatten()), channels * 16


def _patch_decoder(inputs: int, image_size: int, depth: int, patch: int) -> nn.Sequential:
    halvings = _halvings(image_size, patch)
    channels = depth * 2 ** (halvings - 1)
    layers: list[nn.Module] = [
        nn.Linear(inputs, channels * 16),
        nn.Unflatten(-1, (channels, 4, 4)),
        nn.ELU(inplace=True),
    ]
    for _ in range(halvings - 1):
        layers += [nn.Conv2d(channels, 2 * channels, 3, 1, 1), nn.PixelShuffle(2), nn.ELU(inplace=True)]
        channels //= 2
    # the last doubling and the unfolding of the patches in one shuffle
    scale = 2 * patch
    return nn.Sequential(*layers, nn.Conv2d(channels, 3 * scale**2, 3, 1, 1), nn.PixelShuffle(scale))


class Encoder(nn.Module):
    """Cameras and proprioception to one embedding: a stream per camera, fused, with the proprioception appended.

    Without cameras the proprioception itself is what is fused.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        *,
        image_size: int,
        depth: int,
        patch: int,
        size: int,
        proprio: int = CALVIN.proprio,
    ) -> None:
        """
        Args:
            cameras: names of the cameras, in order.
            image_size: side of the square images.
            depth: channels of the first convolution.
            patch: side of the patches folded into channels; 1 is DreamerV2's stack.
            size: width of the fused image embedding.
            proprio: numbers of proprioception.
        """
        super().__init__()
        self.streams = nn.ModuleDict()
        flat = 0
        for camera in cameras:
            stream, width = (
                _dreamer_encoder(image_size, depth) if patch == 1 else _patch_encoder(image_size, depth, patch)
            )
            self.streams[camera] = stream
            flat += width
        self.fuse = nn.Sequential(nn.Linear(flat or proprio, size), nn.LayerNorm(size), nn.ELU(inplace=True))
        self.size = size + proprio

    def forward(self, images: dict[str, Tensor], proprioception: Tensor) -> Tensor:
        """
        Args:
            images: camera to float [M, 3, H, W].
            proprioception: [M, P], standardised.

        Returns:
            [M, E].
        """
        seen = [stream(images[camera]) for camera, stream in self.streams.items()] or [proprioception]
        return torch.cat([self.fuse(torch.cat(seen, -1)), proprioception], -1)


class Decoder(nn.Module):
    """Latent features to the cameras' images."""

    def __init__(self, cameras: Sequence[str], *, inputs: int, image_size: int, depth: int, patch: int) -> None:
        """
        Args:
            cameras: names of the cameras.
            inputs: size F of the latent feature.
            image_size: side of the square images.
            depth: channels of the last convolution.
            patch: as for `Encoder`.
        """
        super().__init__()
        self.streams = nn.ModuleDict()
        for camera in cameras:
            self.streams[camera] = (
                _dreamer_decoder(inputs, image_size, depth)
                if patch == 1
                else _patch_decoder(inputs, image_size, depth, patch)
            )

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        """
        Args:
            feature: [M, F].

        Returns:
            camera to float [M, 3, H, W], in [-0.5, 0.5] where the model is right.
        """
        return {camera: stream(feature) for camera, stream in self.streams.items()}

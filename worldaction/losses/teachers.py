"""Frozen encoders of images whose features, one vector a patch, others are aligned with."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json

ORIENTATIONS = 9
"""Bins of half a turn (Dalal and Triggs 2005)."""
PATCHES = 16
"""Patches along a side that a transformer is shown at most: DINOv2 would take 37 x 37 of an image of 64 pixels."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Teacher(NamedTuple):
    """Features of images."""

    channels: int
    look: Callable[[Tensor, int], Tensor]
    """Images [M, 3, H, W] in [-0.5, 0.5] and the side s of a grid to features [M, channels, s, s]."""


def open_teacher(name: str) -> Teacher:
    """A teacher by name.

    Args:
        name: gradients, which needs no weights; or the folder of a vision transformer of the `transformers` package,
            such as DINOv2 or DINOv3.

    Raises:
        UserError: it is neither, or the package is not installed.
    """
    return Teacher(3 * ORIENTATIONS, gradients) if name == "gradients" else foundation(Path(name))


def gradients(images: Tensor, side: int) -> Tensor:
    """Histograms of oriented gradients, which MaskFeat found to teach as well as DINO (Wei et al. 2021, 2112.09133).

    Args:
        images: [M, 3, H, W] in [-0.5, 0.5].
        side: s, cells along a side.

    Returns:
        [M, 27, s, s], of unit length in every cell that is not flat.
    """
    height, width = images.shape[-2:]
    right = F.pad(images[..., :, 2:] - images[..., :, :-2], (1, 1, 0, 0))
    down = F.pad(images[..., 2:, :] - images[..., :-2, :], (0, 0, 1, 1))
    size = (right.square() + down.square()).sqrt()
    # a contour has no sign, so half a turn is a whole one; in bins, [M, 3, H, W]
    place = (torch.atan2(down, right) / math.pi % 1.0 * ORIENTATIONS).clamp_max(ORIENTATIONS - 1e-3)
    lower, above = place.long(), place.frac() * size
    rows, columns = (torch.arange(n, device=images.device) * side // n for n in (height, width))
    # [H, W]
    cell = rows[:, None] * side + columns
    histogram = size.new_zeros(*size.shape[:2], ORIENTATIONS * side**2)
    # each pixel votes for the two bins beside it
    for number, votes in ((lower, size - above), ((lower + 1) % ORIENTATIONS, above)):
        histogram.scatter_add_(-1, (number * side**2 + cell).flatten(2), votes.flatten(2))
    cells = histogram.view(len(images), -1, side, side)
    return F.normalize(cells, dim=1)


# Foundation encoders --------------------------------------------------------------------------------------------------


def foundation(folder: Path) -> Teacher:
    """A vision transformer with patches, from a local folder of the `transformers` package; nothing is downloaded.

    Args:
        folder: holds config.json and model.safetensors.

    Raises:
        UserError: the folder holds no such model, or the package is not installed.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).exists():
            raise UserError(f"loss alignment: teacher={folder} has no {name}; give a model's folder, or gradients")
    config = read_json(folder / "config.json")
    sizes = [config.get(name) for name in ("hidden_size", "patch_size", "image_size")]
    if not all(isinstance(size, int) for size in sizes):
        raise UserError(
            f"loss alignment: {folder / 'config.json'} is of no vision transformer; give DINOv2's or its like"
        )
    channels, patch, size = (int(value) for value in sizes)
    return Teacher(channels, _Foundation(_load(folder), patch=patch, side=min(size // patch, PATCHES)))


def _load(folder: Path) -> nn.Module:
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f"loss alignment: teacher={folder} needs transformers ({error}); pip install transformers"
        ) from None
    model = library.AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    frozen: nn.Module = model.eval().requires_grad_(False)
    return frozen


class _Foundation:
    """Patch features of a transformer; no module, so that its weights are in no checkpoint."""

    def __init__(self, model: nn.Module, *, patch: int, side: int) -> None:
        self.model, self.side, self.size = model, side, side * patch
        # [2, 3, 1, 1]
        self.scale = torch.tensor([IMAGENET_MEAN, IMAGENET_STD])[..., None, None]

    def __call__(self, images: Tensor, side: int) -> Tensor:
        """See `Teacher.look`."""
        self.model.to(images.device)
        self.scale = self.scale.to(images)
        mean, std = self.scale
        large = F.interpolate(images + 0.5, size=(self.size, self.size), mode="bilinear", antialias=True)
        with torch.no_grad():
            hidden = self.model(pixel_values=(large - mean) / std).last_hidden_state
        # class and register tokens come first; [M, s * s, C] to [M, C, s, s]
        patches = hidden[:, -(self.side**2) :].transpose(1, 2).unflatten(-1, (self.side, self.side))
        return F.interpolate(patches.float(), size=(side, side), mode="bilinear", antialias=True)

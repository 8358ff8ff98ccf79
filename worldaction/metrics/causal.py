"""Does the belief depend on what matters? One patch of a picture is changed at a time (occlusion sensitivity, Zeiler
and Fergus 2014, arXiv 1311.2901), and patches that show the scene's state are set against the others, as in the ratio
of foreground to background of AGRA (arXiv 2606.12217).

Three choices were made by trying:

- Every patch is shifted by the same number of grey levels. AGRA puts a patch's mean in its place, which changes a
  background that never varies not at all, so that any model seems to mind the objects alone. Noise is filtered out.
- What is compared is the distribution of the code after the first look, before anything is drawn from it. All that is
  imagined starts there; and in imagined futures the effect of a patch drowns in that of one code drawn otherwise.
- No masks are asked for, which recorded data do not have: where the scene shows is found by a linear regression of the
  patches' colours on its state. Movers that have nothing to do with the scene are background, as they should be.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from worldaction.metrics.open_loop import PENALTY, Rolls
from worldaction.metrics.probes import predict, ridge
from worldaction.metrics.state_probes import probed
from worldaction.spec import CALVIN, GRIPPER, SCENE, SCENE_FIELDS
from worldaction.world_model.model import WorldModel

WINDOWS: Final = 64
"""Of those given, the ones of which a frame is changed."""
EVERY: Final = 4
"""Of the frames on which it is learned where the scene shows, one of so many is looked at."""
GRID: Final = 8
"""Patches along a side."""
SHIFT: Final = 64
"""Grey levels by which a patch is shifted: up, or down where up is out of range."""


@torch.no_grad()
def causal_sensitivity(rolls: Rolls) -> dict[str, Any]:
    """How much the belief changes with each patch of a picture, and whether those are the patches that show the scene.

    Args:
        rolls: the world model on play.

    Returns:
        camera to "effect" (mean over patches of the total variation distance between the codes' distributions, averaged
        over groups, 0 to 1), "spearman" (over patches, of their effect and of how much of the scene they show, -1 to 1)
        and "ratio" (of the effect of the eighth of patches that show most to that of the half that shows least); or
        "skipped", why there is nothing.
    """
    layout, cameras = rolls.model.config.layout, rolls.model.config.cameras
    if not cameras or not probed(layout):
        return {"skipped": "there are no pictures to change" if not cameras else "there is no state that they show"}
    return {camera: _of_camera(rolls, camera) for camera in cameras}


def _of_camera(rolls: Rolls, camera: str) -> dict[str, Any]:
    if camera == GRIPPER:
        return {"skipped": "this camera is in the hand: no patch shows the same place twice"}
    frame = rolls.validation.episodes.frame[:WINDOWS, rolls.validation.context - 1]
    grid = min(GRID, rolls.model.config.image_size)
    effect = _effect(rolls, camera, frame, grid=grid).mean(0).cpu()
    shown = _shown(rolls, camera, grid=grid)
    order = shown.argsort()
    most, least = effect[order[-max(1, len(order) // 8) :]].mean(), effect[order[: len(order) // 2]].mean()
    return {
        "effect": float(effect.mean()),
        "spearman": float(rank_correlation(effect, shown)),
        "ratio": float(most / least) if least > 0 else float("nan"),
    }


def _effect(rolls: Rolls, camera: str, frame: Tensor, *, grid: int) -> Tensor:
    """Change of the belief [M, P] with each patch of the frames [M]."""
    model, image = rolls.model, rolls.frames[camera][frame]
    # [M, 1 + P, H, W, 3], the first as it is
    pictures = torch.cat([image[:, None], shifted(image, grid=grid, by=SHIFT)], 1)
    found = []
    for number, copies in zip(frame.tolist(), pictures, strict=True):
        seen = {key: rolls.frames[key][number].expand(len(copies), *rolls.frames[key].shape[1:]) for key in
                model.config.observed} | {camera: copies}  # fmt: skip
        device = model.proprio_mean.device
        probability = first_look(model, model.embed({key: value.to(device) for key, value in seen.items()}))
        # total variation distance of each group, [P, S]
        distance = (probability[1:] - probability[:1]).abs().sum(-1) / 2
        found.append(distance.mean(-1))
    return torch.stack(found)


def first_look(model: WorldModel, embed: Tensor) -> Tensor:
    """Probabilities of the code [B, S, C] after one look [B, E] from the empty state, in which nothing is random."""
    null = embed.new_tensor(model.config.layout.null_action).expand(len(embed), 1, -1)
    begins = torch.ones(len(embed), 1, dtype=torch.bool, device=embed.device)
    draws = embed.new_full((len(embed), 1, model.config.groups), 0.5)
    return model.rssm.observe(embed[:, None], null, begins, draws).posterior[:, 0]


def shifted(image: Tensor, *, grid: int, by: int) -> Tensor:
    """Copies of pictures with one patch changed in each, all of its numbers by the same amount.

    Args:
        image: [M, H, W, 3] uint8.
        grid: patches along a side.
        by: grey levels, 127 at most.

    Returns:
        [M, grid * grid, H, W, 3] uint8, patches row by row.
    """
    values = image.int()
    changed = torch.where(values + by > 255, values - by, values + by).to(torch.uint8)
    where = patches(image.shape[1], grid)[..., None].to(image.device)
    return torch.where(where, changed[:, None], image[:, None])


def patches(side: int, grid: int) -> Tensor:
    """Which pixels of a square image belong to which patch, [grid * grid, side, side] bool, row by row."""
    line = torch.arange(side) * grid // side
    number = line[:, None] * grid + line
    return number == torch.arange(grid * grid)[:, None, None]


def _shown(rolls: Rolls, camera: str, *, grid: int) -> Tensor:
    """[P] how much of the state the patches show on training play."""
    layout, frame = rolls.model.config.layout, rolls.fitted.frame[:, ::EVERY].flatten()
    key = probed(layout)
    columns = list(SCENE_FIELDS.values()) if key == SCENE and layout.scene == CALVIN.scene else slice(None)
    return shown(rolls.frames[camera][frame], rolls.frames[key][frame][:, columns], grid=grid)


def shown(image: Tensor, state: Tensor, *, grid: int) -> Tensor:
    """How much of a state each patch shows.

    Args:
        image: [M, H, W, 3] uint8.
        state: [M, P'], what may be seen in them.
        grid: patches along a side.

    Returns:
        [grid * grid] standard deviation of what a linear regression on the state says of the patch's colour, in grey
        levels.
    """
    patch = patches(image.shape[1], grid).flatten(1).float()
    # [M, patches, 3]
    colour = torch.einsum("mpc,qp->mqc", image.flatten(1, 2).float(), patch / patch.sum(1, keepdim=True))
    spread = state.std(0)
    state = torch.where(spread > 1e-6, (state - state.mean(0)) / spread.clamp_min(1e-6), 0.0)
    predictions = predict(ridge(state, colour.flatten(1), penalty=PENALTY), state).unflatten(1, (-1, 3))
    return predictions.std(0, correction=0).mean(-1)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rho of [..., N] each, ties ranked by their mean; NaN where nothing varies."""
    ranks = [_ranks(values) for values in (a, b)]
    centred = [rank - rank.mean(-1, keepdim=True) for rank in ranks]
    size = centred[0].norm(dim=-1) * centred[1].norm(dim=-1)
    return (centred[0] * centred[1]).sum(-1) / torch.where(size > 0, size, float("nan"))


def _ranks(values: Tensor) -> Tensor:
    values, ordered = values.contiguous(), values.sort(-1).values
    below = torch.searchsorted(ordered, values, side="left")
    return (below + torch.searchsorted(ordered, values, side="right")).double()

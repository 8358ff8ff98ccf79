"""Errors while the hand is on its way, and while it does something: the second kind is what breaks a policy.

The split is HarmoWAM's (arXiv 2605.10942: models that imagine first do well in transit and badly in interaction). There
the gripper's events say which is which; here the scene does, because half of the tasks are pushes with a closed hand.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from worldaction.metrics.open_loop import Rolls
from worldaction.metrics.probes import predict
from worldaction.metrics.state_probes import LIGHTS, probed
from worldaction.metrics.tcp_error import MILLIMETRES, hand_errors, tcp_position
from worldaction.spec import CALVIN, EPISODE, SCENE, SCENE_FIELDS, Layout

REACH: Final = 4
"""Frames before and after a movement that belong to it: the hand is there, and must be."""
STILL: Final = 1e-3
"""Movement from frame to frame that does not count: m for CALVIN's joints and blocks, else a share of the range."""


def moving(scene: Tensor, episode: Tensor, *, still: Tensor) -> Tensor:
    """Which numbers change at which frames.

    Args:
        scene: [N, P'], frames of a store.
        episode: [N], to which episode each belongs; from one to the next nothing moves.
        still: [P'], changes from frame to frame that do not count.

    Returns:
        [N, P'] bool: the frames on both sides of a change.
    """
    step = ((scene[1:] - scene[:-1]).abs() > still) & (episode[1:] == episode[:-1])[:, None]
    none = torch.zeros_like(step[:1])
    return torch.cat([step, none]) | torch.cat([none, step])


def near(event: Tensor, episode: Tensor, *, reach: int) -> Tensor:
    """Frames within `reach` frames of an event of the same episode.

    Args:
        event: [N, ...] bool.
        episode: [N].
        reach: in frames.

    Returns:
        [N, ...] bool.
    """
    found = event.clone()
    for offset in range(1, min(reach, len(event) - 1) + 1):
        same = (episode[offset:] == episode[:-offset]).view(-1, *[1] * (event.dim() - 1))
        found[offset:] |= event[:-offset] & same
        found[:-offset] |= event[offset:] & same
    return found


def transit_interaction(rolls: Rolls) -> dict[str, Any]:
    """Errors of the hand and of the scene's parts, apart for transit and interaction.

    A frame is in transit if nothing of the scene moves within `REACH` frames, in interaction if a joint or a light does
    (of scenes other than CALVIN's: anything). A part's own error in interaction is that of the frames in which this
    part moves.

    Args:
        rolls: the world model on play.

    Returns:
        "transit" and "interaction", each: "share" of the frames of validation windows, and band to error: "tcp" (mm,
        the decoder's or else the probe's), and by a linear probe "slider", "drawer", "button", "switch" (mm), and
        "lightbulb" and "led" (share of frames in which it is taken for the contrary); of other scenes "state", in
        standard deviations. Errors of which there is no frame are left out. Or "skipped", why there is nothing.
    """
    layout = rolls.model.config.layout
    if probed(layout) != SCENE:
        return {"skipped": "the data have no privileged state of a scene, which says when something is moved"}
    parts = scene_parts(layout)
    scene, episode = rolls.frames[SCENE], rolls.frames[EPISODE]
    moved = near(moving(scene, episode, still=_still(scene, layout)), episode, reach=REACH)
    # [N, P], the movements of each part, and [N], of any part and of anything at all
    each = torch.stack([moved[:, columns].any(-1) for columns in parts.values()], -1)
    when = {"transit": ~moved[:, _places(layout)].any(-1), "interaction": each.any(-1)}
    frame = rolls.validation.episodes.frame
    found: dict[str, Any] = {name: {"share": float(mask[frame].float().mean())} for name, mask in when.items()}
    errors = _errors(rolls, layout)
    for name, mask in when.items():
        for band, by_part in errors.items():
            here = rolls.read[band].frame
            masks = {p: (each[:, i] if name == "interaction" else mask)[here] for i, p in enumerate(parts)}
            found[name][band] = {
                part: float(error[chosen].mean())
                for part, error in by_part.items()
                if (chosen := masks.get(part, mask[here])).any()
            }
    return found


def scene_parts(layout: Layout) -> dict[str, list[int]]:
    """The parts of a scene that a hand moves on purpose, and their numbers in `scene_obs`; "state" if nameless."""
    if layout.scene == CALVIN.scene:
        return {name: [number] for name, number in SCENE_FIELDS.items()}
    return {"state": list(range(layout.scene))}


def _places(layout: Layout) -> list[int]:
    """Numbers of `scene_obs` that say where things are: not the blocks' angles, which jump from -pi to pi."""
    joints = len(SCENE_FIELDS)
    return [i for i in range(layout.scene) if layout.scene != CALVIN.scene or i < joints or (i - joints) % 6 < 3]


def _still(scene: Tensor, layout: Layout) -> Tensor:
    if layout.scene == CALVIN.scene:
        return torch.full_like(scene[0], STILL)
    return STILL * (scene.amax(0) - scene.amin(0))


def _errors(rolls: Rolls, layout: Layout) -> dict[str, dict[str, Tensor]]:
    """Band to what is read to errors [M, T]."""
    found: dict[str, dict[str, Tensor]] = {name: {} for name in rolls.read}
    if tcp_position(layout) is not None:
        hand = hand_errors(rolls, rolls.read)
        hand_in = hand.get("pose") or hand.get("decoder") or hand["probe"]
        found = {name: {"tcp": error.cpu()} for name, error in hand_in.items()}
    weights = rolls.probe(SCENE)
    spread = rolls.frames[SCENE][rolls.fitted.frame.flatten()].std(0).clamp_min(1e-6)
    for name, band in rolls.read.items():
        read, true = predict(weights, band.feature).cpu(), rolls.frames[SCENE][band.frame]
        for part, columns in scene_parts(layout).items():
            off = (read - true)[..., columns].abs()
            if part in LIGHTS:
                found[name][part] = (off > 0.5).float().mean(-1)
            elif part in SCENE_FIELDS:
                found[name][part] = MILLIMETRES * off.mean(-1)
            else:
                found[name][part] = (off / spread[columns]).mean(-1)
    return found

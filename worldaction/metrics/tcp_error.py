"""How far the hand is from where the model believes it: the number that decides whether a dream of a grasp is worth
anything. A handle forgives one or two centimetres; open loop, less than 5 mm is good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from worldaction.losses.reconstruction import Reconstruction
from worldaction.metrics.open_loop import SEEN, Band, OpenLoop, Rolls
from worldaction.metrics.probes import predict
from worldaction.spec import ACTION, CALVIN, METRES_PER_UNIT, ROBOT, ROBOT_FIELDS, Layout
from worldaction.world_model.model import WorldModel
from worldaction.world_model.posed_core import PosedCore

MILLIMETRES: Final = 1000.0
Errors = dict[str, dict[str, Tensor]]
"""Reader to band to [M, T]."""


def tcp_error(rolls: Rolls) -> dict[str, Any]:
    """Distance of the hand from where it is believed to be.

    Args:
        rolls: the world model on play.

    Returns:
        "pose" (where the model carries it), "decoder" (the model's own, where it was trained), "probe" (linear), "hold"
        (it stays where it was) and "dead_reckoning" (it does at once what it is told; neither of these two needs a
        model) to band to mean, median and p90 in mm; "dreams" the same for episodes from their first
        frame; or "skipped", why there is nothing.
    """
    if tcp_position(rolls.model.config.layout) is None:
        return {"skipped": "the layout does not say where in robot_obs the position of the hand is"}
    found: dict[str, Any] = _spreads(_errors(rolls, rolls.validation, rolls.read))
    if (dreams := rolls.dreams) is not None:
        bands = dreams.bands(rolls.model)
        found["dreams"] = {"episodes": len(dreams.episodes), **_spreads(_errors(rolls, dreams, bands))}
    return found


def hand_errors(rolls: Rolls, bands: Mapping[str, Band]) -> Errors:
    """Errors of every frame in mm, as the decoder and a linear probe read it; layouts of which the hand is known."""
    where = tcp_position(rolls.model.config.layout)
    weights = rolls.probe(ROBOT)[:, where]
    places = {"probe": {name: predict(weights, band.feature) for name, band in bands.items()}}
    if carries_pose(rolls.model):
        places["pose"] = {n: carried_pose(rolls.model, band.feature)[..., where] for n, band in bands.items()}
    if decodes_proprio(rolls.model):
        places["decoder"] = {n: decode_proprio(rolls.model, band.feature)[..., where] for n, band in bands.items()}
    true = {name: rolls.recorded(ROBOT, band.frame)[..., where] for name, band in bands.items()}
    return {reader: {n: distance(place, true[n]) for n, place in read.items()} for reader, read in places.items()}


def _errors(rolls: Rolls, roll: OpenLoop, bands: Mapping[str, Band]) -> Errors:
    true = rolls.recorded(ROBOT, roll.episodes.frame)[..., tcp_position(rolls.model.config.layout)]
    action, now = rolls.recorded(ACTION, roll.episodes.frame), roll.context - 1
    # [M, H, 3]
    ahead = true[:, roll.context :]
    guesses = {
        "hold": distance(true[:, now, None].expand_as(ahead), ahead),
        "dead_reckoning": distance(dead_reckoning(true[:, now], action[:, now:-1]), ahead),
    }
    seen = torch.zeros_like(true[:, : roll.context, 0])
    return hand_errors(rolls, bands) | {
        guess: {n: torch.cat([seen, error], 1)[:, band.span] for n, band in bands.items() if n != SEEN}
        for guess, error in guesses.items()
    }


def _spreads(errors: Errors) -> dict[str, dict[str, dict[str, float]]]:
    return {reader: {name: spread(error) for name, error in bands.items()} for reader, bands in errors.items()}


def tcp_position(layout: Layout) -> slice | None:
    """Where in `robot_obs` the hand's position (m) is; None where the layout does not say."""
    known = (layout.robot, layout.euler, layout.action) == (CALVIN.robot, CALVIN.euler, CALVIN.action)
    return ROBOT_FIELDS["tcp_position"] if known else None


def decodes_proprio(model: WorldModel) -> bool:
    """Whether the model was trained to give the proprioception back."""
    loss = model.each_loss().get(Reconstruction.name)
    return isinstance(loss, Reconstruction) and loss.proprio_net is not None and loss.options.proprio > 0.0


def decode_proprio(model: WorldModel, feature: Tensor) -> Tensor:
    """The proprioception that a feature stands for, in its own units.

    Args:
        model: for which `decodes_proprio`.
        feature: [..., F].

    Returns:
        [..., P], as `worldaction.world_model.nets.proprio` gives it: rotations in two columns of a matrix.
    """
    loss = model.each_loss()[Reconstruction.name]
    assert isinstance(loss, Reconstruction)
    assert loss.proprio_net is not None
    found: Tensor = loss.proprio_net(feature)
    return found * model.proprio_std + model.proprio_mean


def carries_pose(model: WorldModel) -> bool:
    """Whether the pose is a part of the model's belief."""
    return isinstance(model.rssm, PosedCore)


def carried_pose(model: WorldModel, feature: Tensor) -> Tensor:
    """The proprioception that the model carries in its belief, as `decode_proprio` gives it.

    Args:
        model: for which `carries_pose`.
        feature: [..., F].
    """
    core = model.rssm
    assert isinstance(core, PosedCore)
    pose = core.parts(feature[..., : core.deter])[1]
    return pose[..., : core.proprio] * model.proprio_std + model.proprio_mean


def dead_reckoning(position: Tensor, action: Tensor) -> Tensor:
    """Where the hand would be if every command were carried out at once: what a model has to beat.

    Args:
        position: [M, 3], the last one seen, in m.
        action: [M, H, A], the commands from that frame on; the first three numbers in units of `METRES_PER_UNIT`.

    Returns:
        [M, H, 3], the positions after each command, in m.
    """
    return position[:, None] + METRES_PER_UNIT * action[..., :3].cumsum(1)


def distance(predicted: Tensor, true: Tensor) -> Tensor:
    """Euclidean distance of positions [..., 3] in m, as [...] in mm."""
    return MILLIMETRES * torch.linalg.vector_norm(predicted - true, dim=-1)


def spread(error: Tensor) -> dict[str, float]:
    """Mean, median and 90th percentile of errors [...]."""
    flat = error.flatten().double()
    return {"mean": float(flat.mean()), "median": float(flat.median()), "p90": float(flat.quantile(0.9))}

"""How far the hand is from where the model believes it: the number that decides whether a dream of a grasp is worth
anything. A handle forgives one or two centimetres; open loop, less than 5 mm is good.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from worldaction.losses.reconstruction import Reconstruction
from worldaction.spec import CALVIN, METRES_PER_UNIT, ROBOT_FIELDS, Layout
from worldaction.world_model import WorldModel

MILLIMETRES: Final = 1000.0


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
        [..., P], as `worldaction.nets.proprio` gives it: rotations in two columns of a matrix.
    """
    loss = model.losses["reconstruction"]
    assert isinstance(loss, Reconstruction)
    assert loss.proprio_net is not None
    found: Tensor = loss.proprio_net(feature)
    return found * model.proprio_std + model.proprio_mean


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

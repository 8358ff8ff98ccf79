"""The libraries that are timed beside each other, and what the command line calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from experiments.bench.base import Library
from experiments.bench.ours import Ours
from experiments.bench.peers.dreamerv3_torch import DreamerV3Torch
from experiments.bench.peers.lumos import Lumos
from experiments.bench.peers.r2dreamer import R2Dreamer
from experiments.bench.peers.torchrl_rssm import TorchRL
from worldaction.errors import UserError, unknown

PEERS: Mapping[str, Callable[[Path, torch.device], Library]] = {
    "lumos": Lumos,
    "dreamerv3-torch": DreamerV3Torch,
    "r2dreamer": R2Dreamer,
}


def libraries(peers: Sequence[str], device: torch.device, *, compiled: bool) -> list[Library]:
    """Ours, TorchRL's, and the peers.

    Args:
        peers: NAME=PATH each, the path being a checkout of that project.
        device: where to compute.
        compiled: whether to time what torch.compile makes of ours and of TorchRL's, too.

    Raises:
        UserError: an unknown name, or a folder that is no such checkout.
    """
    found: list[Library] = [Ours(device, compiled=compiled), TorchRL(device, compiled=compiled)]
    for text in peers:
        name, _, path = text.partition("=")
        if name not in PEERS:
            raise unknown("peer", name, PEERS)
        if not Path(path or " ").is_dir():
            raise UserError(f"--peer {text}: give {name}=FOLDER, the folder of a checkout of {name}")
        found.append(PEERS[name](Path(path).resolve(), device))
    return found

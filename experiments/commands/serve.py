"""`worldaction serve`: a saved policy behind a WebSocket, for robots."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.policy import Policy
    from agents.served_episodes import ServedEpisodes

HELP = "serve a saved policy's actions over a local WebSocket"
TOKEN = "WORLDACTION_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("policy", type=Path, help="its folder")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; others than this machine's need a token"
    )
    parser.add_argument("--port", type=int, default=8765, help="default: 8765")
    parser.add_argument("--token", help=f"that clients have to give (default: the environment variable {TOKEN})")
    parser.add_argument("--device", default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--record", type=Path, metavar="STORE", help="keep what is seen and done in a play store")


def run(chosen: argparse.Namespace) -> None:
    """Answer until interrupted."""
    from experiments.study.saved import SavedPolicy
    from experiments.study.waiting import choose_waiting

    saved = SavedPolicy.read(chosen.policy)
    choose_waiting()
    from agents.policy import Policy
    from agents.server import PolicyServer
    from worldaction.io.recorder import setup_logging

    setup_logging()
    policy = Policy.from_pretrained(saved.folder, device=chosen.device)
    token = chosen.token or os.environ.get(TOKEN)
    with (
        _kept(chosen.record, policy, saved.folder) as record,
        PolicyServer(policy, host=chosen.host, port=chosen.port, token=token, record=record) as server,
    ):
        print(f"{saved.task} at ws://{chosen.host}:{server.port}; stop with Ctrl-C", flush=True)
        try:
            server.run()
        except KeyboardInterrupt:
            print("stopped")


def _kept(path: Path | None, policy: Policy, folder: Path) -> AbstractContextManager[ServedEpisodes | None]:
    """Where episodes are kept, if they are to be."""
    from agents.served_episodes import ServedEpisodes
    from worldaction.io.files import sha256_of

    if path is None:
        return nullcontext()
    return ServedEpisodes(path, policy, name=f"{folder.resolve().name} {sha256_of(folder / 'model.safetensors')[:12]}")

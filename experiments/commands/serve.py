"""`worldaction serve`: a saved policy behind a WebSocket, for robots."""

from __future__ import annotations

import argparse
import math
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from worldaction.errors import UserError

if TYPE_CHECKING:
    from agents.policy import Policy
    from agents.served_episodes import ServedEpisodes
    from experiments.study.saved import SavedPolicy

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
    parser.add_argument(
        "--ahead", action="store_true", help="answer at once, with actions that were computed a frame before"
    )
    parser.add_argument(
        "--rehearse", type=float, metavar="SECONDS", help="no robot: send frames of noise at its rate, tell times, end"
    )


def run(chosen: argparse.Namespace) -> None:
    """Answer until interrupted."""
    from experiments.study.saved import SavedPolicy
    from experiments.study.waiting import choose_waiting

    saved = SavedPolicy.read(chosen.policy)
    choose_waiting()
    from agents.policy import Policy
    from agents.server import PolicyServer
    from worldaction.io.recorder import setup_logging

    if chosen.rehearse is not None and not 0 < chosen.rehearse < math.inf:
        raise UserError(f"--rehearse {chosen.rehearse:g}: give a time in seconds, above 0")
    setup_logging()
    policy = Policy.from_pretrained(saved.folder, device=chosen.device)
    token = chosen.token or os.environ.get(TOKEN)
    if chosen.rehearse is not None:
        return _rehearse(policy, chosen.rehearse, ahead=chosen.ahead)
    with (
        _kept(chosen.record, policy, saved) as record,
        PolicyServer(
            policy, host=chosen.host, port=chosen.port, token=token, record=record, ahead=chosen.ahead
        ) as server,
    ):
        print(f"{saved.task} at ws://{chosen.host}:{server.port}; stop with Ctrl-C", flush=True)
        try:
            server.run()
        except KeyboardInterrupt:
            print("stopped")


def _kept(path: Path | None, policy: Policy, saved: SavedPolicy) -> AbstractContextManager[ServedEpisodes | None]:
    """Where episodes are kept, if they are to be."""
    from agents.served_episodes import ServedEpisodes

    if path is None:
        return nullcontext()
    return ServedEpisodes(path, policy, name=f"{saved.folder.resolve().name} {saved.weights[:12]}")


def _rehearse(policy: Policy, seconds: float, *, ahead: bool) -> None:
    """Say how long actions take, on this machine alone and without a robot."""
    from agents.rehearsal import rehearse
    from agents.server import PolicyServer

    with PolicyServer(policy, port=0, ahead=ahead) as server:
        threading.Thread(target=server.run, daemon=True).start()
        print(rehearse(server, policy, seconds=seconds))

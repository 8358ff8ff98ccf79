"""`worldaction new`: a plug-in from nothing, one file that works, and its tests."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a loss of your own, with its tests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("loss", help=HELP).add_argument("name", help="its name")


def run(chosen: argparse.Namespace) -> None:
    """Write it, and say what comes next."""
    from worldaction.losses.tools.scaffold import new_loss

    name = chosen.name
    loss, test = new_loss(name, Path())
    title = "".join(part.capitalize() for part in name.split("_"))
    print(f"{loss} and {test} are written. Next:\n")
    print(f"  worldaction check loss {name}:{title}\n  python -m pytest {test}")
    print(f"  python -m experiments.calvin debug --losses reconstruction kl {name}:{title}=1")

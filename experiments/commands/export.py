"""`worldaction export`: a saved policy in the form of another library."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a saved policy as another library loads it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("policy", type=Path, help="its folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to create")
    parser.add_argument("--to", choices=("lerobot",), default="lerobot", help="the library (default: lerobot)")


def run(chosen: argparse.Namespace) -> None:
    """Write it, and say what comes next."""
    from experiments.study.saved import SavedPolicy

    saved = SavedPolicy.read(chosen.policy)
    from experiments.lerobot.export import export

    out = export(saved.folder, chosen.out)
    print(f"{out} is written. In the environment that lerobot is installed in:\n")
    print(f"  pip install {out}/plugin")
    print(f"  lerobot-eval --policy.path={out} --env.type=worldaction --env.exported={out}")

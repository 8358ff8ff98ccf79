"""`worldaction video`: a film of a saved policy at work."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "film episodes of a saved policy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("policy", type=Path, help="its folder")
    parser.add_argument(
        "out", nargs="?", type=Path, metavar="FILE", help="the film; stills go beside it (default: NAME.mp4)"
    )
    parser.add_argument("--env", metavar="ENV", help="another environment than the one that its folder knows")
    parser.add_argument("--episodes", type=int, default=4, metavar="N", help="how many, side by side (default: 4)")
    parser.add_argument("--first", type=int, metavar="K", help="number of the first start state (default: 450)")


def run(chosen: argparse.Namespace) -> None:
    """Film them."""
    from experiments.commands.eval import play

    film = chosen.out or Path(f"{chosen.policy.name}.mp4")
    episodes = chosen.episodes
    play(chosen.policy, env=chosen.env, first=chosen.first, episodes=episodes, film=film, films=episodes)

"""`worldaction losses`: every loss that has a name."""

from __future__ import annotations

import argparse

HELP = "every loss that --losses knows"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--measure", action="store_true", help="and what each costs on this machine, in a minute")


def run(chosen: argparse.Namespace) -> None:
    """Print them."""
    from worldaction.losses.building import describe
    from worldaction.losses.registry import available, find

    if not chosen.measure:
        print(describe())
        return
    from worldaction.losses.tools.cost import BASE, costs

    table = describe(costs({name: find(name) for name in available()}))
    print(
        f"{table}\n\ncost: forwards and back, in shares of a training step of a small model with {' and '.join(BASE)}"
    )

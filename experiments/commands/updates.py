"""`worldaction updates`: every update that has a name."""

from __future__ import annotations

import argparse

HELP = "every update that --update knows"


def run(chosen: argparse.Namespace) -> None:
    """Print them."""
    from agents.updates.registry import UPDATES
    from worldaction.config import UpdateConfig
    from worldaction.listing import members

    print(members(UPDATES, UpdateConfig))

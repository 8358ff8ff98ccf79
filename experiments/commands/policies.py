"""`worldaction policies`: every policy head that has a name."""

from __future__ import annotations

import argparse

HELP = "every policy head that --policy knows"


def run(chosen: argparse.Namespace) -> None:
    """Print them."""
    from agents.policies.registry import POLICIES
    from worldaction.config import PolicyConfig
    from worldaction.listing import members

    print(members(POLICIES, PolicyConfig))

"""Meta-World as a benchmark: like any other environment, under a name of its own."""

from __future__ import annotations

from dataclasses import dataclass

from envs.general.benchmark import General


@dataclass(frozen=True)
class MetaWorld(General):
    """Meta-World's tasks; its environment says which there are and who demonstrates them."""

    name = "worldaction/MetaWorld-v0"
    program = "metaworld"

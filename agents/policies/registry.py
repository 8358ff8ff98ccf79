"""Policy heads by name and from the command line's text; nothing here imports torch."""

from __future__ import annotations

from typing import Final

from worldaction.extension import Family

POLICIES: Final = Family(
    kind="policy",
    option="--policy",
    package="agents.policies",
    base="agents.policies.base:PolicyHead",
    example="diffusion or gaussian,layers=2",
)

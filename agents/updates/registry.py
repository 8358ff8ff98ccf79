"""Policy updates by name and from the command line's text; nothing here imports torch."""

from __future__ import annotations

from typing import Final

from worldaction.extension import Family

UPDATES: Final = Family(
    kind="update",
    option="--update",
    package="agents.updates",
    base="agents.updates.base:Update",
    example="ppo or grpo,group=8",
)

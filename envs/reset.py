"""The options of `reset`: ours, and what other programs send along to every environment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from worldaction.errors import unknown

FOREIGN: Final = {"lerobot_new_rollout": "lerobot-eval, at the start of each rollout"}
"""Options that mean nothing here, and who sends them; any other that is not ours may be a slip of the pen."""


def own_options(options: Mapping[str, Any] | None, known: Collection[str]) -> dict[str, Any]:
    """The options of a reset without those that others send.

    Args:
        options: as `reset` got them.
        known: names of ours.

    Raises:
        UserError: there is one that neither we nor others know; names the nearest.
    """
    own = {name: value for name, value in (options or {}).items() if name in known or name not in FOREIGN}
    for name in own:
        if name not in known:
            raise unknown("option", name, known)
    return own

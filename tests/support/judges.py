"""Other simulators in which policies of the play table are evaluated: the table again, and one that is not here."""

from __future__ import annotations

from typing import Any

from envs.playtable.benchmark import PlayTable
from worldaction.errors import UserError


class Twin(PlayTable):
    """The play table under another name."""

    name = "Twin"


class Absent(PlayTable):
    """A simulator that nobody has installed."""

    name = "Absent"

    def make(self, task: str, *, film: bool = False) -> Any:
        """Fails."""
        raise UserError("no such simulator is known: set ABSENT_PYTHON to its Python")

"""What an attack comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "correct",
    "clear error",
    "refused",
    "accepted though changed",
    "traceback",
    "hang",
    "memory",
    "code ran",
    "process left",
]
"""`correct`: the same result, to the bit; `refused`: an error, however clear, where there should be none. All but
`correct` and `clear error` break a promise."""


@dataclass(frozen=True)
class Outcome:
    """What came of one attack, which may have struck several times."""

    kind: Kind
    detail: str = ""
    """What was done and said, for whoever looks into it; with the seed it can be done again."""
    strikes: int = 1
    """How often it struck: kills, signals, full disks."""

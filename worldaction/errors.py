"""The exceptions that mean: here is what was wrong, and here is the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 1000
"""Characters of a message."""


class UserError(Exception):
    """Bad input. The message is one line that names the value and the remedy; command lines print it bare."""

    def __str__(self) -> str:
        """The message; of one that quotes a value without end, the beginning and the remedy."""
        text = super().__str__()
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 300]} ... {text[-290:]}"


class Unfinished(UserError):
    """Not the input was wrong: the machine ended the work. What is finished is kept, and the same work can go on."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a `name` that is not among `known`, with the nearest match.

    Args:
        kind: what the name stands for, such as "task".
        name: what the user gave.
        known: every valid name.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"unknown {kind} {name!r}; {hint}")

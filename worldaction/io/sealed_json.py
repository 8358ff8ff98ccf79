"""JSON files of ours, which notice when they were changed. No torch here: settings are read before it is imported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from worldaction.errors import UserError
from worldaction.io import typed_json

SEAL: Final = "seal"
"""In a JSON file of ours: a hash of everything else in it."""


def read_json(path: Path | str, kind: Any = Any, *, remedy: str = typed_json.DAMAGED) -> Any:
    """What `worldaction.io.atomic.write_json` wrote.

    Args:
        path: the file.
        kind: what is in it, as for `typed_json.typed`.
        remedy: for the error: what to do if it is damaged.

    Raises:
        UserError: the file is missing, no JSON or of another type, or has changed since it was written.
    """
    content = typed_json.read(path, remedy=remedy)
    if isinstance(content, dict) and SEAL in content:
        seal = content.pop(SEAL)
        value = typed_json.typed(content, kind, path, remedy=remedy)
        if seal != seal_of(content):
            raise UserError(
                f"{path} has changed since it was written; undo that, or delete its {SEAL!r} if it was meant"
            )
        return value
    return typed_json.typed(content, kind, path, remedy=remedy)


def seal_of(content: Mapping[str, Any]) -> str:
    """A hash of what an object holds beside its seal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

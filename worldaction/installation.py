"""Whether this distribution's four packages are the ones that Python finds: their names are common ones."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from worldaction.errors import UserError

ROOT: Final = Path(__file__).resolve().parents[1]
"""Where the packages lie side by side: a checkout, or site-packages."""
BESIDE: Final = ("experiments", "agents", "envs")


def hidden() -> dict[str, str]:
    """Packages of ours that something else of the same name hides: one line for each, with the remedy."""
    found = {name: _where(name) for name in BESIDE}
    return {name: _said(name, where) for name, where in found.items() if where != ROOT / name}


def refuse_hidden() -> None:
    """Check that no folder or package hides one of ours.

    Raises:
        UserError: names what hides it, and the remedy.
    """
    if lines := hidden():
        raise UserError("; ".join(lines.values()))


def _where(name: str) -> Path | None:
    """The folder or the file that an import of this name would bring."""
    spec = sys.modules[name].__spec__ if name in sys.modules else find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    return Path(folders[0] if folders else str(spec.origin)).resolve()


def _said(name: str, where: Path | None) -> str:
    if where is None:
        return f"worldaction's package {name} is not installed beside it in {ROOT}; install worldaction again"
    here = Path.cwd().resolve()
    if where.is_relative_to(here):
        where_said, remedy = f"./{where.relative_to(here)}", "run from another folder, or rename it"
    else:
        where_said, remedy = str(where), "take it off PYTHONPATH or uninstall it, or use an environment of its own"
    return f"{where_said} hides worldaction's package {name}: {remedy}"

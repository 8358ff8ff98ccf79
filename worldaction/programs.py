"""`python -m` of a module that is no program: it says so, and what is one, instead of ending in silence."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping

from worldaction.errors import UserError
from worldaction.installation import refuse_hidden


def only_programs(package: str, programs: Collection[str], moved: Mapping[str, str]) -> None:
    """End a process that was started as ``python -m package.module`` if that module is no program.

    Called when the package is imported, which is before Python looks for the module.

    Args:
        package: its name.
        programs: modules that are programs.
        moved: modules that were programs, and the commands that do their work now.

    Raises:
        SystemExit: with one line.
    """
    name = _started()
    if not (name == package or name.startswith(f"{package}.")) or name in programs:
        return
    if name in moved:
        sys.exit(f"error: python -m {name} is now: {moved[name]}")
    sys.exit(f"error: {name} is no program; see worldaction --help")


def refuse_hidden_packages(package: str) -> None:
    """Check, when a package that needs the others is imported, that nothing hides one of them.

    Raises:
        SystemExit: with one line, where a program of the package was started.
        UserError: with the same line, in an import.
    """
    try:
        refuse_hidden()
    except UserError as error:
        if _started().partition(".")[0] != package:
            raise
        sys.exit(f"error: {error}")


def _started() -> str:
    """The module that this process was started with by -m; empty if by other means."""
    arguments = getattr(sys, "orig_argv", [])
    for place, argument in enumerate(arguments[1:], 1):
        if argument == "-m":
            return str(arguments[place + 1]) if len(arguments) > place + 1 else ""
        if not argument.startswith("-") or argument in ("-c", "-"):
            break
    return ""

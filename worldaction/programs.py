"""`python -m` of a module that is no program: it says so, and what is one, instead of ending in silence."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping


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
    arguments = getattr(sys, "orig_argv", [])
    # up to the program; what follows are its own arguments
    before, flag, rest = _split(arguments)
    name = rest[0] if flag and rest else ""
    if not before or not (name == package or name.startswith(f"{package}.")) or name in programs:
        return
    if name in moved:
        sys.exit(f"error: python -m {name} is now: {moved[name]}")
    sys.exit(f"error: {name} is no program; see worldaction --help")


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """The interpreter and its flags, whether they end with -m, and what follows."""
    for place, argument in enumerate(arguments[1:], 1):
        if argument == "-m":
            return arguments[:place], True, arguments[place + 1 :]
        if not argument.startswith("-") or argument in ("-c", "-"):
            break
    return arguments[:1], False, []

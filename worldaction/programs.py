"""`python -m` of a module that is no program: it says so, and what is one, instead of ending in silence."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from worldaction.errors import UserError
from worldaction.installation import refuse_hidden


def only_programs(package: str, folder: str, moved: Mapping[str, str]) -> None:
    """End a process that was started as ``python -m package.module`` if that module is no program.

    Called when the package is imported, which is before Python looks for the module.

    Args:
        package: its name.
        folder: where it is. Its programs are the modules whose files have an ``if __name__ == "__main__"``.
        moved: modules that were programs, and the commands that do their work now.

    Raises:
        SystemExit: with one line.
    """
    name = _started()
    if not (name == package or name.startswith(f"{package}.")) or _is_program(Path(folder), name.split(".")[1:]):
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


def _is_program(folder: Path, parts: list[str]) -> bool:
    """Whether the file behind `python -m` can be run, or is not ours to judge because there is none."""
    path = folder.joinpath(*parts)
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    return file.is_file() and '__name__ == "__main__"' in file.read_text(encoding="utf-8")


def _started() -> str:
    """The module that this process was started with by -m; empty if by other means."""
    arguments = getattr(sys, "orig_argv", [])
    for place, argument in enumerate(arguments[1:], 1):
        if argument == "-m":
            return str(arguments[place + 1]) if len(arguments) > place + 1 else ""
        if argument in ("-c", "-") or not (argument.startswith("-") or arguments[place - 1] in ("-W", "-X")):
            break
    return ""

"""What the tools of all plug-ins share: writing a first file with its test, and going through a contract."""

from __future__ import annotations

import inspect
import keyword
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from worldaction.errors import UserError
from worldaction.extension import Family
from worldaction.io.disk import cannot_write


def write_plugin(family: Family, name: str, folder: Path, *, code: str, test: str) -> tuple[Path, Path]:
    """Write a plug-in that works and its tests.

    Args:
        family: what it is, such as a loss.
        name: of the plug-in and of its file, in small letters.
        folder: where; nothing there is overwritten.
        code, test: texts of the files, in which {name} and {title} stand for its name and its class.

    Returns:
        the files of the plug-in and of its tests.

    Raises:
        UserError: the name cannot be used, or a file is there already.
    """
    if not name.isidentifier() or name != name.lower() or keyword.iskeyword(name):
        raise UserError(
            f"{family.kind} name {name!r}: give small letters, digits and underscores, such as my_{family.kind}"
        )
    if name in family.available():
        raise UserError(f"{family.kind} name {name!r} is taken; give another")
    if (hidden := _hidden_by(name, folder)) is not None:
        raise UserError(f"{family.kind} name {name!r}: its file would hide {hidden}; give another, such as my_{name}")
    paths = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in paths:
        if path.exists():
            raise UserError(f"{path} is there already; give another name, or remove it")
    for path, text in zip(paths, (code, test), strict=True):
        try:
            path.write_text(text.format(name=name, title=title_of(name)), encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, error) from error
    return paths


def _hidden_by(name: str, folder: Path) -> str | None:
    """The module that nobody could import any more beside a file of this name; it is not imported for this."""
    if name in sys.builtin_module_names:
        return f"Python's own module {name}"
    paths = [path for path in sys.path if Path(path or ".").resolve() != folder.resolve()]
    spec = PathFinder.find_spec(name, paths)
    # a folder without code in it is a module, too, and nobody misses it
    return None if spec is None or spec.origin is None else f"the module {spec.origin}"


def title_of(name: str) -> str:
    """The class of a plug-in: my_loss gives MyLoss."""
    return "".join(part.capitalize() for part in name.split("_"))


def examine(cls: Any, checks: Sequence[Callable[[Any], list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Every check in its turn: what it demands, in words, and what is wrong, one sentence each.

    Where the first check fails, which looks at the class itself, the others are not tried.

    Args:
        cls: a plug-in's class.
        checks: functions of it, whose docstrings' first lines say what they demand.
    """
    for check in checks:
        found = tried(check, cls)
        yield (check.__doc__ or "").partition("\n")[0], found
        if found and check is checks[0]:
            return


def tried(check: Callable[[Any], list[str]], cls: Any) -> list[str]:
    """What a check finds, or that the plug-in fails in it, and where.

    Raises:
        UserError: the check has to be left to the user, as where an option is missing.
    """
    try:
        return check(cls)
    except UserError:
        raise
    except Exception as error:
        # whatever code of others raises is what is wrong with it
        own = inspect.getsourcefile(cls)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
        raise UserError(f"{where}{type(error).__name__}: {error}") from error

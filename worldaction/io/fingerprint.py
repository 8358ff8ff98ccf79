"""Fingerprints of data at a path and of a module's code: is it still what something was made from?"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from worldaction.errors import UserError
from worldaction.extension import search_working_directory
from worldaction.io.files import check_regular

OURS = ("worldaction", "envs", "agents", "experiments")
"""Packages that the version stands for."""
WHOLE = 1 << 24
"""Bytes up to which a file that describes others is read from end to end."""
PIECE = 1 << 12
PIECES = 16
"""How many pieces are read of a larger file, and how many files of those that are called alike."""


def content_of(path: Path | str) -> str | None:
    """A short hash by which a data set is told from another one in its place; a copy of it has the same one.

    It depends on the names of all files, and of some on their size and on pieces of them, so that it takes seconds
    where reading everything takes an hour. Files are called alike if their names differ in numbers alone, as those of
    episodes do: of these only some are opened. A file whose name is like no other's describes the rest, and is read
    whole. Hidden files, which are those of download tools, do not count, nor do times.

    Args:
        path: a file or a folder.

    Returns:
        None if nothing lies there.

    Raises:
        UserError: something that lies there cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return None
    names = [""] if path.is_file() else sorted(_files_below(path))
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\d+", "0", name), []).append(name)
    found = hashlib.sha256("\n".join(names).encode(errors="surrogateescape"))
    for alike in kinds.values():
        for number in _spread(len(alike)):
            found.update(_sampled(path / alike[number], whole=len(alike) == 1))
    return found.hexdigest()[:16]


def _files_below(folder: Path) -> Iterator[str]:
    """Names of files, as paths from the folder, which is not asked for anything else: there may be a million."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        where = os.path.relpath(parent, folder)
        yield from (os.path.join(where, name) for name in files if not name.startswith("."))


def _spread(count: int) -> list[int]:
    """Some places of so many, the first and the last among them."""
    return sorted({i * (count - 1) // (PIECES - 1) for i in range(PIECES)})


def _sampled(path: Path, *, whole: bool) -> bytes:
    """Size and pieces of a file, the first and the last bytes among them."""
    try:
        with open(check_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= (WHOLE if whole else PIECE * PIECES):
                return b"%d " % size + file.read()
            parts = [b"%d " % size]
            for number in range(PIECES):
                file.seek(number * (size - PIECE) // (PIECES - 1))
                parts.append(file.read(PIECE))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable, or copy the set again") from error
    return b"".join(parts)


def code_of(module: str) -> str | None:
    """A short hash of a module's file and of the user's own files that it imports; none of them is run for it.

    What is installed is not looked at, but for the module's own package: that has versions. Nor is what is imported by
    a name that only running the code would tell.

    Args:
        module: its name.

    Returns:
        None if there is no such module here, or none with a file.

    Raises:
        UserError: a file cannot be read.
    """
    search_working_directory()
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or (spec := _spec_of(name)) is None or (text := _text_of(name, spec)) is None:
            continue
        if name == module or _own(name, spec, of=module):
            found[name] = text
            waiting += _imported(text, spec)
    if module not in found:
        return None
    alone = hashlib.sha256(found.pop(module))
    for name in sorted(found):
        alone.update(name.encode() + hashlib.sha256(found[name]).digest())
    return alone.hexdigest()[:16]


def _text_of(name: str, spec: ModuleSpec) -> bytes | None:
    """A module's file; None if it has none."""
    # the loader's way, because a module may lie in an archive
    read = getattr(spec.loader, "get_data", None)
    if read is None or not spec.has_location or spec.origin is None:
        return None
    try:
        text: bytes = read(spec.origin)
        return text
    except OSError as error:
        raise UserError(f"{spec.origin} cannot be read ({error.strerror}); make module {name!r} readable") from error


def _own(name: str, spec: ModuleSpec, *, of: str) -> bool:
    """Whether a module is the user's, or of the same package as another."""
    package = name.partition(".")[0]
    if package == of.partition(".")[0]:
        return True
    path = Path(spec.origin or "/")
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return package not in OURS and not installed and package not in sys.stdlib_module_names


def _imported(text: bytes, spec: ModuleSpec) -> Iterator[str]:
    """Names of modules that a file may import, from its text; some are names of what is in a module."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    package = spec.name if spec.submodule_search_locations is not None else spec.parent or ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            # the packages around a module are run, too
            yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


def _spec_of(module: str) -> ModuleSpec | None:
    """Where a module is, found without importing the packages around it, as `importlib.util.find_spec` would."""
    spec, folders = None, None
    for depth, _ in enumerate(parts := module.split("."), 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), folders)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    return spec

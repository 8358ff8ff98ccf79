"""What users bring along: `module:name`, found as Python finds it and, last, in the working directory."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from worldaction.errors import UserError


def bring(module: str, what: str) -> ModuleType:
    """A module of the user's.

    Args:
        module: its name.
        what: what it is for, as the user knows it, such as "--gym.expert my_env:Expert".

    Raises:
        UserError: it is not found, or fails while it is imported.
    """
    _look_here_too()
    try:
        return import_module(module)
    except ImportError as error:
        remedy = "run from the folder that holds it, or install it"
        raise UserError(f"{what}: module {module!r} cannot be imported ({error}); {remedy}") from error


def load(target: str, option: str) -> Any:
    """What `module:name` stands for.

    Args:
        target: the user's text.
        option: the option that it was given with.

    Raises:
        UserError: there is no such module, or no such name in it.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise UserError(f"{option} {target!r} must be module:name")
    found = getattr(bring(module, f"{option} {target}"), name, None)
    if found is None:
        raise UserError(f"{option} {target}: there is no {name!r} in {module}; check the name")
    return found


def code_of(module: str) -> str | None:
    """A short hash of a module's file, which is not run for it, nor are the modules that it imports looked at.

    Args:
        module: its name.

    Returns:
        None if there is no such module here, or none with a file.

    Raises:
        UserError: the file cannot be read.
    """
    _look_here_too()
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        # a package around it that is not here, or a module that was made by hand
        return None
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    # the loader's way, because a module may lie in an archive
    read = getattr(spec.loader, "get_data", None)
    try:
        return hashlib.sha256(read(spec.origin)).hexdigest()[:16] if read is not None else None
    except OSError as error:
        raise UserError(f"{spec.origin} cannot be read ({error.strerror}); make module {module!r} readable") from error


def _look_here_too() -> None:
    if os.getcwd() not in sys.path:
        # last, so that a file that happens to lie there hides no installed module
        sys.path.append(os.getcwd())

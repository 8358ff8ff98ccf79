"""What users bring along: `module:name`, found as Python finds it and, last, in the working directory."""

from __future__ import annotations

import os
import sys
from importlib import import_module
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
    if os.getcwd() not in sys.path:
        # last, so that a file that happens to lie there hides no installed module
        sys.path.append(os.getcwd())
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

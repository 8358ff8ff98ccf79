"""Other libraries' world models, imported from checkouts that the user names. Their code is not part of this one.

An adapter builds their classes at the asked sizes and calls them; what it computes is said in its file. Several of them
have modules of the same names (`networks`, `tools`), so each is imported in a namespace of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from worldaction.errors import UserError


class Settings(dict[str, Any]):
    """A dictionary whose entries are attributes, too: what these libraries' configuration objects are like."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def import_from(
    checkout: Path, modules: Sequence[str], *, instead: Mapping[str, ModuleType] | None = None
) -> dict[str, Any]:
    """Import modules of a checkout, which runs their code, and forget them in `sys.modules` again.

    Args:
        checkout: the folder that holds them.
        modules: dotted names.
        instead: modules that are found under these names meanwhile, for packages that play no part in the computation.

    Returns:
        the modules by name.
    """
    for name in modules:
        path = checkout / name.replace(".", "/")
        if not path.with_suffix(".py").is_file() and not (path / "__init__.py").is_file():
            raise UserError(f"{checkout} has no {path.relative_to(checkout)}.py; give the folder of that checkout")
    own = {p.stem for p in checkout.iterdir() if p.suffix == ".py" or p.is_dir()}
    with _in_place_of({name: module for name, module in sys.modules.items() if name.partition(".")[0] in own}, own):
        sys.modules.update(instead or {})
        sys.path.insert(0, str(checkout))
        try:
            with quietly():
                return {name: importlib.import_module(name) for name in modules}
        except ImportError as error:
            raise UserError(f"{checkout} needs {error.name}, which is not installed; install it") from None
        finally:
            sys.path.remove(str(checkout))
            for name in instead or {}:
                del sys.modules[name]


@contextlib.contextmanager
def _in_place_of(kept: Mapping[str, ModuleType], names: set[str]) -> Iterator[None]:
    """Hide modules whose top-level names are in use elsewhere, and bring them back."""
    for name in kept:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(kept)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """These libraries print when they are built, and PyTorch warns of what they do."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Finding baselines: every file of this folder that defines one, and `module:Class` for those of one's own."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

import experiments.baselines
from experiments.baselines.base import Baseline
from worldaction.errors import UserError, unknown
from worldaction.extension import load

REPLACED = {
    "gaussian_bc": "python -m experiments.calvin PRESET --policy gaussian --reuse RUN",
    "gaussian_ppo": "python -m experiments.calvin PRESET --policy gaussian --reuse RUN",
}
"""Methods of before that the study's own options do, and the command that does them."""


def available() -> dict[str, type[Baseline]]:
    """Every baseline that has a name here."""
    package = experiments.baselines
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "__main__"]
    found = [cls for name in names for cls in _defined_in(import_module(f"{package.__name__}.{name}"))]
    return {cls.name: cls for cls in found}


def find(method: str) -> type[Baseline]:
    """The class behind a name or a `module:Class`.

    Raises:
        UserError: there is none, or it is no `Baseline`.
    """
    if method in REPLACED:
        raise UserError(f"method {method!r} is a study of its own now: {REPLACED[method]}")
    if ":" not in method:
        known = available()
        if method not in known:
            raise unknown("method", method, known)
        return known[method]
    found = load(method, "--methods")
    if not (isinstance(found, type) and issubclass(found, Baseline)):
        raise UserError(f"--methods {method} is no experiments.baselines.base.Baseline; give a class of that kind")
    return found


def _defined_in(module: ModuleType) -> list[type[Baseline]]:
    members = [member for member in vars(module).values() if isinstance(member, type) and issubclass(member, Baseline)]
    return [member for member in members if member.__module__ == module.__name__ and member is not Baseline]

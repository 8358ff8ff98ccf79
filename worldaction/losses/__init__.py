"""Losses of the world model: a list, in which reconstruction and KL are entries like any other.

A loss is one class in one file. It is found by name in this folder, under the entry-point group ``worldaction.losses``
of any installed package, or as ``module:Class`` from the working directory. On the command line:

    --losses reconstruction kl inverse_dynamics=1.0 my_losses:Mine=0.1

`NAME=SCALE`, and further options after commas: ``reconstruction=1,proprio=50,share=0.25``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldaction.losses.base import (
        Loss,
        LossOutput,
        Shapes,
        WorldModelLike,
        actions_between,
        joined,
        known_actions,
    )
    from worldaction.losses.building import build, describe
    from worldaction.losses.registry import available, merge, parse

__all__ = [
    "Loss",
    "LossOutput",
    "Shapes",
    "WorldModelLike",
    "actions_between",
    "available",
    "build",
    "describe",
    "joined",
    "known_actions",
    "merge",
    "parse",
]

_WHERE = {
    "base": ("Loss", "LossOutput", "Shapes", "WorldModelLike", "actions_between", "joined", "known_actions"),
    "building": ("build", "describe"),
}


def __getattr__(name: str) -> Any:
    """What is asked for, imported then: a command line is read without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next((module for module, names in _WHERE.items() if name in names), "registry")
    return getattr(import_module(f"{__name__}.{module}"), name)

"""Finding losses by name and reading them from the command line."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import math
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from worldaction.errors import UserError, unknown
from worldaction.losses.base import Loss, Shapes
from worldaction.rssm import Latents

GROUP = "worldaction.losses"
TAPS = tuple(field.name for field in dataclasses.fields(Latents))
_PLUMBING = {"base", "bootstrap", "contract", "cost", "registry", "scaffold"}
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class LossSpec:
    """A loss as the user wrote it: where it is, and what it was given."""

    target: str  # a name, or module:Class
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Back to the command line's form, which `parse` reads."""
        scale = [value for key, value in self.options if key == "scale"]
        rest = [f"{key}={value}" for key, value in self.options if key != "scale"]
        parts = ([f"{self.target}={scale[0]}"] if scale else [self.target]) + rest
        return ",".join(parts)


def parse(text: str) -> LossSpec:
    """Read ``NAME[=SCALE][,OPTION=VALUE...]``."""
    head, *rest = text.split(",")
    target, equals, scale = head.partition("=")
    if not target:
        raise UserError(f"loss {text!r} has no name; write for instance inverse_dynamics=1.0")
    options: dict[str, str] = {}
    for part in [f"scale={scale}", *rest] if equals else rest:
        key, _, value = part.partition("=")
        if not (key and value):
            raise UserError(f"loss {text!r}: {part!r} is not OPTION=VALUE; write for instance kl=0.3,free_nats=1")
        if key in options:
            raise UserError(f"loss {text!r} gives {key!r} twice; give it once")
        options[key] = value
    return LossSpec(target, tuple(options.items()))


def merge(given: Sequence[str], preset: Sequence[str]) -> tuple[str, ...]:
    """The user's list, each entry completed by the preset's options for the same loss.

    So that ``--losses reconstruction kl`` means the preset without its other losses, not losses with other settings.
    """
    base = {parse(text).target: dict(parse(text).options) for text in preset}
    merged = []
    for text in given:
        spec = parse(text)
        options = base.get(spec.target, {}) | dict(spec.options)
        merged.append(str(LossSpec(spec.target, tuple(options.items()))))
    return tuple(merged)


def available() -> dict[str, str]:
    """Every loss that has a name, and the ``module:Class`` it stands for."""
    found: dict[str, str] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        found[entry.name] = entry.value
    package = importlib.import_module("worldaction.losses")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _PLUMBING:
            for cls in _losses_in(f"worldaction.losses.{module.name}"):
                found[cls.name] = f"{cls.__module__}:{cls.__name__}"
    return found


def _losses_in(module: str) -> list[type[Loss]]:
    loaded = importlib.import_module(module)
    members = [m for m in vars(loaded).values() if isinstance(m, type) and issubclass(m, Loss)]
    return [m for m in members if m.__module__ == loaded.__name__ and getattr(m, "name", None)]


def find(target: str) -> type[Loss]:
    """The class behind a name or a ``module:Class``."""
    known = available()
    path = target if ":" in target else known.get(target)
    if path is None:
        raise unknown("loss", target, known)
    module_name, _, class_name = path.partition(":")
    if not module_name:
        raise UserError(f"loss {target!r} names no module; write for instance my_losses:Mine")
    if ":" in target and os.getcwd() not in sys.path:
        # last, so that a file that happens to lie there hides no installed module
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        remedy = "run from the folder that holds it, or install it"
        raise UserError(f"loss {target!r}: there is no module {module_name!r}; {remedy}") from None
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Loss)):
        names = [c.__name__ for c in _losses_in(module_name)]
        raise UserError(f"loss {target!r}: {class_name!r} is no worldaction.losses.Loss there; found {names}")
    return cls


def source_of(cls: type[Loss]) -> str:
    """The arXiv id of the paper that a loss comes from: the first that its file names, or nothing."""
    found = re.search(r"\b\d{4}\.\d{5}\b", sys.modules[cls.__module__].__doc__ or "")
    return found[0] if found else ""


def describe(costs: Mapping[str, float] | None = None) -> str:
    """A table of every named loss: default scale, the taps it reads, source, cost if measured, and what it is.

    Args:
        costs: shares of a training step, by name; see `worldaction.losses.cost`.
    """
    rows = [("loss", "scale", "reads", "arXiv", "cost", "")]
    for name in sorted(available()):
        cls = find(name)
        scale = dataclasses.fields(cls.Options)[0].default
        reads = [*sorted(cls.needs), *sorted(cls.reads), *(["images"] if cls.encodes else [])]
        cost = f"{100 * costs[name]:.1f} %" if costs and name in costs else ""
        first = (sys.modules[cls.__module__].__doc__ or "").strip().splitlines()[0]
        rows.append((name, f"{scale:g}", ", ".join(reads), source_of(cls), cost, first))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    keep = [i for i in range(5) if costs or i != 4]
    return "\n".join("  ".join([*(row[i].ljust(widths[i]) for i in keep), row[5]]).rstrip() for row in rows)


def name_taken(name: str) -> bool:
    """Whether the dictionary in which a model keeps its losses has an attribute of this name, such as "keys"."""
    return hasattr(nn.ModuleDict(), name)


def _convert(cls: type[Loss], key: str, value: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls.Options)}
    if key not in fields:
        raise unknown(f"option of loss {cls.name}:", key, fields)
    kind: Any = type(fields[key].default)
    if kind is bool:
        if value.lower() not in _TRUTH:
            raise UserError(f"loss {cls.name}: {key}={value!r} is neither true nor false; give a truth value")
        return _TRUTH[value.lower()]
    try:
        number = kind(value)
    except ValueError:
        raise UserError(f"loss {cls.name}: {key}={value!r} is no {kind.__name__}; give a number") from None
    if kind is float and not math.isfinite(number):
        raise UserError(f"loss {cls.name}: {key}={value!r} is not finite; give a number")
    return number


def options_of(cls: type[Loss], given: Iterable[tuple[str, str]]) -> Any:
    """The options of a loss, from what the user wrote; see `LossSpec.options`."""
    return cls.Options(**{key: _convert(cls, key, value) for key, value in given})


def build(texts: Iterable[str], shapes: Shapes) -> dict[str, Loss]:
    """The losses of a list, by name, in order.

    Args:
        texts: entries in the form that `parse` reads.
        shapes: sizes of the model.
    """
    losses: dict[str, Loss] = {}
    for text in texts:
        spec = parse(text)
        cls = find(spec.target)
        options = options_of(cls, spec.options)
        if name_taken(cls.name):
            raise UserError(f"loss {spec.target!r} is named {cls.name!r}, as a part of torch's ModuleDict; rename it")
        if cls.name in losses:
            raise UserError(f"loss {cls.name!r} is listed twice; name each loss once")
        for tap in cls.needs:
            if tap not in TAPS:
                raise unknown(f"tap that loss {cls.name} needs:", tap, TAPS)
        losses[cls.name] = cls(options, shapes)
    return losses

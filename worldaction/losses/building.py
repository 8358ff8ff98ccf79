"""Losses from the command line's text: made for a model's sizes, and described for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from worldaction.errors import UserError, unknown
from worldaction.listing import aligned, first_line, source_of
from worldaction.losses.base import Loss, Shapes
from worldaction.losses.registry import LOSSES, available, find, parse
from worldaction.world_model.latent import Latents

TAPS = tuple(field.name for field in dataclasses.fields(Latents))


def describe(costs: Mapping[str, float] | None = None) -> str:
    """A table of every named loss: default scale, the taps it reads, source, cost if measured, and what it is.

    Args:
        costs: shares of a training step, by name; see `worldaction.losses.tools.cost`.
    """
    rows = [("loss", "scale", "reads", "arXiv", "cost", "")]
    for name in sorted(available()):
        cls = find(name)
        scale = dataclasses.fields(cls.Options)[0].default
        reads = [*sorted(cls.needs), *sorted(cls.reads), *(["images"] if cls.encodes else [])]
        cost = f"{100 * costs[name]:.1f} %" if costs and name in costs else ""
        rows.append((name, f"{scale:g}", ", ".join(reads), source_of(cls), cost, first_line(cls)))
    return aligned([row if costs else (*row[:4], row[5]) for row in rows])


def name_taken(name: str) -> bool:
    """Whether the dictionary in which a model keeps its losses has an attribute of this name, such as "keys"."""
    return hasattr(nn.ModuleDict(), name)


def options_of(cls: type[Loss], given: Iterable[tuple[str, str]]) -> Any:
    """The options of a loss, from what the user wrote; see `worldaction.extension.Spec`."""
    return LOSSES.options(cls, given)


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

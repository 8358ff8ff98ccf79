"""Members of a family of plug-ins as a table for people: name, options of its own, source, and what it is."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

from worldaction.extension import Family

Row = tuple[str, ...]


def source_of(cls: type[Any]) -> str:
    """The arXiv id of the paper that a member comes from: the first that its file names, or nothing."""
    found = re.search(r"\b\d{4}\.\d{5}\b", _about(cls))
    return found[0] if found else ""


def first_line(cls: type[Any]) -> str:
    """What a member is: the first line of its file."""
    return next(iter(_about(cls).strip().splitlines()), "")


def members(family: Family, shared: type[Any]) -> str:
    """A table of every member that has a name.

    Args:
        family: such as `agents.policies.registry.POLICIES`.
        shared: a dataclass of options that have flags of their own, which are not told again.
    """
    flags = {field.name for field in dataclasses.fields(shared)}
    rows: list[Row] = [(family.kind, "options of its own", "arXiv", "what it is")]
    for name in sorted(family.available()):
        cls = family.find(name)
        own = [f"{f.name}={_default(f)}" for f in dataclasses.fields(cls.Options) if f.name not in flags]
        rows.append((name, ",".join(own), source_of(cls), first_line(cls)))
    return aligned(rows)


def aligned(rows: list[Row]) -> str:
    """Columns of equal width, but for the last."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def _default(field: dataclasses.Field[Any]) -> str:
    """What an option is without a word; "?" where it has to be given, or is made anew each time."""
    return "?" if field.default is dataclasses.MISSING else str(field.default)


def _about(cls: type[Any]) -> str:
    return sys.modules[cls.__module__].__doc__ or ""

"""Tables and the numbers in them: written once, shown on terminals, in documents and on pages.

A rate is "50 [43, 57]" in per cent, a difference "+25 [+10, +40]" in percentage points, both with a 95 % interval.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Self

from experiments.report.statistics import Estimate

DASH = "-"
"""Where a number is not known."""
ANY_UPDATE = "improved"
"""What the improved policies of a comparison are called, where its arms have different updates."""
_INTERVAL = re.compile(r"(\[[-+.\d]+, [-+.\d]+\])")


class Cell(str):
    """A cell that a page shows in its own way.

    Attributes:
        kind: "good" or "bad" where it stands out, "html" where it is markup already.
    """

    kind: str

    def __new__(cls, text: str, kind: str) -> Self:
        """Text, and how it is shown."""
        cell = super().__new__(cls, text)
        cell.kind = kind
        return cell


@dataclass(frozen=True)
class Table:
    """Cells of text in rows and columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """As many cells each as there are columns."""
    total: Sequence[str] = ()
    """A last row that stands out on a page."""
    title: str = ""
    about: str = ""
    """What it shows, in sentences."""
    key: str = ""
    """What a page finds it by."""

    @property
    def body(self) -> list[Sequence[str]]:
        """All rows, the last one included."""
        return [*self.rows, *([self.total] if self.total else [])]

    def text(self, *, rule: bool = True) -> str:
        """Aligned columns for a terminal.

        Args:
            rule: whether a line of dashes is drawn below the head.
        """
        rows = [self.columns, *self.body]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([lines[0], *(["-" * max(map(len, lines))] if rule else []), *lines[1:]])

    def markdown(self) -> str:
        """For documents."""
        head, *rows = [
            "| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in (self.columns, *self.body)
        ]
        return "\n".join([head, "|" + "---|" * len(self.columns), *rows])

    def html(self, kind: str = "numbers") -> str:
        """For a page. Intervals are in small print; a table that is too wide can be scrolled.

        Args:
            kind: "numbers" where all columns but the first are, "text" where none is, "text settings" for long lists;
                "folded" where names and heads may take several lines, "folded second" where the second column is text.
        """
        lines = [_row("th", self.columns), *(_row("td", row) for row in self.rows)]
        lines += [_row("td", self.total, "total")] if self.total else []
        return f'<div class="scroll"><table class="{kind}">\n' + "\n".join(lines) + "\n</table></div>"


def _row(tag: str, cells: Sequence[str], kind: str = "") -> str:
    shown = "".join(f"<{tag}{' class=number' if i else ''}>{_cell(cell)}</{tag}>" for i, cell in enumerate(cells))
    return f'<tr class="{kind}">{shown}</tr>' if kind else f"<tr>{shown}</tr>"


def _cell(cell: str) -> str:
    kind = cell.kind if isinstance(cell, Cell) else ""
    if kind == "html":
        return cell
    # a long name may be broken after its parts
    text = re.sub(r"([+,])(?=[a-z])", r"\1<wbr>", escape(cell))
    text = _INTERVAL.sub(r"<small>\1</small>", text)
    if not kind:
        return text
    value, space, interval = text.partition(" ")
    return f'<span class="{kind}">{value}</span>{space}{interval}'


# Numbers --------------------------------------------------------------------------------------------------------------


def number(value: float | None, digits: int) -> str:
    """So many digits after the point, or a dash."""
    return DASH if value is None else f"{value:.{digits}f}"


def percent(share: float | None, unit: str = " %") -> str:
    """A share as whole per cent, or a dash."""
    return DASH if share is None else f"{100 * share:.0f}{unit}"


def points(share: float | None) -> str:
    """A difference of shares as whole percentage points, or a dash."""
    return DASH if share is None else f"{100 * share:+.0f}"


def bracket(ends: Iterable[float], form: str = ".0f") -> str:
    """The ends of an interval, in a form such as "+.2f"; a dash for one that says nothing."""
    known = list(ends)
    return "[" + ", ".join(f"{end:{form}}" for end in known) + "]" if all(map(math.isfinite, known)) else DASH


def estimate(value: Estimate | None, form: str) -> str:
    """A number and its interval, in a form such as "+.2f", or a dash."""
    return DASH if value is None else f"{value.value:{form}} {bracket(value.interval, form)}"


def rate(value: Estimate, unit: str = "") -> str:
    """A share in per cent and its interval, "50 [43, 57]"."""
    return f"{percent(value.value, unit)} {bracket(100 * end for end in value.interval)}"


def change(value: Estimate) -> str:
    """A difference of shares in points and its interval, "+25 [+10, +40]"; set off where it is clear."""
    low, high = value.interval
    text = f"{points(value.value)} {bracket((100 * low, 100 * high), '+.0f')}"
    return Cell(text, "good" if low > 0 else "bad" if high < 0 else "")


def shares(*values: float | None, unit: str = "") -> str:
    """Several shares in per cent, "60, 90"."""
    return ", ".join(percent(value, unit) for value in values)


def duration(seconds: float | None) -> str:
    """A time in words; empty where it is not known."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def span(counts: Iterable[int]) -> str:
    """Counts in words: one number where all are equal."""
    found = sorted(counts)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def label(policy: str) -> str:
    """A policy's name as it is read, such as BC or PPO; "improved" where arms were improved by different updates."""
    return policy if policy == ANY_UPDATE else words(policy).upper()


def words(name: str) -> str:
    """A task's or metric's name as it is read."""
    return name.replace("_", " ")

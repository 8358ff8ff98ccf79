"""What was timed, as plain values, and the tables of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.bench.base import Work
from experiments.bench.clock import Times, median, speedup
from experiments.report.statistics import Estimate
from experiments.report.table import Table, estimate


@dataclass(frozen=True)
class Entry:
    """One library at one piece of work.

    Attributes:
        name: who.
        about: what it computes.
        ours: whether it is this library's.
        precision: of its products.
        parameters: how many it has.
        flops: of one unit, in matrix products and convolutions; 0 where unknown.
        cpu, wall: seconds of one unit, a number a round.
    """

    name: str
    about: str
    ours: bool
    precision: str
    parameters: int
    flops: float
    cpu: tuple[float, ...]
    wall: tuple[float, ...]

    @classmethod
    def of(cls, name: str, work: Work, times: Sequence[Times]) -> Entry:
        """From its times."""
        cpu, wall = (tuple(getattr(t, clock) / work.amount for t in times) for clock in ("cpu", "wall"))
        flops = work.flops / work.amount
        return cls(name, work.about, work.ours, work.precision, work.parameters, flops, cpu, wall)


@dataclass(frozen=True)
class Comparison:
    """Entries that took turns at the same work.

    Attributes:
        name: what was done.
        unit: what is counted, in the plural.
        entries: who did it.
        clock: what decides: "cpu", or "wall" where a GPU computes.
        slow: whether a unit takes so long that it is counted in milliseconds, not in units a second.
    """

    name: str
    unit: str
    entries: tuple[Entry, ...]
    clock: str = "cpu"
    slow: bool = False

    def speed(self, entry: Entry, clock: str) -> Estimate:
        """Units a second, or milliseconds a unit: median over the rounds and its interval."""
        seconds = getattr(entry, clock)
        return median([1e3 * s if self.slow else 1 / s for s in seconds])

    def fastest(self) -> dict[str, Entry]:
        """The fastest of ours in each precision."""
        best: dict[str, Entry] = {}
        for entry in self.entries:
            held = best.get(entry.precision)
            if entry.ours and (held is None or self._seconds(entry) < self._seconds(held)):
                best[entry.precision] = entry
        return best

    def against(self, entry: Entry) -> dict[str, Estimate]:
        """How many times faster our fastest are than an entry, by precision; nothing for such a one itself."""
        return {
            precision: speedup(getattr(entry, self.clock), getattr(best, self.clock))
            for precision, best in self.fastest().items()
            if best is not entry
        }

    def _seconds(self, entry: Entry) -> float:
        return median(getattr(entry, self.clock)).value

    def plain(self) -> dict[str, Any]:
        """For JSON: every round's seconds, and what follows from them."""
        rows = [
            {**vars(entry)}
            | {f"{clock}_speed": _plain(self.speed(entry, clock)) for clock in ("cpu", "wall")}
            | {"ours_is_faster_by": {name: _plain(ratio) for name, ratio in self.against(entry).items()}}
            for entry in self.entries
        ]
        unit = f"ms of {self.unit}" if self.slow else f"{self.unit} a second"
        return {"name": self.name, "speed": unit, "decided_by": self.clock, "entries": rows}


def _plain(estimate: Estimate) -> dict[str, float]:
    return {"median": estimate.value, "low": estimate.interval.low, "high": estimate.interval.high}


# In words -------------------------------------------------------------------------------------------------------------


def table(comparisons: Sequence[Comparison]) -> str:
    """All comparisons in one Markdown table."""
    precisions = ["fp32", "bf16"] if any("bf16" in comparison.fastest() for comparison in comparisons) else ["fp32"]
    columns = ["", "per CPU second", "per second", *(f"ours {p} is faster by" for p in precisions)]
    columns += ["parameters", "MFLOP a unit"]
    rows = []
    for comparison in comparisons:
        unit = "CPU ms, ms" if comparison.slow else comparison.unit
        rows.append((f"**{comparison.name}** ({unit})", *[""] * (len(columns) - 1)))
        rows += [_row(comparison, entry, precisions) for entry in comparison.entries]
    return Table(columns, rows).markdown()


def _row(comparison: Comparison, entry: Entry, precisions: Sequence[str]) -> tuple[str, ...]:
    against = comparison.against(entry)
    ratios = [estimate(against[p], ".2f") if p in against else "" for p in precisions]
    if "-" in against and not entry.ours:
        ratios[0] = estimate(against["-"], ".2f")
    speeds = [_rounded(comparison.speed(entry, clock).value) for clock in ("cpu", "wall")]
    size = f"{entry.parameters / 1e6:.2f} M" if entry.parameters else ""
    return entry.name, *speeds, *ratios, size, f"{entry.flops / 1e6:,.2f}" if entry.flops else ""


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def footnotes(comparisons: Sequence[Comparison]) -> str:
    """What each library computes, once for each that says it differently."""
    said: dict[tuple[str, str], list[str]] = {}
    for comparison in comparisons:
        for entry in comparison.entries:
            names = said.setdefault((comparison.name.partition(",")[0], entry.about), [])
            names += [entry.name] * (entry.name not in names)
    return "\n".join(f"- {comparison}; {'; '.join(names)}: {about}." for (comparison, about), names in said.items())


def gate_table(verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    """What the gate found, in Markdown.

    Args:
        verdicts: comparison -> implementation -> errors by name.
    """
    rows = [
        (comparison, name, ", ".join(f"{key} {value:.2g}" for key, value in errors.items()))
        for comparison, found in verdicts.items()
        for name, errors in found.items()
    ]
    return Table(("held against the definition", "ours", "errors"), rows).markdown()

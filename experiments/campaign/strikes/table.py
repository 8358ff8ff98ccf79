"""All kinds of strikes, and the figures of what came of them."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import experiments.campaign.strikes as strikes
from experiments.campaign.strikes.base import Outcome
from experiments.report.table import Table

Attack = Callable[[int, Path], Outcome]


def known_strikes() -> dict[str, Attack]:
    """Every kind by its name: the files beside this one that have a `NAME`."""
    names = [info.name for info in pkgutil.iter_modules(strikes.__path__)]
    modules = [import_module(f"{strikes.__name__}.{name}") for name in names]
    return {module.NAME: module.attack for module in modules if hasattr(module, "NAME")}


def struck(
    names: Sequence[str], seeds: Sequence[int], folder: Path, *, report: Callable[[str], None]
) -> dict[str, list[Outcome]]:
    """Strike runs of each kind.

    Args:
        names: kinds.
        seeds: one run each.
        folder: to work in; the runs that are compared with are made there once.
        report: called with a line about each run.
    """
    known = known_strikes()
    found: dict[str, list[Outcome]] = {}
    for name in names:
        for seed in seeds:
            outcome = known[name](seed, folder / f"{name.replace(' ', '-')}-{seed}")
            found.setdefault(name, []).append(outcome)
            report(f"{name} {seed}: {outcome.kind}, {outcome.strikes} strikes ({outcome.detail})")
    return found


def table(found: Mapping[str, Sequence[Outcome]]) -> Table:
    """How many runs, how often they were struck, and in how many of these strikes all was as promised."""
    rows = []
    for name, outcomes in found.items():
        total = sum(outcome.strikes for outcome in outcomes)
        well = sum(outcome.strikes for outcome in outcomes if outcome.kind == "correct")
        others = sorted({outcome.kind for outcome in outcomes} - {"correct"})
        rows.append([name, str(len(outcomes)), str(total), f"{well} of {total}", ", ".join(others) or "nothing"])
    return Table(["strike", "runs", "strikes", "the same to the bit", "else"], rows, title="Strikes")

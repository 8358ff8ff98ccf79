"""A run's results as Markdown, with everything that a figure needs beside it: for docs/results.md and for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.report.comparison.tables import markdown_tables
from experiments.report.recorded.jurors import truth_of
from experiments.report.results import result_cells, result_tables
from experiments.report.statistics import estimate_of
from experiments.report.table import Table, change, label, percent, shares
from experiments.report.verdict import comparisons, improved_of, overall, verdict
from worldaction.io.sealed_json import read_json

Json = dict[str, Any]


def markdown(folder: Path) -> str:
    """Tables of a run that evaluated policies, as far as it has come, or of a study with arms; else what else it says.

    Args:
        folder: the run's folder.
    """
    summary, made = read_json(folder / "summary.json"), read_json(folder / "env.json")
    if "arms" in summary:
        return "\n\n".join([_origin(summary, made), markdown_tables(summary)])
    if not summary.get("tasks"):
        return "\n\n".join([_origin(summary, made), verdict(summary)])
    _, *more = result_tables(summary)
    tables = [_seeds(summary).markdown(), _tasks(summary).markdown(), *map(_titled, more)]
    return "\n\n".join([_origin(summary, made), verdict(summary), *tables])


def _origin(summary: Json, made: Json) -> str:
    worked = summary.get("worked_seconds")
    minutes = (summary["seconds"] if worked is None else worked) / 60
    parts = [
        made["started"][:10],
        f"commit {summary['commit']}",
        f"preset {summary['preset']}, settings {summary['settings']}, seeds {' '.join(map(str, summary['seeds']))}",
        f"{made['device']} of {made['cores']} cores ({made['processor']}), renderer {summary['renderer']}",
        f"{minutes:.0f} minutes",
    ]
    return ", ".join(parts) + "."


def _seeds(summary: Json) -> Table:
    """One row for every task and seed."""
    improved = improved_of(summary)
    who = label(improved)
    columns = ("task", "seed", "n", "BC %", f"{who} %", f"{who} - BC, points", f"imagined BC, {who} %")
    rows = [
        (
            name,
            str(seed["seed"]),
            # of the seeds of a run that was interrupted, some have not been evaluated
            str(task["n"] // len(task["per_seed"])),
            percent(seed["bc"], ""),
            percent(seed[improved], ""),
            change(estimate_of(seed["difference"])),
            shares(seed["imagined_bc"], seed[f"imagined_{improved}"]),
            str(seed["iterations"]),
            seed["stop_reason"],
        )
        for name, task in summary["tasks"].items()
        for seed in task["per_seed"]
    ]
    return Table((*columns, "iterations", "stopped by"), rows)


def _tasks(summary: Json) -> Table:
    """One row for every task over all seeds, and the average."""
    who = label(improved_of(summary))
    found = comparisons(summary)
    found["average"] = overall(summary)._replace(episodes=sum(task.episodes or 0 for task in found.values()))
    rows = []
    for name, task in found.items():
        episodes, bc, improved, difference, _, gap = result_cells(task)
        rows.append((name, episodes, bc, improved, difference, gap))
    gap = f"imagined minus {truth_of(summary)}, {who}"
    return Table(("task", "n", "BC %", f"{who} %", f"{who} - BC, points", gap), rows)


def _titled(table: Table) -> str:
    return f"{table.title}. {table.about}\n\n{table.markdown()}"

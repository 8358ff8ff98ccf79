"""A run's results as Markdown, with everything that a figure needs beside it: for docs/results.md and for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.report.comparison.tables import markdown_tables
from experiments.report.verdict import verdict
from worldaction.io.artefact import read_json


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
    return "\n".join([_origin(summary, made), "", *_seeds(summary), "", *_tasks(summary)])


def _origin(summary: dict[str, Any], made: dict[str, Any]) -> str:
    minutes = summary["seconds"] / 60
    parts = [
        made["started"][:10],
        f"commit {summary['commit']}",
        f"preset {summary['preset']}, settings {summary['settings']}, seeds {' '.join(map(str, summary['seeds']))}",
        f"{made['device']} of {made['cores']} cores ({made['processor']}), renderer {summary['renderer']}",
        f"{minutes:.0f} minutes",
    ]
    return ", ".join(parts) + "."


def _seeds(summary: dict[str, Any]) -> list[str]:
    """One row for every task and seed."""
    # of the seeds of a run that was interrupted, some have not been evaluated
    count = {name: task["n"] // len(task["per_seed"]) for name, task in summary["tasks"].items()}
    rows = [
        "| task | seed | n | BC % | PPO % | PPO - BC, points | imagined BC, PPO % | iterations | stopped by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, task in summary["tasks"].items():
        rows += [_seed(name, count[name], seed) for seed in task["per_seed"]]
    return rows


def _seed(name: str, n: int, seed: dict[str, Any]) -> str:
    return (
        f"| {name} | {seed['seed']} | {n} | {_percent(seed['bc'])} | {_percent(seed['ppo'])} "
        f"| {_points(seed['difference'])} | {_percent(seed['imagined_bc'])}, {_percent(seed['imagined_ppo'])} "
        f"| {seed['iterations']} | {seed['stop_reason']} |"
    )


def _tasks(summary: dict[str, Any]) -> list[str]:
    """One row for every task over all seeds, and the average."""
    rows = ["| task | n | BC % | PPO % | PPO - BC, points | imagined - real, PPO |", "|---|---|---|---|---|---|"]
    for name, task in summary["tasks"].items():
        rows.append(_row(name, task["n"], task, "rate"))
    total = sum(task["n"] for task in summary["tasks"].values())
    return [*rows, _row("average", total, summary["average"], "value")]


def _row(name: str, n: int, part: dict[str, Any], key: str) -> str:
    gap = part["imagined"]["ppo"] - part["ppo"][key]
    rates = " | ".join(f"{_percent(part[policy][key])} {_span(part[policy]['interval'])}" for policy in ("bc", "ppo"))
    return f"| {name} | {n} | {rates} | {_points(part['difference'])} | {100 * gap:+.0f} |"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _span(interval: list[float]) -> str:
    return f"[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def _points(difference: dict[str, Any]) -> str:
    low, high = difference["interval"]
    return f"{100 * difference['value']:+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"

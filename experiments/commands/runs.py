"""`worldaction runs`: the runs in a folder, how far each is and what it came to."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

HELP = "list runs: date, preset, state, verdict"
DEPTH: Final = 2
"""Folders below the one that is given in which runs are looked for: runs/PROGRAM/NAME."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="where (default: runs)")


def run(chosen: argparse.Namespace) -> None:
    """Print a line a run, the youngest last."""
    from experiments.report.table import Table
    from worldaction.errors import UserError

    if not chosen.folder.is_dir():
        raise UserError(f"there is no folder {chosen.folder}; give the one that your runs are in")
    lines = sorted(_line(folder) for folder in run_folders(chosen.folder))
    if not lines:
        raise UserError(f"{chosen.folder} holds no runs; give the folder that they are in")
    rows = [(folder, date, *others) for date, folder, *others in lines]
    print(Table(("run", "begun", "preset", "environment", "state", "success"), rows).text())


def run_folders(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The runs in a folder, or the folder itself if it is one; the arms of a run are a part of it."""
    if (folder / "config.json").exists() and (folder / "env.json").exists():
        yield folder
    elif depth:
        for child in sorted(path for path in folder.iterdir() if path.is_dir()):
            yield from run_folders(child, depth - 1)


def _line(folder: Path) -> tuple[str, ...]:
    """Begin, folder, preset, environment, state and success of a run."""
    from worldaction.errors import UserError
    from worldaction.io.sealed_json import read_json

    try:
        config, env = (read_json(folder / name) for name in ("config.json", "env.json"))
        summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
        begun = str(env["started"])[:16].replace("T", " ")
        told = (str(config["preset"]), str(config.get("env", "")).rpartition("/")[2])
        return begun, str(folder), *told, _state(summary), _success(summary)
    except (UserError, KeyError, TypeError) as error:
        return "", str(folder), "", "", f"damaged: {error}", ""


def _state(summary: Mapping[str, Any]) -> str:
    if not summary:
        return "interrupted or at work"
    left = summary.get("unfinished") or ()
    stages = sum(left.values()) if isinstance(left, Mapping) else len(left)
    return f"{stages} stages left" if stages else "finished"


def _success(summary: Mapping[str, Any]) -> str:
    """BC and the improved policy, with the difference, in few words."""
    from experiments.report.recorded.jurors import jurors_of
    from experiments.report.table import change, label, percent
    from experiments.report.verdict import improved_of, overall

    if "arms" in summary:
        return f"{len(summary['arms'])} arms: see report.html"
    if not summary.get("tasks"):
        return "no policies" if summary else ""
    found = overall(summary)
    rates = f"BC {percent(found.bc.value)}, {label(improved_of(summary))} {percent(found.improved.value)}"
    return f"{rates}, {change(found.difference)} points{' by jurors' if jurors_of(summary) else ''}"

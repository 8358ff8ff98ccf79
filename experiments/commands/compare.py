"""`worldaction compare`: finished runs beside each other, start by start."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "finished runs beside each other: differences in success, with intervals"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders; the first is the reference")
    parser.add_argument("--markdown", action="store_true", help="print all tables in Markdown instead")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers as JSON")


def run(chosen: argparse.Namespace) -> None:
    """Print the tables of a comparison."""
    from experiments.report.comparison import console_tables, markdown_tables
    from experiments.report.comparison.runs import compare_runs
    from worldaction.io.atomic import write_json

    found = compare_runs(chosen.runs)
    print(markdown_tables(found) if chosen.markdown else console_tables(found))
    if chosen.out is not None:
        write_json(chosen.out, found)

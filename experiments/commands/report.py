"""`worldaction report`: a run's page and tables, written again."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a run's report.html again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/results.md instead")


def run(chosen: argparse.Namespace) -> None:
    """Write it."""
    from experiments.report.pages.markdown import markdown
    from experiments.report.pages.run_page import write_report
    from experiments.study.conduct import refresh

    refresh(chosen.run)
    print(markdown(chosen.run) if chosen.markdown else write_report(chosen.run))

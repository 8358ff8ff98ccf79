"""`worldaction figure`: the figures of a run's page as files for a paper."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a run's figures as PDF, SVG or PNG"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--format", choices=("pdf", "svg", "png"), default="pdf", help="of the files (default: pdf)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of them (default: all)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where (default: the run's folder `curves`)")


def run(chosen: argparse.Namespace) -> None:
    """Write them, each with its numbers as CSV beside it."""
    from experiments.report.comparison import page
    from experiments.report.figures import save_figure
    from experiments.report.pages.run_page import RunFiles, plots
    from experiments.study.conduct import refresh
    from worldaction.errors import UserError, unknown

    refresh(chosen.run)
    files = RunFiles.read(chosen.run)
    drawn = page.plots(files.summary) if "arms" in files.summary else plots(files)
    if not drawn:
        raise UserError(f"{chosen.run} has nothing to draw yet; go on with it")
    for name in chosen.only or drawn:
        if name not in drawn:
            raise unknown("figure of this run", name, drawn)
        path = (chosen.out or chosen.run / "curves") / name
        save_figure(drawn[name].figure, path, drawn[name].data, kind=chosen.format)
        print(path.with_suffix(f".{chosen.format}"))

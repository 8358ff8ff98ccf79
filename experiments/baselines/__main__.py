"""Baselines of a finished run: worldaction baselines RUN [--methods ...] [--tasks ...] [--seeds ...]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.baselines import BASELINES, REPLACED
from experiments.study.waiting import choose_waiting
from worldaction.errors import UserError
from worldaction.signals import how_to_go_on

if TYPE_CHECKING:
    from experiments.baselines.job import Job
    from experiments.study.run import Run


def main(arguments: Sequence[str]) -> None:
    """Learn and test what is asked for and not yet done, and show the table of all that is.

    Args:
        arguments: without the program's name.
    """
    chosen = _parser().parse_args(arguments)
    choose_waiting()
    from experiments.baselines.job import work
    from experiments.baselines.table import results, tables, write_csv
    from experiments.study.checks import among
    from experiments.study.finished import check_finished
    from experiments.study.pool import run_jobs
    from experiments.study.run import Run
    from worldaction.io.recorder import setup_logging

    run = Run.open(chosen.run)
    tasks, seeds = among(chosen.tasks, run.study.tasks, "task"), among(chosen.seeds, run.study.seeds, "seed")
    check_finished(run, tasks, seeds)
    jobs = _jobs(run, chosen, tasks, seeds)
    log = run.folder / "baselines" / "console.log"
    setup_logging(log)
    with how_to_go_on("the same command goes on with what is not done yet"):
        run_jobs([partial(work, job) for job in jobs], chosen.workers or run.study.workers, stage="baselines", log=log)
    found = results(run, tasks, seeds)
    write_csv(found, run.folder / "baselines" / "baselines.csv")
    shown = tables(found, run.study.improved)
    print("\n\n".join(table.markdown() if chosen.markdown else table.text() for table in shown))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worldaction baselines",
        description="Other ways to learn a finished run's tasks, tested at the same start states with the same limits.",
    )
    parser.add_argument("run", type=Path, help="the run's folder; results go to its folder baselines")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="names, or module:Class (default: all)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks of the run (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="seeds of the run (default: all)")
    parser.add_argument("--episodes", type=int, metavar="N", help="start states a task and seed (default: the run's)")
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="control steps to learn in, simulator or dream (default: as many as the run's own update may imagine)",
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: the run's)")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    return parser


def _jobs(run: Run, chosen: argparse.Namespace, tasks: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """What is not done yet, in the order in which it is shown."""
    from experiments.baselines.job import Job

    study = run.study
    episodes = study.evaluation.episodes if chosen.episodes is None else chosen.episodes
    if not 1 <= episodes <= study.evaluation.episodes:
        raise UserError(
            f"--episodes {episodes}: the run was tested at {study.evaluation.episodes} start states; give 1 to that"
        )
    budget = study.update.iterations * study.update.dreams * study.dream_steps if chosen.steps is None else chosen.steps
    if budget < 1:
        raise UserError(f"--steps {budget}: give 1 or more")
    if chosen.workers < 0:
        raise UserError(f"--workers {chosen.workers}: give 1 or more")
    methods = list(dict.fromkeys(chosen.methods or sorted(BASELINES.available())))
    for method in methods:
        if method in REPLACED:
            raise UserError(f"method {method!r} is a study of its own now: {REPLACED[method]}")
    jobs = [Job(run.folder, m, task, seed, episodes, budget) for m in methods for task in tasks for seed in seeds]
    return [job for job in jobs if not job.artefact(run).complete]


if __name__ == "__main__":
    from experiments.guard import guarded

    sys.exit(guarded(lambda: main(sys.argv[1:])))

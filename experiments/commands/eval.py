"""`worldaction eval`: the policies of a finished run in another simulator."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.study.waiting import choose_waiting
from worldaction.errors import UserError
from worldaction.signals import how_to_go_on

if TYPE_CHECKING:
    from experiments.study.run import Run

HELP = "the policies of a finished run in another simulator"
CALVIN = "worldaction/Calvin-v0"
WORKERS = (
    "processes: so many tasks and seeds are evaluated at a time, each with as many simulators as the run's"
    " --evaluation.parallel says (default: the run's workers)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("run", type=Path, help="the run's folder; its summary and report are written again")
    parser.add_argument(
        "--in", dest="env", default=CALVIN, metavar="ENV", help=f"as --env names it (default: {CALVIN})"
    )
    parser.add_argument(
        "--episodes",
        type=int,
        metavar="N",
        help="start states a task and seed, the first of the run's evaluation (default: its"
        " --evaluation.judged-episodes)",
    )
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks of the run (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="seeds of the run (default: all)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help=WORKERS)


def run(chosen: argparse.Namespace) -> None:
    """Evaluate what is not evaluated there yet, and write the run's summary and report again."""
    choose_waiting()
    from experiments.report.run_page import console_table
    from experiments.stages.judge import judge
    from experiments.study.conduct import chosen_kernels, finish
    from experiments.study.finished import among, check_finished
    from experiments.study.pool import run_jobs
    from experiments.study.run import Run
    from experiments.study.sessions import session
    from worldaction.io.artefact import read_json
    from worldaction.io.recorder import setup_logging

    _check_asked(chosen)
    found = Run.open(chosen.run)
    tasks, seeds = among(chosen.tasks, found.study.tasks, "task"), among(chosen.seeds, found.study.seeds, "seed")
    check_finished(found, tasks, seeds)
    episodes = _checked(found, chosen, tasks)
    jobs = [partial(judge, found, seed, task, chosen.env, episodes=episodes) for seed in seeds for task in tasks]
    _forget_links(found, chosen.env, tasks, seeds)
    again = how_to_go_on("the same command goes on with what is not done yet")
    with again, session(found.folder), chosen_kernels(found.study.kernels):
        setup_logging(found.log)
        run_jobs(jobs, chosen.workers or found.study.workers, stage="evaluation", log=found.log)
        finish(found)
    print(console_table(read_json(found.folder / "summary.json")))


def _check_asked(chosen: argparse.Namespace) -> None:
    """Refuse what no run could answer, before torch is imported."""
    from experiments.study.settings import load_study

    load_study(chosen.run)
    if chosen.workers < 0:
        raise UserError(f"--workers {chosen.workers}: give 1 or more")
    if chosen.episodes is not None and chosen.episodes < 1:
        raise UserError(f"--episodes {chosen.episodes}: give 1 or more")


def _checked(found: Run, chosen: argparse.Namespace, tasks: list[str]) -> int:
    """How many episodes; what cannot work is refused."""
    from dataclasses import replace

    from experiments.study.checks import check_judges

    study, room = found.study, found.study.evaluation.episodes
    settings = study.evaluation.judged_episodes
    episodes = settings if chosen.episodes is None else chosen.episodes
    if chosen.episodes is not None and episodes > room:
        raise UserError(f"--episodes {episodes}: give 1 to {room}, as many as the run itself was evaluated in")
    if chosen.env == study.env:
        raise UserError(f"--in {chosen.env}: the run has been evaluated there already; see its report")
    if chosen.env in study.evaluate_in and episodes != settings:
        raise UserError(f"--episodes {episodes}: the run itself is to be judged in {settings}; leave it out")
    evaluation = replace(study.evaluation, judged_episodes=episodes)
    asked = replace(study, evaluate_in=(chosen.env,), evaluation=evaluation, tasks=tuple(tasks))
    check_judges(asked, found.resolved.layout, option="--in")
    return episodes


def _forget_links(found: Run, env: str, tasks: list[str], seeds: list[int]) -> None:
    """Let go of what was judged in another number of episodes; it stays in the cache, and comes back if asked for."""
    from experiments.study.checks import judged_in

    for seed in seeds:
        for task in tasks:
            link = found.folder / "artefacts" / f"seed{seed}" / task / judged_in(env)
            if link.is_symlink():
                link.unlink()

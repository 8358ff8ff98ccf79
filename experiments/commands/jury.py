"""`worldaction jury`: what the world models of a run's other seeds say of what its policies dream."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.study.waiting import choose_waiting
from worldaction.errors import UserError

if TYPE_CHECKING:
    from experiments.stages.jury import Heard

HELP = "what the world models of other seeds say of a policy's dreams"
FILE = "jury.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("run", type=Path, help=f"the run's folder, of two seeds or more; {FILE} is written there")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks of the run (default: all)")


def run(chosen: argparse.Namespace) -> None:
    """Ask the jury, print what it says, and write it into the run's folder."""
    from experiments.study.settings import load_study

    study = load_study(chosen.run)
    if len(study.seeds) < 2 and not study.arms:
        raise UserError(
            f"{chosen.run} has one seed, {study.seeds[0]}, so there is no other world model to ask; give a run that was"
            " begun with several --seeds"
        )
    choose_waiting()
    from experiments.stages.jury import Heard, hear
    from experiments.study.checks import among
    from experiments.study.conduct import chosen_kernels
    from experiments.study.finished import check_finished
    from experiments.study.run import Run
    from worldaction.io.atomic import write_json
    from worldaction.io.recorder import progress
    from worldaction.io.sealed_json import read_json

    found = Run.open(chosen.run)
    tasks = among(chosen.tasks, found.study.tasks, "task")
    check_finished(found, tasks, found.study.seeds)
    path = found.folder / FILE
    before = [Heard(**one) for one in read_json(path)] if path.exists() else []
    heard: list[Heard] = []
    with chosen_kernels(found.study.kernels), progress(len(tasks), "jury", "task") as bar:
        for task in tasks:
            heard += hear(found, task)
            bar.update(1)
    # of tasks that are not asked for, what was heard before stays
    write_json(path, [one._asdict() for one in [*(h for h in before if h.task not in tasks), *heard]])
    print(table(heard))


def table(heard: Sequence[Heard]) -> str:
    """Each policy by its three judges, and how well its own dreams and the jury go with what is real.

    Rank correlations are of the policies of a task, averaged over the tasks in which they vary: pooled, they would
    say which tasks are hard.
    """
    import torch

    from experiments.report.table import Table
    from worldaction.metrics.causal import rank_correlation

    def percent(share: float) -> str:
        return f"{100 * share:.0f}"

    rows = [
        (
            h.task,
            str(h.seed),
            h.policy,
            percent(h.real),
            percent(h.own),
            percent(h.jury),
            " ".join(map(percent, h.jurors)),
        )
        for h in heard
    ]
    columns = ("task", "seed", "policy", "real %", "own dreams %", "jury %", "its jurors %")
    lines = [Table(columns, rows).text(), ""]
    for name, judge in (("own dreams", "own"), ("the jury", "jury")):
        errors, correlations = [], []
        for task in dict.fromkeys(h.task for h in heard):
            said, real = (torch.tensor([getattr(h, who) for h in heard if h.task == task]) for who in (judge, "real"))
            errors.append(said - real)
            correlations.append(rank_correlation(said, real))
        rho, error = torch.stack(correlations).nanmean(), torch.cat(errors)
        order = "no rank correlation" if rho.isnan() else f"rank correlation {float(rho):.2f}"
        gap, off = 100 * float(error.mean()), 100 * float(error.abs().mean())
        lines.append(f"{name} and reality: {order}, {gap:+.0f} points apart, {off:.0f} either way")
    return "\n".join(lines)

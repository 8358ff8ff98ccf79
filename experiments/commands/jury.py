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

    if len(seeds := load_study(chosen.run).seeds) < 2:
        raise UserError(f"{chosen.run} has one seed, {seeds[0]}, so there is no other world model to ask; give --seeds")
    choose_waiting()
    from experiments.stages.jury import hear
    from experiments.study.finished import among, check_finished
    from experiments.study.run import Run
    from worldaction.io.artefact import write_json
    from worldaction.io.recorder import progress

    found = Run.open(chosen.run)
    tasks = among(chosen.tasks, found.study.tasks, "task")
    check_finished(found, tasks, found.study.seeds)
    heard: list[Heard] = []
    with progress(len(tasks), "jury", "task") as bar:
        for task in tasks:
            heard += hear(found, task)
            bar.update(1)
    write_json(found.folder / FILE, [one._asdict() for one in heard])
    print(table(heard))


def table(heard: Sequence[Heard]) -> str:
    """Each policy by its three judges, and how well its own dreams and the jury go with what is real."""
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
    real, own, jury = (torch.tensor([getattr(h, name) for h in heard]).double() for name in ("real", "own", "jury"))
    lines = [Table(columns, rows).text(), ""]
    for name, said in (("own dreams", own), ("the jury", jury)):
        rho, gap = float(rank_correlation(said, real)), 100 * float((said - real).mean())
        off = 100 * float((said - real).abs().mean())
        lines.append(f"{name} and reality: rank correlation {rho:.2f}, {gap:+.0f} points apart, {off:.0f} either way")
    return "\n".join(lines)

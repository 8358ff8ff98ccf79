"""`worldaction campaign`: damage whatever the library reads, strike its processes, and count what becomes of it."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from worldaction.errors import UserError

if TYPE_CHECKING:
    from experiments.report.table import Table

HELP = "damage whatever the library reads, strike studies, and count what becomes of it (docs/reliability.md)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="how long inputs are damaged (default: 5); 0: not at all"
    )
    parser.add_argument(
        "--strikes",
        type=int,
        default=0,
        metavar="N",
        help="tiny studies of each kind of strike: kills, signals, disks, two processes; minutes each (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the inputs, and the first of the strikes (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="these kinds of input or strike (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables and the failures there, as Markdown")


def run(chosen: argparse.Namespace) -> None:
    """Attack, and print the table.

    Raises:
        SystemExit: something came to what must never be, status 1.
        UserError: an option is wrong.
    """
    # a process that is forked while threads compute may wait for them for ever
    import torch

    torch.set_num_threads(1)
    from experiments.campaign.base import known_attacks
    from experiments.campaign.strikes.table import known_strikes
    from experiments.study.checks import among
    from experiments.study.machine import commit

    if not 0 <= chosen.minutes < float("inf") or chosen.seed < 0 or chosen.strikes < 0:
        raise UserError(
            f"--minutes {chosen.minutes:g} --strikes {chosen.strikes} --seed {chosen.seed}: give numbers from 0 on"
        )
    names = among(chosen.only, [*known_attacks(), *known_strikes()], "input or strike")
    parts = [_damaged(chosen, [name for name in names if name in known_attacks()])] if chosen.minutes else []
    parts += [_struck(chosen, [name for name in names if name in known_strikes()])] if chosen.strikes else []
    if not parts:
        raise UserError("--minutes 0 --strikes 0: nothing is left to do; give one of them")
    failures = [line for part in parts for line in part.failures]
    print("\n".join([*(f"\n{part.table.text()}" for part in parts), *failures]))
    if chosen.out is not None:
        head = f"{time.strftime('%Y-%m-%d')}, commit {commit()}, seed {chosen.seed}"
        tables = [f"{part.what}\n\n{part.table.markdown()}" for part in parts]
        text = "\n\n".join([head, *tables, "\n".join(f"- `{line}`" for line in failures)])
        chosen.out.write_text(f"{text}\n", encoding="utf-8")
    if failures:
        raise SystemExit(1)


class Part(NamedTuple):
    """What came of the inputs, or of the strikes."""

    what: str
    table: Table
    failures: list[str]


def _damaged(chosen: argparse.Namespace, names: Sequence[str]) -> Part:
    from experiments.campaign.base import known_attacks
    from experiments.campaign.table import campaign, figures_table

    attacks = [known_attacks()[name] for name in names]
    found = campaign(attacks, minutes=chosen.minutes, seed=chosen.seed, report=_tell)
    failures = [f"{one.attack}: {line}" for one in found for line in one.failures]
    failures += [f"{one.attack} failed" for one in found if one.failed and not one.failures]
    return Part(f"{chosen.minutes:g} minutes of inputs", figures_table(found), failures)


def _struck(chosen: argparse.Namespace, names: Sequence[str]) -> Part:
    from experiments.campaign.strikes.table import struck, table

    seeds = range(chosen.seed, chosen.seed + chosen.strikes)
    with tempfile.TemporaryDirectory() as folder:
        found = struck(names, seeds, Path(folder), report=_tell)
    bad = [(name, outcome) for name, outcomes in found.items() for outcome in outcomes if outcome.kind != "correct"]
    return Part(
        f"{chosen.strikes} studies a strike", table(found), [f"{name}: {one.kind}, {one.detail}" for name, one in bad]
    )


def _tell(line: str) -> None:
    print(line, flush=True)

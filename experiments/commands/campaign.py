"""`worldaction campaign`: damage whatever the library reads, for as long as is asked, and count what becomes of it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from worldaction.errors import UserError

HELP = "damage whatever the library reads and count what becomes of it (docs/reliability.md)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="INPUT", help="these kinds of input (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table and the failures there, as Markdown")


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
    from experiments.campaign.table import campaign, figures_table
    from experiments.study.checks import among
    from experiments.study.machine import commit

    if not 0 < chosen.minutes < float("inf") or chosen.seed < 0:
        raise UserError(f"--minutes {chosen.minutes} --seed {chosen.seed}: give minutes above 0 and a seed from 0 on")
    known = known_attacks()
    attacks = [known[name] for name in among(chosen.only, list(known), "input")]
    found = campaign(attacks, minutes=chosen.minutes, seed=chosen.seed, report=lambda line: print(line, flush=True))
    table = figures_table(found)
    failures = [f"{one.attack}: {line}" for one in found for line in one.failures]
    print("\n".join(["", table.text(), *failures]))
    if chosen.out is not None:
        head = f"{time.strftime('%Y-%m-%d')}, commit {commit()}, seed {chosen.seed}, {chosen.minutes:g} minutes"
        text = "\n".join([head, "", table.markdown(), "", *(f"- `{line}`" for line in failures)])
        chosen.out.write_text(f"{text}\n", encoding="utf-8")
    if any(one.failed for one in found):
        raise SystemExit(1)

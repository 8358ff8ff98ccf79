"""Strikes, and a table of what came of them: python -m experiments.campaign.strikes [--only NAME ...] [--seeds N]."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.campaign.strikes.table import known_strikes, struck, table
from experiments.study.checks import among


def main(arguments: Sequence[str]) -> None:
    """Strike, and say what came of it.

    Raises:
        SystemExit: a promise was broken, status 1.
    """
    known = known_strikes()
    parser = argparse.ArgumentParser(prog="python -m experiments.campaign.strikes", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(known)} (default: all)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each kind (default: 1)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default: 0)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    chosen = parser.parse_args(arguments)
    names, seeds = among(chosen.only, list(known), "strike"), range(chosen.first, chosen.first + chosen.seeds)
    with tempfile.TemporaryDirectory() as folder:
        found = struck(names, seeds, Path(folder), report=lambda line: print(line, flush=True))
    shown = table(found)
    print(shown.markdown() if chosen.markdown else shown.text())
    if any(outcome.kind != "correct" for outcomes in found.values() for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    from experiments.guard import guarded

    sys.exit(guarded(lambda: main(sys.argv[1:])))

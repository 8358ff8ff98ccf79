"""`worldaction replay`: the batch on which a training came to no number, once more."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from worldaction.errors import UserError

HELP = "a batch whose loss was not finite, once more: what is not finite first?"
SHOWN: Final = 8
"""Lines of what is not finite."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("batch", type=Path, help="the file that the training named, non_finite_batch.safetensors")
    parser.add_argument("--losses", nargs="+", default=[], metavar="MODULE:CLASS", help="code of yours to import")
    parser.add_argument("--core", metavar="MODULE:CLASS", help="the recurrent core, where it is yours")
    parser.add_argument(
        "--skip", action="store_true", help="have the run pass over this batch when it is resumed; nothing is replayed"
    )


def run(chosen: argparse.Namespace) -> None:
    """Replay, or have the batch passed over.

    Raises:
        UserError: there is no such file.
        SystemExit: something is not finite, status 1.
    """
    from worldaction.fit import skip
    from worldaction.io.atomic import load_checkpoint
    from worldaction.world_model.replay import replay

    if chosen.skip:
        step = load_checkpoint(chosen.batch).extra.get("step")
        if not isinstance(step, int):
            raise UserError(f"{chosen.batch} does not say which step it is of; give the file that the training named")
        skip(chosen.batch.parent, step)
        print(f"step {step} will be passed over; go on with the run by --resume. Its manifest will say so")
        return
    found = replay(chosen.batch, losses=chosen.losses, core=chosen.core)
    print(f"step      {found.step}: {found.what}")
    for name, value in found.losses.items():
        print(f"loss      {name} {value:.6g}")
    for text in found.left_out:
        print(f"left out  {text}: add --losses {text.partition('=')[0].partition(',')[0]} to import it")
    for number, line in enumerate(found.found[:SHOWN]):
        print(f"{'first' if number == 0 else 'then':<9} {line}")
    if len(found.found) > SHOWN:
        print(f"          and {len(found.found) - SHOWN} more")
    if found.found:
        raise SystemExit(1)
    print("verdict   all is finite here: another machine, another version, or a loss that was left out")

"""How fast is it, and against what? One command, one table (docs/benchmarks.md).

Whatever of ours is not right is not timed. All libraries take turns at the same work in one process, so that what else
the machine does hits them alike; what is compared is each round's ratio.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.bench import PARTS
from worldaction.errors import UserError, unknown


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark that the arguments describe.

    Args:
        arguments: without the program's name.

    Raises:
        UserError: an argument is wrong, or an implementation of ours is.
    """
    chosen = _parse(arguments)
    # waiting threads that spin slow each other down several times over; torch reads this when it is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from experiments.bench.machine import machine
    from experiments.bench.measure import Benchmark, Results, full, quick, write
    from experiments.bench.peers.libraries import libraries
    from experiments.study.machine import device, device_name
    from experiments.study.settings import Study
    from worldaction.io.recorder import setup_logging

    study = Study(device=chosen.device)
    torch.set_num_threads(chosen.threads)
    scale = (quick if chosen.quick else full)(chosen.rounds)
    compared = libraries(chosen.peer, device(study), compiled=scale.compiled)
    setup_logging()
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    about = machine(device(study).type) | {"device": device_name(study), "threads": chosen.threads}
    about |= {"rounds": scale.rounds, "quick": chosen.quick, "scale": asdict(scale)}
    begun, results = time.monotonic(), Results(about)
    Benchmark(scale, compared, device(study), results).run(chosen.only or PARTS)
    results.about["seconds"] = round(time.monotonic() - begun)
    print(write(results, Path(chosen.out)))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worldaction benchmark", description=__doc__)
    parser.add_argument("--out", default="runs/benchmark", help="folder for the table, the numbers and the figures")
    parser.add_argument(
        "--peer", action="extend", nargs="+", default=[], metavar="NAME=PATH",
        help="a checkout of lumos, dreamerv3-torch or r2dreamer, whose code is run",
    )  # fmt: skip
    parser.add_argument("--only", action="extend", nargs="+", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="everything small, in less than a minute")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every library")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    chosen = parser.parse_args(list(arguments))
    for part in chosen.only:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    for name in ("rounds", "threads"):
        if getattr(chosen, name) < 1:
            raise UserError(f"--{name} {getattr(chosen, name)}: give 1 or more")
    return chosen

"""Studies as a shell starts them, each in a session of its own, so that nobody of it is overlooked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from experiments.campaign.strikes.forks import PATIENCE, Ended

ROOT: Final = Path(__file__).resolve().parents[3]
LOG: Final = "terminal.log"


def started(arguments: Sequence[str], folder: Path, log: str = LOG) -> subprocess.Popen[bytes]:
    """Start a study in a folder; what it prints goes to the file there."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "experiments.calvin", *map(str, arguments)]
    with open(folder / log, "w") as output:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def end_of(process: subprocess.Popen[bytes], folder: Path, log: str = LOG) -> Ended:
    """How a study ended; one that never does is killed."""
    try:
        return Ended(process.wait(PATIENCE), (folder / log).read_text())
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return Ended(process.wait(), (folder / log).read_text(), hung=True)


def members(session: int, *, seconds: float = 0.0) -> list[int]:
    """Processes of a session that are still alive after some seconds, without zombies."""
    end = time.monotonic() + seconds
    while (found := _members(session)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _members(session: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state != "Z":
            found.append(int(folder.name))
    return found

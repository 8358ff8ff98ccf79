"""Runs with workers that are told to end: the signal's own status, one line, nobody left, and the same numbers."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from experiments.campaign.strikes.base import Outcome
from experiments.campaign.strikes.forks import Ended, Forks
from experiments.campaign.strikes.kills import CHANGES, broken
from experiments.campaign.strikes.processes import end_of, members, started
from experiments.campaign.strikes.tiny import differences, options

NAME = "signals"
SIGNALS: Final = 6
"""To one run."""
LONGEST: Final = 25.0
"""Seconds after which one comes at the latest."""
NUMBERS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
LEFT: Final = 3.0
"""Seconds after which no process of a run that has ended may be left."""


def attack(seed: int, folder: Path) -> Outcome:
    """Send signals to a run of two seeds with two workers, go on with it, and compare it with one without either.

    Signals go to the first process or to its whole session, at random moments from the first line of its log on; a
    worker alone is killed now and then, which must not end the run.

    Args:
        seed: of the moments.
        folder: of this attack alone.
    """
    with Forks() as forks:
        expected = _reference(folder, forks)
    moments = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    struck: list[str] = []
    while len(struck) < SIGNALS:
        (folder / "run" / "console.log").unlink(missing_ok=True)
        process = started(_arguments(folder, workers=2), folder)
        how, number = _strike(process, folder, moments)
        ended = end_of(process, folder)
        if left := members(process.pid, seconds=LEFT):
            return Outcome("process left", f"{len(left)} after {how}", len(struck) + 1)
        if ended.status == 0:
            break
        if not polite(ended, number):
            return broken(ended, struck, how)
        struck.append(how)
    ended = end_of(started(_arguments(folder, workers=2), folder), folder)
    if ended.status != 0:
        return broken(ended, struck, "left alone")
    # the number of workers is one of the settings
    if found := [one for one in differences(folder / "run", expected) if one != "summary: settings"]:
        return Outcome("accepted though changed", f"{', '.join(found[:5])} after {'; '.join(struck)}", len(struck))
    return Outcome("correct", "; ".join(struck), len(struck))


def _arguments(folder: Path, *, workers: int) -> list[str]:
    begun = (folder / "run" / "config.json").exists()
    changes = CHANGES | {"workers": workers}
    return ["--resume", "run"] if begun else [*options(run_dir="run", **changes), "--seeds", "0", "1"]


def _reference(folder: Path, forks: Forks) -> Path:
    """A run of two seeds by one process that nobody told to end, made once."""
    place = folder.parent / "reference-seeds"
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            ended = forks.study(_arguments(place, workers=1), place)
            if ended.status != 0:
                raise RuntimeError(f"the run that is compared with failed:\n{ended.said}")
            (place / "done").touch()
    return place / "run"


def _strike(process: subprocess.Popen[bytes], folder: Path, moments: random.Random) -> tuple[str, int]:
    """Send a signal some time after the study has said its first line."""
    number, alone = moments.choice(NUMBERS), moments.random() < 0.5
    seconds = LONGEST * moments.random()
    while process.poll() is None and not (folder / "run" / "console.log").exists():
        time.sleep(0.01)
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    if process.poll() is None:
        process.send_signal(number) if alone else os.killpg(process.pid, number)
    return f"{number.name} to {'the first process' if alone else 'all'} after {seconds:.1f} s", number


def polite(ended: Ended, number: int) -> bool:
    """Whether a study ended as it should: by the signal's own status, with how to go on as its last line."""
    lines = ended.said.strip().splitlines() or [""]
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    last = lines[-1] == f"{what}; nothing is lost; go on with: python -m experiments.calvin --resume run"
    noisy = any("Traceback" in line or "resource_tracker" in line for line in lines)
    return ended.status == 128 + number and last and not noisy

"""Two processes at once, on one run folder and on one cache: no result changes, and the second is told of the first."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from experiments.campaign.strikes.base import Outcome
from experiments.campaign.strikes.forks import Ended, Forks
from experiments.campaign.strikes.kills import CHANGES, broken, reference
from experiments.campaign.strikes.processes import end_of, started
from experiments.campaign.strikes.tiny import differences, options

NAME = "two processes"
LATEST: Final = 15.0
"""Seconds by which the second begins later, at most."""


def attack(seed: int, folder: Path) -> Outcome:
    """Let two processes work on the same at once.

    Args:
        seed: of the moments; even ones are two on one run folder, of which the first is killed, odd ones two runs with
            one cache.
        folder: of this attack alone.
    """
    moments = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with Forks() as forks:
        expected = reference(folder, forks)
    return _one_cache(folder, expected, moments) if seed % 2 else _one_folder(folder, expected, moments)


def _one_folder(folder: Path, expected: Path, moments: random.Random) -> Outcome:
    begin = options(run_dir="run", **CHANGES)
    first = started(begin, folder, "first.log")
    _wait(first, folder / "run" / "console.log", moments.random() * LATEST)
    second = end_of(started(["--resume", "run"], folder, "second.log"), folder, "second.log")
    at_work = first.poll() is None
    if at_work and not _told(second, first.pid):
        return broken(second, [], "the second of two")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    # at once: the lock of the dead is nobody's
    last = end_of(started(["--resume", "run"], folder, "second.log"), folder, "second.log")
    if last.status != 0:
        return broken(last, ["the first was killed"], "left alone")
    found = differences(folder / "run", expected)
    return _outcome(found, "two on one run folder, the first killed")


def _one_cache(folder: Path, expected: Path, moments: random.Random) -> Outcome:
    both = [[*options(run_dir=name, **CHANGES), "--cache", "shared"] for name in ("one", "other")]
    first = started(both[0], folder, "one.log")
    _wait(first, folder / "one" / "console.log", moments.random() * LATEST)
    second = started(both[1], folder, "other.log")
    for process, name in ((first, "one"), (second, "other")):
        came = end_of(process, folder, f"{name}.log")
        while came.status == 2 and ("another process" in came.said) and "Traceback" not in came.said:
            came = end_of(started(["--resume", name], folder, f"{name}.log"), folder, f"{name}.log")
        if came.status != 0:
            return broken(came, [], f"{name} of two with one cache")
    found = [text for name in ("one", "other") for text in differences(folder / name, expected, shared_cache=True)]
    return _outcome(found, "two runs with one cache")


def _wait(process: subprocess.Popen[bytes], sign: Path, seconds: float) -> None:
    while process.poll() is None and not sign.exists():
        time.sleep(0.01)
    time.sleep(seconds)


def _told(second: Ended, owner: int) -> bool:
    last = second.said.strip().splitlines()[-1]
    return second.status == 2 and "another process" in last and f"(process {owner} on " in last


def _outcome(found: list[str], how: str) -> Outcome:
    return Outcome("accepted though changed", f"{', '.join(found[:5])}: {how}") if found else Outcome("correct", how)

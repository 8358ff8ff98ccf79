"""Runs that are killed at random moments and at file operations, and must come to the same numbers, to the bit."""

from __future__ import annotations

import fcntl
import random
from pathlib import Path
from typing import Any, Final

from experiments.campaign.strikes.base import Kind, Outcome
from experiments.campaign.strikes.faults import Fault
from experiments.campaign.strikes.forks import Ended, Forks
from experiments.campaign.strikes.tiny import differences, options

NAME = "kills"
KILLS: Final = 10
"""Of one run."""
OPERATIONS: Final = 400
"""A run has about three times as many."""
LONGEST: Final = 6.0
"""Seconds after which a run is killed at the latest."""
CHANGES: Final = {"world_model__steps": 15, "world_model__pose": "none", "update__iterations": 2, "workers": 1}
"""Of the tiny study, so that it is tinier."""


def reference(folder: Path, forks: Forks) -> Path:
    """A run that nobody struck, made once for all attacks whose folders lie side by side."""
    place = folder.parent / "reference"
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            ended = forks.study(options(run_dir="run", **CHANGES), place)
            if ended.status != 0:
                raise RuntimeError(f"the run that is compared with failed:\n{ended.said}")
            (place / "done").touch()
    return place / "run"


def attack(seed: int, folder: Path) -> Outcome:
    """Kill a run again and again, go on with it, and compare it with one that was left alone.

    Args:
        seed: of the moments.
        folder: of this attack alone.
    """
    with Forks() as forks:
        expected, moments = reference(folder, forks), random.Random(seed)
        folder.mkdir(parents=True, exist_ok=True)
        struck: list[str] = []
        while len(struck) < KILLS:
            kill, how = _moment(moments, folder)
            ended = forks.study(arguments(folder), folder, **kill)
            if ended.status == -9:
                struck.append(how)
            elif ended.status == 0:
                break
            else:
                return broken(ended, struck, how)
        ended = forks.study(arguments(folder), folder)
        if ended.status != 0 or ended.hung:
            return broken(ended, struck, "left alone")
    if found := differences(folder / "run", expected):
        return Outcome("accepted though changed", f"{', '.join(found[:5])} after {'; '.join(struck)}", len(struck))
    return Outcome("correct", "; ".join(struck), len(struck))


def arguments(folder: Path) -> list[str]:
    """What a user types to begin, or to go on."""
    begun = (folder / "run" / "config.json").exists()
    return ["--resume", "run"] if begun else options(run_dir="run", **CHANGES)


def broken(ended: Ended, struck: list[str], how: str) -> Outcome:
    """Of a study that did not end as it should."""
    kind: Kind = "hang" if ended.hung else "traceback" if "Traceback" in ended.said else "refused"
    last = ended.said.strip().splitlines()[-1:] or [""]
    detail = f"status {ended.status}, {last[0]} ({how}, after {'; '.join(struck) or 'nothing'})"
    return Outcome(kind, detail, len(struck) + 1)


def _moment(moments: random.Random, folder: Path) -> tuple[dict[str, Any], str]:
    """When to kill next: after seconds, or at a file operation."""
    if moments.random() < 0.5:
        seconds = LONGEST * moments.random() ** 2
        return {"kill_after": seconds}, f"{seconds:.2f} s"
    at = moments.randint(1, OPERATIONS)
    after = moments.random() < 0.5
    fault = Fault(at, str(folder / "run"), after=after)
    return {"fault": fault}, f"{'after' if after else 'before'} operation {at}"

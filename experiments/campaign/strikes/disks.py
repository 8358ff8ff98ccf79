"""Disks that are full or read-only: each time one line and status 2, and with room again the same numbers."""

from __future__ import annotations

import errno
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from experiments.campaign.strikes.base import Outcome
from experiments.campaign.strikes.faults import Fault
from experiments.campaign.strikes.forks import Ended, Forks
from experiments.campaign.strikes.kills import OPERATIONS, arguments, broken, reference
from experiments.campaign.strikes.tiny import differences

NAME = "disks"
STRIKES: Final = 10
"""Of one run, on a disk that refuses from some file operation on."""
ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
SMALLEST: Final = 60_000
"""Bytes of the first real disk, of which each next one has up to twice as many."""


def attack(seed: int, folder: Path) -> Outcome:
    """Let a run meet disks that take no more, and go on with it when they do.

    Args:
        seed: of the moments; odd ones use a real disk of limited size, where this process may mount one.
        folder: of this attack alone.
    """
    moments = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with Forks() as forks:
        expected = reference(folder, forks)
        if seed % 2 and mountable(folder):
            return _growing(forks, folder, expected, moments)
        return _refusing(forks, folder, expected, moments)


def _refusing(forks: Forks, folder: Path, expected: Path, moments: random.Random) -> Outcome:
    """A disk that refuses everything from the n-th file operation on."""
    struck: list[str] = []
    while len(struck) < STRIKES:
        at, number = moments.randint(1, OPERATIONS), moments.choice(ERRORS)
        how = f"{errno.errorcode[number]} from operation {at} on"
        ended = forks.study(arguments(folder), folder, fault=Fault(at, str(folder / "run"), number))
        if ended.status == 0:
            break
        if not clear(ended):
            return broken(ended, struck, how)
        struck.append(how)
    return _compared(forks, folder, expected, struck)


def _growing(forks: Forks, folder: Path, expected: Path, moments: random.Random) -> Outcome:
    """A real disk that is full, and grows."""
    struck: list[str] = []
    size = SMALLEST
    with _disk(folder / "disk", size) as place:
        while True:
            ended = forks.study(arguments(place), place)
            if ended.status == 0:
                break
            how = f"a disk of {size:,} bytes"
            if not clear(ended):
                return broken(ended, struck, how)
            struck.append(how)
            size = int(size * moments.uniform(1.2, 2.0))
            subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)
        return _compared(forks, place, expected, struck)


def _compared(forks: Forks, folder: Path, expected: Path, struck: list[str]) -> Outcome:
    ended = forks.study(arguments(folder), folder)
    if ended.status != 0 or ended.hung:
        return broken(ended, struck, "left alone")
    if found := differences(folder / "run", expected):
        return Outcome("accepted though changed", f"{', '.join(found[:5])} after {'; '.join(struck)}", len(struck))
    return Outcome("correct", "; ".join(struck), len(struck))


def clear(ended: Ended) -> bool:
    """Whether a study ended as it should on such a disk: status 2, and one line, the last, that names the file."""
    lines = ended.said.strip().splitlines() or [""]
    one = re.match(r"error: cannot (write|create|open) \S+: \w.*", lines[-1]) is not None
    noisy = [line for line in lines[:-1] if "Error" in line or "Traceback" in line]
    return ended.status == 2 and one and not noisy and not ended.hung


def mountable(folder: Path) -> bool:
    """Whether this process may mount a disk."""
    try:
        with _disk(folder / "disk", SMALLEST):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def _disk(place: Path, size: int) -> Iterator[Path]:
    """A disk in memory of so many bytes."""
    place.mkdir(parents=True, exist_ok=True)
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    subprocess.run(options, check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)

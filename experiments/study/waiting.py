"""How idle OpenMP threads wait, which torch reads when it is imported. Nothing here needs torch.

A training step of a world model is a thousand short parallel regions. Threads that sleep between them cost it 40 % of
its speed on an idle machine; threads that spin cost it as much, or all, where others want the cores. Milliseconds of a
step of `quick` with two threads, on two cores, alone and beside the same again (2026-11-30): asleep 159 and 176,
spinning 2,000 times 104 and 309, 20,000 times 95 and 1,526; with one thread 158.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

CHOSEN: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""With either of these a user has chosen."""
SPINS: Final = "2000"
IDLE: Final = 0.25
"""Busy share of the cores up to which a machine is idle."""
LOOK: Final = 0.2
"""How long that is looked at (s)."""
CLOCKS: Final = Path("/proc/stat")
"""What the cores have done since the machine was started, in its first line."""
_WAITING: Final = slice(3, 5)
"""Of its numbers those of a core that has nothing to do: idle, and waiting for a disk."""


def choose_waiting() -> None:
    """Let threads spin for a moment on an idle machine and sleep at once on a busy one, unless the user has chosen.

    No result depends on it.
    """
    if any(name in os.environ for name in CHOSEN):
        return
    if _busy() <= IDLE:
        os.environ["GOMP_SPINCOUNT"] = SPINS
    else:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _busy() -> float:
    """Share of the cores that work just now; where the system does not say, that of the last minute.

    The last minute is that of an installation, or of the tests, after which a machine seems busy and is not.
    """
    try:
        before = _clocks()
        time.sleep(LOOK)
        passed = [after - begun for after, begun in zip(_clocks(), before, strict=True)]
    except (OSError, ValueError):
        passed = []
    # there are systems whose clocks stand still
    if sum(passed) <= 0:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    return 1.0 - sum(passed[_WAITING]) / sum(passed)


def _clocks() -> list[int]:
    """Ticks of all cores together: user, nice, system, idle, waiting for a disk, interrupts, taken by other guests."""
    with CLOCKS.open() as file:
        return [int(number) for number in file.readline().split()[1:9]]

"""How idle OpenMP threads wait, which torch reads when it is imported. Nothing here needs torch.

A training step of a world model is a thousand short parallel regions. Threads that sleep between them cost it 40 % of
its speed on an idle machine; threads that spin cost it as much, or all, where others want the cores. Milliseconds of a
step of `quick` with two threads, on two cores, alone and beside the same again (2026-11-30): asleep 159 and 176,
spinning 2,000 times 104 and 309, 20,000 times 95 and 1,526; with one thread 158.
"""

from __future__ import annotations

import os
from typing import Final

CHOSEN: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""With either of these a user has chosen."""
SPINS: Final = "2000"
IDLE: Final = 0.25
"""Load of a core up to which a machine is idle."""


def choose_waiting() -> None:
    """Let threads spin for a moment on an idle machine and sleep at once on a busy one, unless the user has chosen.

    No result depends on it.
    """
    if any(name in os.environ for name in CHOSEN):
        return
    if os.getloadavg()[0] <= IDLE * (os.cpu_count() or 1):
        os.environ["GOMP_SPINCOUNT"] = SPINS
    else:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

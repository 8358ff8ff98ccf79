"""Studies that begin at once: a process that has imported everything forks one for each that is asked for.

Starting Python and importing torch takes longer than the tiny study itself, and a hundred kills need a hundred starts.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from experiments.campaign.strikes.faults import Fault, install

PATIENCE: Final = 600.0
"""Seconds after which a study hangs: the machine may be busy with other things."""


@dataclass(frozen=True)
class Ended:
    """How a study ended."""

    status: int
    """Exit status; of one that was killed, minus the signal's number."""
    said: str
    """All that it printed."""
    hung: bool = False


class Forks:
    """The process that forks; a context manager, whose studies run one at a time."""

    def __enter__(self) -> Forks:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.campaign.strikes.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # the semaphores of those that were killed are cleared up with a word
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._process.terminate()
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()

    def study(
        self, arguments: Sequence[str], cwd: Path, *, fault: Fault | None = None, kill_after: float | None = None
    ) -> Ended:
        """Run a study to its end, or until it is struck.

        Args:
            arguments: of `python -m experiments.calvin`.
            cwd: where.
            fault: strikes at a file operation.
            kill_after: seconds after which it is killed.
        """
        asked = {
            "arguments": [str(one) for one in arguments],
            "cwd": str(cwd),
            "fault": None if fault is None else asdict(fault),
            "kill_after": kill_after,
        }
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(asked) + "\n")
        stdin.flush()
        return Ended(**json.loads(stdout.readline()))


def _serve() -> None:
    """Fork a study for each line that comes in, and say how it ended."""
    import multiprocessing.resource_tracker

    import experiments.study.conduct
    import experiments.study.options  # noqa: F401 (so that children have it)

    multiprocessing.resource_tracker.ensure_running()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for line in sys.stdin:
        print(json.dumps(asdict(_one(**json.loads(line)))), flush=True)


def _one(arguments: list[str], cwd: str, fault: dict[str, Any] | None, kill_after: float | None) -> Ended:
    log = Path(cwd) / "terminal.log"
    child = os.fork()
    if child == 0:
        _study(arguments, cwd, log, None if fault is None else Fault(**fault))
    try:
        return _ended(child, log, kill_after)
    except SystemExit:
        # nobody waits for it any more
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _ended(child: int, log: Path, kill_after: float | None) -> Ended:
    began, killed = time.monotonic(), False
    limit = PATIENCE if kill_after is None else kill_after
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            said = log.read_text() if log.exists() else ""
            return Ended(os.waitstatus_to_exitcode(status), said, hung=killed and kill_after is None)
        if time.monotonic() - began > limit and not killed:
            # it alone, as the system does that has no memory left
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(0.003)


def _study(arguments: list[str], cwd: str, log: Path, fault: Fault | None) -> None:
    """In a new process: one study, and nothing after it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    os.chdir(cwd)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    from experiments.calvin import main
    from experiments.guard import guarded

    if fault is not None:
        install(fault)
    status = 1
    try:
        status = guarded(lambda: main(arguments))
    finally:
        if sys.exception() is not None:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()
        # and not back into the loop of the process that forked this one
        os._exit(status)


if __name__ == "__main__":
    _serve()

"""The whole study at a size that takes seconds, for tests that run it as a user does."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.campaign.strikes.tiny import (
    SETTINGS,
    differences,
    evaluations,
    files,
    metrics,
    options,
    summary,
    weights,
)

__all__ = ["SETTINGS", "evaluations", "files", "metrics", "options", "summary", "weights"]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds until a test gives up waiting for a run: the machine may be busy with other things."""


def command(arguments: Sequence[str], *, shard_frames: int = 0) -> list[str]:
    """What a shell would start; `shard_frames` makes the play data come in several shards."""
    if not shard_frames:
        return [sys.executable, "-m", "experiments.calvin", *arguments]
    script = (
        f"import sys, experiments.stages.play; experiments.stages.play.SHARD_FRAMES = {shard_frames}\n"
        "from experiments import calvin, guard\n"
        "sys.exit(guard.guarded(lambda: calvin.main(sys.argv[1:])))"
    )
    return [sys.executable, "-c", script, *arguments]


def environment(**changes: str) -> dict[str, str]:
    """Of a subprocess that imports this checkout from wherever it runs."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **changes}


def study(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a study to its end."""
    return subprocess.run(
        command(arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=3 * PATIENCE
    )


@functools.cache
def finished_run() -> Path:
    """The folder of one uninterrupted run with one worker, made once for all tests; do not change it."""
    parent = Path(os.environ["WORLDACTION_TESTS_SHARED"])
    done = parent / "finished"
    with open(parent / "lock", "w") as lock:
        # whichever process of the session comes first makes it, and the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            result = study(*options(run_dir="run", workers=1), cwd=parent)
            assert result.returncode == 0, result.stderr
            done.touch()
    return parent / "run"


def copied(run: Path, to: Path) -> Path:
    """A copy of a run with its cache, which may be changed."""
    return Path(shutil.copytree(run, to, symlinks=True))


def place(run: Path, name: str) -> Path:
    """The folder of an artefact of a run."""
    return (run / "artefacts" / name).resolve()


def forget(run: Path, *names: str) -> None:
    """Delete artefacts of a run, by their places, as if they had not been made yet."""
    for name in names:
        shutil.rmtree(place(run, name))
        (run / "artefacts" / name).unlink()


class Started:
    """A study in a session of its own, so that it can be killed with everything it started."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, shard_frames: int = 0) -> None:
        self.log = cwd / "terminal.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command(arguments, shard_frames=shard_frames),
                cwd=cwd,
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, sign: Callable[[], object]) -> None:
        """Wait until `sign` is true; the study must still be at work then."""
        end = time.monotonic() + PATIENCE
        while not sign():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"nothing to see after {PATIENCE} s:\n{self.log.read_text()}"
            time.sleep(0.005)

    def signal(self, number: signal.Signals, *, alone: bool = False) -> None:
        """Send a signal to the whole group, or to the first process alone."""
        if alone:
            self.process.send_signal(number)
        else:
            os.killpg(self.process.pid, number)

    def end(self, seconds: float = PATIENCE) -> tuple[int, str]:
        """Exit status, and what was said."""
        return self.process.wait(seconds), self.log.read_text()

    def members(self) -> list[int]:
        """Processes of the session that are alive, without zombies."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == self.process.pid and state != "Z":
                found.append(int(folder.name))
        return found

    def clean_up(self) -> None:
        """End what is left."""
        for member in self.members():
            os.kill(member, signal.SIGKILL)
        self.process.wait(PATIENCE)


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs came to the same results, to the last bit, and left the same files."""
    found = differences(one, other)
    # this module's asserts are not rewritten by pytest, so the message is given
    assert not found, found

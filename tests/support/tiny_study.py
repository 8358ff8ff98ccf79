"""The whole study at a size that takes seconds, for tests that run it as a user does."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from worldaction.io.artefact import load_tensors, read_json
from worldaction.io.recorder import read_metrics

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds until a test gives up waiting for a run: the machine may be busy with other things."""

SETTINGS: Mapping[str, Any] = {
    "table.max-steps": 16,
    "data.frames": 480,
    "data.episode-frames": 48,
    "data.near-misses": 4,
    "data.demos": 3,
    "world-model.cameras": "rgb_static",
    "world-model.batch": 4,
    "world-model.length": 8,
    "world-model.steps": 40,
    "world-model.save-every": 5,
    "success.steps": 50,
    "clone.steps": 50,
    "update.iterations": 3,
    "update.dreams": 8,
    "update.starts": 4,
    "update.warmup": 1,
    "update.max-imagined": 2.0,
    "update.min-time": 0.0,
    "update.evaluate-every": 1,
    "evaluation.episodes": 2,
    "evaluation.curve-episodes": 2,
    "evaluation.sampler-episodes": 2,
    "evaluation.dreams": 4,
    "evaluation.judged-episodes": 2,
    "evaluation.parallel": 2,
    "evaluation.videos": 1,
    "evaluation.probes": 4,
    "evaluation.horizon": 8,
}


def options(**changes: Any) -> list[str]:
    """The command line of the tiny study; `data_frames=100` changes the setting `data.frames`."""
    values = dict(SETTINGS) | {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    return ["debug", *(part for key, value in values.items() for part in (f"--{key}", str(value)))]


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


# What a run came to ---------------------------------------------------------------------------------------------------


def evaluations(run: Path) -> dict[str, Any]:
    """Every file of evaluation/."""
    return {path.name: json.loads(path.read_text()) for path in sorted((run / "evaluation").glob("*.json"))}


def metrics(run: Path) -> list[dict[str, Any]]:
    """Every recorded line without its time, in order."""
    lines = [{key: value for key, value in line.items() if key != "time"} for line in read_metrics(run)]
    return sorted(lines, key=lambda line: (line["prefix"], line["step"]))


def summary(run: Path) -> dict[str, Any]:
    """summary.json without what depends on the clock, and on who commits meanwhile."""
    # read as the library does, without the seal, which depends on the clock as well
    values: dict[str, Any] = read_json(run / "summary.json")
    commits = ("commit", "summarised_by")
    return {key: value for key, value in values.items() if "seconds" not in key and key not in commits}


def weights(run: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every trained tensor of a run, by file and name."""
    for path in sorted(run.rglob("*.safetensors")):
        for name, tensor in sorted(load_tensors(path).items()):
            yield f"{path.relative_to(run)}:{name}", tensor


def files(run: Path) -> set[str]:
    """Every file of a run, apart from TensorBoard's, whose names hold the time, and locks of finished artefacts.

    A process that is killed right after it wrote a manifest leaves its lock, which nobody asks for any more.
    """
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("tensorboard") and not name.endswith("/.lock")}


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs came to the same results, to the last bit, and left the same files."""
    assert evaluations(one) == evaluations(other)
    assert metrics(one) == metrics(other)
    assert summary(one) == summary(other)
    first, second = dict(weights(one)), dict(weights(other))
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert differing == []
    assert files(one) == files(other), sorted(files(one) ^ files(other))
    for path in one.rglob("*.memmap"):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes(), path

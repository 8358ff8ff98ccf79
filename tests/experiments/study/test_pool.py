"""Jobs in processes: results in order, errors that arrive, and nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_study import environment

from experiments.study.pool import run_jobs
from worldaction.errors import Unfinished, UserError
from worldaction.signals import Interrupted, stop_signal


def place(number: int) -> tuple[int, int, int]:
    """Where a job runs, with how many threads."""
    return number, os.getpid(), torch.get_num_threads()


def fail(message: str) -> None:
    """A job that finds bad input."""
    raise UserError(message)


def train(mark: Path) -> None:
    """A job that works for ever, and saves when it is asked to end, as training does."""
    with stop_signal() as stop:
        (mark.parent / f"{mark.name}-started").touch()
        stop.wait()
        # as training does, in the block: after it, the next signal ends the process
        mark.touch()
        raise Interrupted("saved")


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_jobs_and_every_job_has_one_thread(workers: int) -> None:
    before, told = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        results = run_jobs([partial(place, n) for n in range(5)], workers, done=told.append)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert [number for number, _, _ in results] == list(range(5))
    assert {threads for _, _, threads in results} == {1}
    assert sorted(told) == sorted(results)
    assert (os.getpid() in {process for _, process, _ in results}) == (workers == 1)


def test_bad_input_found_in_a_worker_is_an_error_here_and_ends_the_others(tmp_path: Path) -> None:
    jobs = [partial(train, tmp_path / "a"), partial(fail, "no such table; take another")]
    with pytest.raises(UserError, match="no such table; take another"):
        run_jobs(jobs, 2)
    assert multiprocessing.active_children() == []


def to_the_process() -> None:
    """As a terminal does, and `kill`."""
    os.kill(os.getpid(), signal.SIGINT)


def to_this_thread() -> None:
    """As the system may choose to: then nothing wakes the main thread, where Python handles signals."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


@pytest.mark.parametrize("send", [to_the_process, to_this_thread])
def test_an_interruption_lets_training_save_and_starts_no_job_that_waits(
    tmp_path: Path, send: Callable[[], None]
) -> None:
    jobs = [partial(train, tmp_path / str(n)) for n in range(6)]

    def interrupt() -> None:
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("*-started"))) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        send()

    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        run_jobs(jobs, 2)
    assert time.monotonic() - began < 60
    assert {"0", "1"} <= {path.name for path in tmp_path.iterdir()}
    assert multiprocessing.active_children() == []


def die(mark: Path, number: int, *, always: bool) -> str:
    """A job whose process is killed, the first time or each time, as the system does that has no memory left."""
    if always or not mark.exists():
        mark.touch()
        os.kill(os.getpid(), number)
    return "done"


def hang(mark: Path) -> str:
    """A job that computes nothing and never ends, the first time."""
    if not mark.exists():
        mark.touch()
        time.sleep(1000)
    return "done"


def note(mark: Path) -> str:
    """A job that leaves a line whenever it is done."""
    with open(mark, "a") as file:
        file.write("done\n")
    return "noted"


def test_what_a_killed_worker_left_is_done_once_more_and_the_rest_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    jobs = [partial(note, tmp_path / "notes"), partial(die, tmp_path / "mark", signal.SIGSEGV, always=False)]
    results = run_jobs([jobs[0], *[jobs[1]] * 2], 2, stage="measurements", done=told.append)
    assert results == ["noted", "done", "done"]
    assert told.count("noted") == (tmp_path / "notes").read_text().count("done")
    assert "measurements: a worker process was killed by SIGSEGV" in caplog.text
    assert "is done once more, 1 at a time" in caplog.text
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_twice_is_one_line_with_the_stage_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unfinished, match=r"measurements: .* killed by SIGKILL.*, twice; give fewer --workers than 2"):
        run_jobs([partial(die, tmp_path / "mark", signal.SIGKILL, always=True)] * 2, 2, stage="measurements")
    assert multiprocessing.active_children() == []


def test_workers_that_all_hang_are_killed_and_their_work_is_done_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("experiments.study.pool.STILL", 4.0)
    monkeypatch.setattr("experiments.study.pool.MOVES", 0.2)
    jobs = [partial(hang, tmp_path / "a"), partial(hang, tmp_path / "b")]
    assert run_jobs(jobs, 2) == ["done", "done"]
    assert "have computed nothing for" in caplog.text


def members(session: int) -> list[str]:
    """What is alive of a session; zombies, which wait for a parent that a container may lack, are not."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its) == session and state != "Z":
            found.append(stat.parent.name)
    return found


PARENT = """
import multiprocessing, sys, time
from functools import partial
from pathlib import Path
from experiments.guard import guarded
from experiments.study.pool import run_jobs
from worldaction.io.recorder import progress
from worldaction.signals import Interrupted, stop_signal

def train(mark):
    with stop_signal() as stop:
        (mark.parent / f"{mark.name}-started").touch()
        stop.wait()
        # as training does, in the block: after it, the next signal ends the process
        mark.touch()
        raise Interrupted("saved")

def measure(mark):
    # a buffer of torchrl's holds one of these
    kept = multiprocessing.Value("q", 0)
    (mark.parent / f"{mark.name}-started").touch()
    while True:
        time.sleep(0.01)

if __name__ == "__main__":
    # as torchrl does
    multiprocessing.set_start_method("spawn")
    # as a study does before its first workers
    with progress(1, "play data", "shard") as bar:
        bar.update(1)
    jobs = [partial(work, Path(sys.argv[1]) / name) for work, name in ((train, "a"), (measure, "b"))]
    sys.exit(guarded(lambda: print(run_jobs(jobs, 2))))
"""


@pytest.mark.parametrize(
    ("number", "alone"),
    [(signal.SIGTERM, True), (signal.SIGTERM, False), (signal.SIGHUP, False), (signal.SIGINT, False)],
)
def test_a_signal_to_the_parent_or_to_all_lets_training_save_and_leaves_nobody(
    tmp_path: Path, number: signal.Signals, alone: bool
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not all((tmp_path / f"{name}-started").exists() for name in "ab"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, number) if alone else os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (tmp_path / "a").exists()
    what = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert said == f"{what}; stopped while jobs were running\n"
    end = time.monotonic() + 10
    while members(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert members(process.pid) == []

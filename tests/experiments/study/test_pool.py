"""Jobs in processes: results in order, errors that arrive, and nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from experiments.study.pool import run_jobs
from worldaction.errors import UserError
from worldaction.fit import Interrupted, stop_signal


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

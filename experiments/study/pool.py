"""Jobs in processes of their own: one torch thread each, no process left behind, errors as if they had happened here.

Processes are spawned, not forked: a forked process inherits a GL context that hangs. Every job pins one thread, so that
its numbers do not depend on how many jobs run beside it. What a process leaves undone that is killed, or that hangs, is
done once more in half as many processes: the usual reason is too little memory.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Final

from experiments.guard import thread_ended
from worldaction.errors import Unfinished
from worldaction.signals import STOPS, Interrupted, number_of

LOGGER = logging.getLogger("worldaction")
Job = Callable[[], Any]
PATIENCE: Final = 60.0
"""Seconds that a process which is asked to end has to save what it has, before it is killed."""
GRACE: Final = 1.0
"""Seconds between the signals that all processes of a group get at once, at most."""
STILL: Final = 600.0
"""Seconds in which processes that all wait for something are taken to hang, as a renderer can (mujoco#3444)."""
MOVES: Final = 1.0
"""Seconds of computing in that time above which they are at work."""


class _Died(Exception):
    """A process of a pool came to an end of its own; the message says which."""


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    *,
    stage: str = "this stage",
    done: Callable[[Any], None] | None = None,
    log: Path | None = None,
) -> list[Any]:
    """Run jobs and give their results in order.

    Args:
        jobs: picklable calls, such as `functools.partial` of a module's function.
        workers: processes; with one, or with one job, everything runs in this process.
        stage: what they are, for what is said of a process that dies.
        done: called here with each result as it comes.
        log: the file that the processes' log lines go to as well.

    Raises:
        Unfinished: a process was killed, or hung, and so was the one that tried again.
    """
    with _signals_wait():
        # before a buffer of torchrl's starts it: it stays deaf to what a closed terminal sends, which would end it,
        # and be heard of in words of its own
        multiprocessing.resource_tracker.ensure_running()
    if workers <= 1 or len(jobs) <= 1:
        return [_tell(_with_one_thread(job), done) for job in jobs]
    results: dict[int, Any] = {}

    def keep(number: int, result: Any) -> None:
        results[number] = _tell(result, done)

    try:
        _in_processes(dict(enumerate(jobs)), workers, keep, log)
    except _Died as died:
        left = {number: job for number, job in enumerate(jobs) if number not in results}
        fewer = max(1, workers // 2)
        LOGGER.warning("%s: %s; what it left is done once more, %d at a time", stage, died, fewer)
        try:
            _in_processes(left, fewer, keep, log)
        except _Died as again:
            raise Unfinished(f"{stage}: {again}, twice; give fewer --workers than {workers}, or more memory") from None
    return [results[number] for number in range(len(jobs))]


def _in_processes(jobs: Mapping[int, Job], workers: int, keep: Callable[[int, Any], None], log: Path | None) -> None:
    """Run numbered jobs, and keep each result as it comes.

    Raises:
        _Died: a process was killed, or all hung.
        Interrupted: a signal came; all have ended, and those in a training have saved.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_enter, initargs=(log,)) as pool:
        try:
            # processes begin deaf, too, until they know what to do
            with _signals_wait():
                futures = {pool.submit(job): number for number, job in jobs.items()}
            _keep_all(futures, _processes(pool), keep)
        except BaseException as error:
            processes = _processes(pool)
            _stop(pool, processes)
            if isinstance(error, BrokenProcessPool):
                raise _Died(_ends(processes)) from None
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("stopped while jobs were running", number_of(error)) from None
            raise


def _processes(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    """Those of a pool, which it forgets once it is shut down."""
    return list((pool._processes or {}).values())


def _keep_all(
    futures: Mapping[Future[Any], int], processes: Sequence[BaseProcess], keep: Callable[[int, Any], None]
) -> None:
    """Until all are done, or one has failed, whose error is raised."""
    waiting, watch = set(futures), _Watch(processes)
    while waiting:
        # looking up now and then: a signal that another thread was given does not wake this one, which has to handle it
        finished, waiting = wait(waiting, timeout=1.0, return_when=FIRST_EXCEPTION)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in finished):
            # a signal to all may have ended a worker just before it comes here, and then nothing has died
            time.sleep(GRACE)
        # first what was done, for a pool that breaks fails all others at once
        for future in sorted(finished, key=lambda one: one.exception() is not None):
            keep(futures[future], future.result())
        watch.look()


class _Watch:
    """Kills processes that have computed nothing for long, because all of them wait for what never comes."""

    def __init__(self, processes: Sequence[BaseProcess]) -> None:
        self._processes = processes
        self._since, self._then = time.monotonic(), 0.0

    def look(self) -> None:
        """Kill them if it is so; where the system does not tell what they computed, never."""
        now = sum(_computed(process.pid) for process in self._processes)
        if now - self._then > MOVES or now == 0.0:
            self._since, self._then = time.monotonic(), now
        elif time.monotonic() - self._since > STILL:
            LOGGER.warning("the processes have computed nothing for %.0f minutes, and are killed", STILL / 60)
            for process in self._processes:
                process.kill()


def _computed(pid: int | None) -> float:
    """Seconds that a process has computed; 0 if it has ended, or nobody says."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ends(processes: Sequence[BaseProcess]) -> str:
    """How the process ended that broke its pool: the pool itself sends SIGTERM to the others."""
    codes = [process.exitcode or 0 for process in processes]
    code = next((code for code in codes if code not in (0, -signal.SIGTERM)), min(codes))
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"a worker process {how}" + (", as for want of memory" if code == -signal.SIGKILL else "")


def _tell(result: Any, done: Callable[[Any], None] | None) -> Any:
    if done is not None:
        done(result)
    return result


def _with_one_thread(job: Job) -> Any:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return job()
    finally:
        torch.set_num_threads(threads)


def _stop(pool: ProcessPoolExecutor, processes: Sequence[BaseProcess]) -> None:
    """Cancel what waits, and end the processes; one that is in the middle of training saves first."""
    pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + PATIENCE
    try:
        # again and again: a process that has saved may find a job that was on its way to it already
        while alive := [process for process in processes if process.is_alive()]:
            for process in alive:
                process.terminate() if time.monotonic() < end else process.kill()
            wait_for([process.sentinel for process in alive], timeout=1.0)
    except KeyboardInterrupt:
        # somebody will not wait
        for process in processes:
            process.kill()
        raise


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Signals come when the block has ended; processes that are started in it hear none until they say so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _enter(log: Path | None) -> None:
    """In a new process: one thread, the log, and an end of its own if the parent is killed."""
    import torch

    from worldaction.io.recorder import setup_logging

    # a terminal's signals reach every process; the parent alone decides, and ends the others by SIGTERM
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    threading.excepthook = thread_ended
    torch.set_num_threads(1)
    setup_logging(log)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _end(number: int, frame: FrameType | None) -> None:
    """A process that trains nothing ends at once, but gives its semaphores back, or words would be said of them."""
    # whoever wants it to end says so again and again, and must not cut this short
    signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        # nobody is left to collect the result, and what is on disk is whole at any moment
        os._exit(1)

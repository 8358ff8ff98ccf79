"""Jobs in processes of their own: one torch thread each, no process left behind, errors as if they had happened here.

Processes are spawned, not forked: a forked process inherits a GL context that hangs. Every job pins one thread, so that
its numbers do not depend on how many jobs run beside it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from worldaction.fit import Interrupted

Job = Callable[[], Any]


def run_jobs(
    jobs: Sequence[Job], workers: int, *, done: Callable[[Any], None] | None = None, log: Path | None = None
) -> list[Any]:
    """Run jobs and give their results in order.

    Args:
        jobs: picklable calls, such as `functools.partial` of a module's function.
        workers: processes; with one, or with one job, everything runs in this process.
        done: called here with each result as it comes.
        log: the file that the processes' log lines go to as well.
    """
    if workers <= 1 or len(jobs) <= 1:
        return [_tell(_with_one_thread(job), done) for job in jobs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_enter, initargs=(log,)) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in futures:
                if done is not None:
                    future.add_done_callback(partial(_tell_future, done))
            _wait_for_all(futures)
        except BaseException as error:
            _stop(pool)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("stopped while jobs were running") from None
            raise
    return [future.result() for future in futures]


def _wait_for_all(futures: Iterable[Future[Any]]) -> None:
    """Until all are done, or one has failed, whose error is raised."""
    waiting = set(futures)
    while waiting:
        # looking up now and then: a signal that another thread was given does not wake this one, which has to handle it
        finished, waiting = wait(waiting, timeout=1.0, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()


def _tell(result: Any, done: Callable[[Any], None] | None) -> Any:
    if done is not None:
        done(result)
    return result


def _tell_future(done: Callable[[Any], None], future: Future[Any]) -> None:
    if not future.cancelled() and future.exception() is None:
        done(future.result())


def _with_one_thread(job: Job) -> Any:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return job()
    finally:
        torch.set_num_threads(threads)


def _stop(pool: ProcessPoolExecutor) -> None:
    """Cancel what waits, and end the processes; one that is in the middle of training saves first."""
    # taken here, because a pool that is shut down forgets them
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    # again and again: a process that has saved may find a job that was on its way to it already
    while alive := [process for process in processes if process.is_alive()]:
        for process in alive:
            process.terminate()
        wait_for([process.sentinel for process in alive], timeout=1.0)


def _enter(log: Path | None) -> None:
    """In a new process: one thread, the log, and an end of its own if the parent is killed."""
    import torch

    from worldaction.io.recorder import setup_logging

    # a terminal's Ctrl-C reaches every process; the parent alone decides, and ends the others by SIGTERM
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    setup_logging(log)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        # nobody is left to collect the result, and what is on disk is whole at any moment
        os._exit(1)

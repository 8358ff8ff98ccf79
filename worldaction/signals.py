"""A polite end: Ctrl-C, SIGTERM and SIGHUP come to one exception, and training saves first. No torch is needed here.

SIGTERM is what `kill` and the scheduler of a cluster send, SIGHUP what a closed terminal sends. A process that was
started to outlive its terminal (`nohup`) ignores SIGHUP, and goes on doing so.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to end."""


class Interrupted(KeyboardInterrupt):
    """A signal came; what is on disk is whole, and everything that is needed to go on has been saved."""

    def __init__(self, how: str = "", number: int = signal.SIGINT) -> None:
        """
        Args:
            how: what to do next, or where the work stood.
            number: of the signal.
        """
        super().__init__(how)
        self.how, self.number = how, signal.Signals(number)

    @property
    def what(self) -> str:
        """What happened, in a word or three."""
        return "interrupted" if self.number == signal.SIGINT else f"ended by {self.number.name}"


class Stop(threading.Event):
    """Set by a signal."""

    number: int = signal.SIGINT
    """Which signal it was."""


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """An event that the signals of `STOPS` set instead of ending the process; only the main thread can do this."""
    event = Stop()

    def stop(number: int, frame: FrameType | None) -> None:
        event.number = number
        event.set()

    with _handled(dict.fromkeys(STOPS, stop)):
        yield event


@contextmanager
def stops_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block by an `Interrupted`, as Ctrl-C does, so that what is open is closed."""

    def stop(number: int, frame: FrameType | None) -> None:
        # schedulers and terminals say it more than once, and the end is on its way
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number=number)

    with _handled(dict.fromkeys((signal.SIGTERM, signal.SIGHUP), stop)):
        yield


@contextmanager
def how_to_go_on(how: str) -> Iterator[None]:
    """Say what to do next to whoever interrupts the block.

    Raises:
        Interrupted: by the signal that came.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(how, number_of(error)) from None


def number_of(error: KeyboardInterrupt) -> int:
    """The signal behind an interruption."""
    return error.number if isinstance(error, Interrupted) else signal.SIGINT


@contextmanager
def _handled(handlers: dict[int, signal._HANDLER]) -> Iterator[None]:
    """Handle signals in another way meanwhile; a SIGHUP that is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    if before.get(signal.SIGHUP) == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""A polite end: what SIGTERM and SIGHUP come to, and what is said then."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from experiments.guard import guarded
from worldaction.signals import STOPS, Interrupted, how_to_go_on, stop_signal, stops_raise


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Those of before, whatever a test did."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line_with_what_to_do_next_and_its_own_exit_status(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with how_to_go_on("the same command goes on"):
            os.kill(os.getpid(), number)

    assert guarded(work) == 128 + number
    assert capsys.readouterr().err == f"ended by {number.name}; the same command goes on\n"


def test_a_signal_that_is_repeated_does_not_cut_the_end_short() -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            closed.append(True)

    closed: list[bool] = []
    assert guarded(work) == 143
    assert closed == [True]


def test_what_was_started_to_outlive_its_terminal_does_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stops_raise(), stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.is_set()


def test_a_training_knows_which_signal_it_was() -> None:
    with stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
    assert Interrupted("stopped at step 3", stop.number).what == "ended by SIGHUP"

"""The time of a run is that of the commands that worked on it, and not that of the pauses between them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from experiments.study.sessions import FILE, LOG, session, worked_seconds
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json


def test_pauses_between_sessions_are_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    for clock in ("time", "monotonic"):
        monkeypatch.setattr(time, clock, lambda: now[0])
    for seconds in (120.0, 30.0):
        with session(tmp_path):
            (tmp_path / LOG).touch()
            now[0] += seconds
        now[0] += 10_000.0
    assert worked_seconds(tmp_path) == 150.0


def test_a_clock_that_is_set_back_changes_no_time_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall, steady = [900_000.0], [10.0]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    monkeypatch.setattr(time, "monotonic", lambda: steady[0])
    with session(tmp_path):
        wall[0] -= 863_613.0
        steady[0] += 60.0
    assert worked_seconds(tmp_path) == 60.0


def test_a_session_that_fails_has_worked_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    for clock in ("time", "monotonic"):
        monkeypatch.setattr(time, clock, lambda: now[0])

    def fail() -> None:
        with session(tmp_path):
            now[0] += 7.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert worked_seconds(tmp_path) == 7.0


def test_a_session_that_was_killed_worked_until_its_last_line(tmp_path: Path) -> None:
    write_json(tmp_path / FILE, {"sessions": [{"began": 5_000.0}]})
    (tmp_path / LOG).touch()
    os.utime(tmp_path / LOG, (5_060.0, 5_060.0))
    assert worked_seconds(tmp_path) == 60.0
    with session(tmp_path):
        # lines that the next one writes are not the killed one's
        os.utime(tmp_path / LOG, (9_000.0, 9_000.0))
        assert read_json(tmp_path / FILE)["sessions"][0]["seconds"] == 60.0


def test_of_a_run_that_was_begun_before_sessions_were_noted_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / LOG).touch()
    with session(tmp_path):
        pass
    assert worked_seconds(tmp_path) is None
    assert not (tmp_path / FILE).exists()

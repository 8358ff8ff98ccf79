"""One process at a time in a folder: the second is told who is there, and nobody clears up after the dead."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_study import environment

from experiments.study.sessions import session
from worldaction.errors import UserError
from worldaction.io.artefact import Artefact
from worldaction.io.lock import LOCK, Lock, locked

HOLD = """
import sys, time
from pathlib import Path
from worldaction.io.lock import Lock
lock = Lock(Path(sys.argv[1])); print("held", flush=True); time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which is at work on a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_is_at_work_where_and_since_when(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    who = rf"\(process {holder.pid} on {re.escape(platform.node())}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\)"
    with (
        pytest.raises(UserError, match=rf"is being made by another process; wait for it, or end it {who}"),
        session(tmp_path),
    ):
        pass
    assert not (tmp_path / "sessions.json").exists()


def test_the_lock_of_a_process_that_was_killed_is_taken_over(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == holder.pid
    with locked(tmp_path, remedy="wait"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_waits_a_moment_for_the_workers_of_a_parent_that_was_killed(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    threading.Timer(0.3, holder.kill).start()
    Lock(tmp_path, patience=60.0).release()


def test_a_lock_on_a_file_that_its_owner_has_deleted_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    flock, first = fcntl.flock, Lock(tmp_path)

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        first.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    second = Lock(tmp_path, patience=60.0)
    # it is the file that a third one would find
    with pytest.raises(UserError, match="is being made by another process"):
        Lock(tmp_path, patience=0.0)
    second.release()


def test_what_another_process_finished_just_before_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, made = Artefact(tmp_path / "a", made_by={"x": 1}), Artefact(tmp_path / "a", made_by={"x": 1})
    assert not late.complete
    flags = iter([False, True])
    (made.folder / "result").write_text("whole")
    made.finish({})
    monkeypatch.setattr(Artefact, "complete", property(lambda self: next(flags)))
    with pytest.raises(UserError, match="has just been made by another process, and is there now"):
        _ = late.folder
    assert not (tmp_path / "a" / LOCK).exists()

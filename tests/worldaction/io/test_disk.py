"""A disk that is full or read-only: one line with the file, what it needs and what is left; nothing half is taken."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import environment

from experiments.guard import guarded, thread_ended
from experiments.report.video import _whole
from worldaction.errors import Unfinished, UserError
from worldaction.io.atomic import save_checkpoint, save_tensors, write_json
from worldaction.io.disk import cannot_write
from worldaction.io.recorder import Recorder, setup_logging
from worldaction.play.writers.store import StoreWriter
from worldaction.spec import CALVIN

LIMIT = 200_000
"""Bytes that a file of a limited process can have: a disk that is full for large files alone."""


def limited(work: str, folder: Path) -> str:
    """What a process says in which no file can be large; its work has `folder`."""
    script = (
        "import resource, sys; from pathlib import Path; from experiments.guard import guarded\n"
        f"folder = Path({str(folder)!r})\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))\n"
        f"def work():\n    {work}\n"
        "sys.exit(guarded(work))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=90)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_tensors_that_do_not_fit_are_one_line_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_tensors(path, {"a": torch.ones(3)})
    before = path.read_bytes()
    said = limited(
        "import torch; from worldaction.io.atomic import save_tensors;"
        "save_tensors(folder / 'c.safetensors', {'a': torch.ones(100_000)})",
        tmp_path,
    )
    assert said.startswith(f"error: cannot write {path}: File too large (the file needs 0.4 MB, ")
    assert said.endswith(" left); free some room\n")
    assert said.count("\n") == 1
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["c.safetensors"]


def test_metrics_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    said = limited(
        "from worldaction.io.recorder import Recorder\n"
        "    with Recorder(folder) as recorder:\n"
        "        while True: recorder.log(0, {'x' * 1000: 1.0}, prefix='p')",
        tmp_path,
    )
    assert said.startswith(f"error: cannot write {tmp_path}")
    assert "File too large" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["close", "add_scalar"])
def test_tensorboard_that_cannot_write_is_one_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"worldaction.io.recorder.SummaryWriter.{name}", full)
    recorder = Recorder(tmp_path)
    with pytest.raises(Unfinished, match=r"cannot write .*tensorboard: No space left on device \(.* left\)"), recorder:
        recorder.log(0, {"x": 1.0}, prefix="p")


def test_a_thread_that_met_a_full_disk_says_nothing_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def told(error: BaseException) -> str:
        thread_ended(threading.ExceptHookArgs((type(error), error, None, None)))
        return capsys.readouterr().err

    assert told(OSError(errno.ENOSPC, "No space left on device")) == ""
    assert "ValueError" in told(ValueError("another"))


def test_a_log_that_does_not_fit_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path / "console.log")
    try:
        (handler,) = [one for one in logging.getLogger("worldaction").handlers if isinstance(one, logging.FileHandler)]
        handler.stream.close()
        handler.stream = open("/dev/full", "w")  # noqa: SIM115 (the handler's own, closed with it)
        logging.getLogger("worldaction").warning("a line")
        handler.stream = open(tmp_path / "console.log", "a")  # noqa: SIM115
    finally:
        setup_logging()
    assert capsys.readouterr().err == "a line\n"


NUMBERS = {errno.ENOSPC: "free some room", errno.EDQUOT: "free some room", errno.EROFS: "make the folder writable"}


@pytest.mark.parametrize(("number", "remedy"), NUMBERS.items())
@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_json(folder / "a.json", {}),
        lambda folder: save_checkpoint(folder / "a.safetensors", {"a": torch.ones(1)}),
        lambda folder: Recorder(folder / "new"),
        lambda folder: setup_logging(folder / "new" / "console.log"),
        lambda folder: StoreWriter(folder / "new", image_size=8, source="x", renderer="x"),
    ],
)
def test_whatever_the_system_refuses_has_its_own_remedy(
    tmp_path: Path, number: int, remedy: str, write: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(UserError, match=f"^cannot (write|create) {tmp_path}.*{os.strerror(number)}.*{remedy}"):
        write(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_what_a_full_disk_does_to_others_code_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/x/y")

    assert guarded(work) == 2
    said = capsys.readouterr().err
    assert said == "error: cannot write /x/y: Read-only file system; make the folder writable, or choose another one\n"

    def denied() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/x/y")

    assert guarded(denied) == 2
    assert capsys.readouterr().err.startswith("error: cannot open /x/y: Permission denied; allow it, or choose")

    def too_long() -> None:
        Path("x" * 300).stat()

    assert guarded(too_long) == 2
    assert capsys.readouterr().err == f"error: cannot open '{'x' * 80}': File name too long; give another path\n"

    def other() -> None:
        raise FileNotFoundError(errno.ENOENT, "no such file")

    with pytest.raises(FileNotFoundError):
        guarded(other)


def test_an_error_that_a_library_puts_into_words_is_known_by_its_number() -> None:
    said = str(cannot_write(Path("/x/y"), RuntimeError("I/O error: No space left on device (os error 28)"), needs=10))
    assert said.startswith("cannot write /x/y: No space left on device (the file needs 0.0 MB, ")


def test_a_film_that_is_cut_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    film = tmp_path / "f.mp4"
    assert not _whole(film)
    film.write_bytes(b"\0\0\0\x10ftypabcdefgh" + b"\0\0\0\x0cmoov1234" + b"\0\0\0\x0amdat12")
    assert _whole(film)
    film.write_bytes(film.read_bytes()[:-1])
    assert not _whole(film)


def test_a_store_whose_files_cannot_be_opened_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    writer = StoreWriter(tmp_path / "s", image_size=8, source="x", renderer="x")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(Unfinished, match=r"cannot write .*/s: Permission denied; make the folder writable"):
        writer._open_files(CALVIN)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []

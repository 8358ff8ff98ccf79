"""One process at a time: a file that its owner holds, and that says who that is.

The system holds the lock (`flock`) and frees it when its owner ends, however that is, so nobody clears up after a
process that was killed: the file that it leaves is taken over.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from worldaction.errors import UserError
from worldaction.io.disk import cannot_write

LOCK: Final = ".lock"
"""The file, in the folder that somebody is at work on."""
PATIENCE: Final = 3.0
"""Seconds to wait for the workers of a parent that was killed, which follow it at once."""


class Lock:
    """A folder for this process alone, until it is released or the process ends.

    Args:
        folder: created.
        patience: seconds to wait for another process.
        remedy: what somebody can do who comes second.

    Raises:
        UserError: another process has it, or the folder cannot be written.
    """

    def __init__(self, folder: Path, *, patience: float = PATIENCE, remedy: str = "wait for it") -> None:
        self._path = Path(folder) / LOCK
        end = time.monotonic() + patience
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while (descriptor := self._try()) is None:
                if time.monotonic() > end:
                    raise UserError(f"{folder} is being made by another process; {remedy}{_owner(folder)}")
                time.sleep(0.05)
            self._descriptor = descriptor
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _myself().encode())
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def _try(self) -> int | None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the owner before may have deleted it between the two
            if os.path.sameopenfile(descriptor, again := os.open(self._path, os.O_RDONLY)):
                os.close(again)
                return descriptor
            os.close(again)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    def release(self) -> None:
        """Let others have it; the file goes while it is held."""
        # on a disk that takes nothing the file stays, and is nobody's
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


@contextmanager
def locked(folder: Path, *, remedy: str) -> Iterator[None]:
    """Have a folder for this process alone; see `Lock`."""
    lock = Lock(folder, patience=0.0, remedy=remedy)
    try:
        yield
    finally:
        lock.release()


def _owner(folder: Path) -> str:
    """Who is at work on a folder, in brackets; nothing of one that has just begun, or has just ended."""
    try:
        found = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        return f" (process {int(found['pid'])} on {found['host']}, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _myself() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}) + "\n"

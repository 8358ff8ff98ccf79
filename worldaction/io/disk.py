"""What to say of a disk that takes no more, and how to find out in time."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from worldaction.errors import Unfinished, UserError

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_NAME: Final = (errno.ENAMETOOLONG, errno.ELOOP)
"""What was given can be no file's name, or is a link that leads to itself."""


def cannot_write(path: Path, error: BaseException, *, needs: int | None = None) -> Unfinished:
    """What to say of a file that could not be written.

    Args:
        path: the file.
        error: an OSError, or that of a library with the system's own words in it.
        needs: bytes of the file, where they are known.
    """
    number = number_in(error)
    why = os.strerror(number) if number else str(error)
    if number in FULL:
        size = f"the file needs {megabytes(needs)}, " if needs is not None else ""
        return Unfinished(f"cannot write {path}: {why} ({size}{left(path)}); free some room")
    if number in DENIED:
        return Unfinished(f"cannot write {path}: {why}; make the folder writable, or choose another one")
    return Unfinished(f"cannot write {path}: {why}; free the disk or choose another folder")


@contextmanager
def disk_errors() -> Iterator[None]:
    """A net below all that opens and writes in ways of its own: what a disk refuses, as one line.

    Raises:
        Unfinished: names the file.
        UserError: there can be no such file.
    """
    try:
        yield
    except OSError as error:
        path = Path(str(error.filename or "a file"))
        if error.errno in (*FULL, errno.EROFS):
            raise cannot_write(path, error) from error
        if error.errno in DENIED:
            # whether to read or to write, nobody knows here
            raise Unfinished(f"cannot open {path}: {error.strerror}; allow it, or choose another folder") from error
        if error.errno in NO_NAME:
            raise UserError(f"cannot open {str(path)[:80]!r}: {error.strerror}; give another path") from error
        raise


def number_in(error: BaseException) -> int | None:
    """The system's number of an error; of a library's that is written in Rust, the one in its words."""
    if isinstance(error, OSError):
        return error.errno
    _, found, rest = str(error).partition("(os error ")
    digits = rest.partition(")")[0]
    return int(digits) if found and digits.isdigit() else None


def left(path: Path) -> str:
    """How much room there is where a file is to be."""
    folder = next((parent for parent in Path(path).absolute().parents if parent.exists()), Path("/"))
    return f"{megabytes(shutil.disk_usage(folder).free)} left"


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e6:,.1f} MB"

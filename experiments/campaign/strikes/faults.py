"""Strikes at the n-th file operation of a process: it is killed there, or the disk takes no more from there on.

The functions of Python's own that work on files are wrapped, in a process that was made to be struck; the library
knows nothing of it.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BY_PATH: Final = ("open", "replace", "rename", "mkdir", "unlink", "rmdir", "link", "symlink", "truncate")
"""Functions of `os` whose first or second argument is a path."""
BY_DESCRIPTOR: Final = ("fsync", "ftruncate", "write")


@dataclass(frozen=True)
class Fault:
    """What happens, and when."""

    at: int
    """The operation at which it strikes, counted from 1."""
    folder: str
    """Operations on files in here are counted."""
    number: int | None = None
    """Of the system's error, which all writing operations meet from then on; None: the process is killed."""
    after: bool = False
    """Whether the process is killed once the operation is done, and not before."""


def install(fault: Fault) -> None:
    """Wrap this process's file operations."""
    count = _Count(fault)
    for name in BY_PATH:
        setattr(os, name, count.wrapped(getattr(os, name)))
    for name in BY_DESCRIPTOR:
        setattr(os, name, count.wrapped(getattr(os, name)))
    io.open = builtins.open = count.wrapped(builtins.open)
    # it writes without Python's functions
    from worldaction.io import atomic

    atomic.save_file = count.wrapped(atomic.save_file, path_at=1)  # type: ignore[attr-defined]


class _Count:
    """Counts operations, and strikes."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.done, self._folder = fault, 0, os.path.abspath(fault.folder)

    def wrapped(self, operation: Callable[..., Any], *, path_at: int = 0) -> Callable[..., Any]:
        """An operation that is counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            if not any(self._inside(arg) for arg in args[path_at : path_at + 2]):
                return operation(*args, **kwargs)
            self.done += 1
            if self.fault.number is not None:
                if self.done >= self.fault.at and _writes(operation, args, kwargs, self.fault.number):
                    raise OSError(self.fault.number, os.strerror(self.fault.number), str(args[path_at]))
                return operation(*args, **kwargs)
            if self.done == self.fault.at and not self.fault.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = operation(*args, **kwargs)
            if self.done == self.fault.at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    def _inside(self, file: Any) -> bool:
        """Whether a path, or an open descriptor, lies in the folder."""
        if isinstance(file, int):
            link = f"/proc/self/fd/{file}"
            return os.path.islink(link) and os.readlink(link).startswith(self._folder)
        return isinstance(file, str | Path) and os.path.abspath(file).startswith(self._folder)


def _writes(operation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], number: int) -> bool:
    """Whether an operation needs room on the disk, or the right to write there; what is deleted needs no room."""
    if operation.__name__ in ("unlink", "rmdir"):
        return number == errno.EROFS
    if operation.__name__ != "open":
        return True
    mode = args[1] if len(args) > 1 else kwargs.get("mode", kwargs.get("flags", "r"))
    if isinstance(mode, int):
        return bool(mode & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return any(letter in mode for letter in "wax+")

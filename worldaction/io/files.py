"""What is asked of a file before it is opened, and a hash of all of it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from worldaction.errors import UserError


def check_regular(path: Path | str) -> Path:
    """Refuse what is no file: opening a pipe waits for ever, and a device has no end.

    Args:
        path: of what is to be opened. That there is nothing, or a folder, is for whoever opens it to say.

    Raises:
        UserError: a pipe, socket or device lies there.
    """
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return path
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise UserError(f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file; put the file in its place")
    return path


def sha256_of(path: Path | str) -> str:
    """The hash of a file's content, as 64 hexadecimal digits.

    Raises:
        UserError: it is no file, or cannot be read.
    """
    try:
        with open(check_regular(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable, or get it anew") from error

"""How every program of the project ends: errors of the user in one line, interruptions with what to do next."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from worldaction.errors import UserError
from worldaction.io.disk import DENIED, FULL, disk_errors
from worldaction.signals import Interrupted, stops_raise

GO_ON: Final = "the same command, or --resume and the run's folder where it made one, goes on"


def guarded(main: Callable[[], None]) -> int:
    """Run a command; user errors become one line, interruptions say how to go on.

    Returns:
        the exit status: 0, 2 for a user error, 128 and the signal's number for an interruption: 130, 143, 129.
    """
    threading.excepthook = thread_ended
    try:
        with stops_raise(), disk_errors():
            main()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt as error:
        ended = error if isinstance(error, Interrupted) else Interrupted()
        # a terminal that was closed takes no last word
        with suppress(OSError):
            sys.stderr.write(f"{ended.what}; {ended.how or GO_ON}\n")
        return 128 + ended.number
    except BrokenPipeError:
        # `... --help | head` has read enough; Python must not try to flush the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what no shell can hand over, and what can be no file's name; whoever calls from Python can still try.

    Raises:
        UserError: an argument holds a NUL, or half of a character.
    """
    for argument in arguments:
        try:
            sound = b"\0" not in os.fsencode(argument)
        except UnicodeEncodeError:
            sound = False
        if not sound:
            raise UserError(f"{argument!r} holds a NUL byte or an unpaired surrogate; leave it out")


def thread_ended(error: threading.ExceptHookArgs) -> None:
    """Threads that write hand a full disk on to the main one, which says so in its own line."""
    if not isinstance(error.exc_value, OSError) or error.exc_value.errno not in (*FULL, *DENIED):
        threading.__excepthook__(error)

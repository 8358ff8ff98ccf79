"""How every program of the project ends: errors of the user in one line, interruptions with what to do next."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from worldaction.errors import UserError


def guarded(main: Callable[[], None]) -> int:
    """Run a command; user errors become one line, interruptions say how to go on.

    Returns:
        the exit status: 0, 2 for a user error, 130 for an interruption.
    """
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; go on with --resume and the run's folder\n")
        return 130
    except BrokenPipeError:
        # `... --help | head` has read enough; Python must not try to flush the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

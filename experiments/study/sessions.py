"""For how long commands have worked on a run: pauses between them, however long, are no work.

``sessions.json`` in the run's folder: of each command that worked on it, when it began (seconds since 1970) and its
seconds. One without seconds is at work, or was killed; it worked until the last line of the run's log.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from worldaction.errors import Unfinished
from worldaction.io.atomic import write_json
from worldaction.io.lock import locked
from worldaction.io.sealed_json import read_json

FILE: Final = "sessions.json"
LOG: Final = "console.log"


@contextmanager
def session(folder: Path) -> Iterator[None]:
    """Work on a run, whose time is noted; it begins before the first line of its log is written.

    Args:
        folder: of the run. One that was begun before sessions were noted has none, for half of a time would mislead.

    Raises:
        UserError: another process is at work on it.
    """
    with locked(folder, remedy="wait for it, or end it"):
        yield from _noted(folder)


def _noted(folder: Path) -> Iterator[None]:
    if not (folder / FILE).exists() and (folder / LOG).exists():
        yield
        return
    began, since = time.time(), time.monotonic()
    _write(folder, [*({**one, "seconds": _seconds(one, folder)} for one in _read(folder)), {"began": began}])
    try:
        yield
    except BaseException:
        # on a disk that is full the first error is the one to see
        with suppress(Unfinished):
            _end(folder, began, since)
        raise
    _end(folder, began, since)


def _end(folder: Path, began: float, since: float) -> None:
    # not by the wall's clock, which may be set meanwhile
    ended = {"began": began, "seconds": round(time.monotonic() - since, 1)}
    _write(folder, [ended if one["began"] == began else one for one in _read(folder)])


def worked_seconds(folder: Path) -> float | None:
    """Seconds of work on a run so far; None of one that was begun before sessions were noted."""
    found = _read(folder)
    return round(sum(_seconds(one, folder) for one in found), 1) if found else None


def _seconds(one: dict[str, Any], folder: Path) -> float:
    if "seconds" in one:
        return float(one["seconds"])
    log = folder / LOG
    return round(max(log.stat().st_mtime - one["began"], 0.0), 1) if log.exists() else 0.0


def _read(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(folder / FILE)["sessions"] if (folder / FILE).exists() else []
    return found


def _write(folder: Path, sessions: list[dict[str, Any]]) -> None:
    write_json(folder / FILE, {"sessions": sessions})

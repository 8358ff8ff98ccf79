"""One try in a process of its own: with limits of time and memory, and whatever it does told apart."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from experiments.campaign.base import Attack, Outcome
from experiments.campaign.damage import CANARY, MARK
from worldaction.errors import UserError

SECONDS: Final = 30.0
"""Of work, after which a try is a hang; on a busy machine waiting does not count."""
PATIENCE: Final = 8
"""How many times as long it may take by the clock."""
BYTES: Final = 2 << 30
ROOM: Final = 4 * BYTES
"""Beyond this much address space more than before, memory is refused, so that the machine lives."""
LINE: Final = 1000


class Trial(NamedTuple):
    """What became of a try."""

    outcome: Outcome
    words: str
    """The error, or what else there is to say."""


def tried(answer: Callable[[], Any], wanted: Any, *, mark: Path, seconds: float = SECONDS) -> Trial:
    """Call a function in a process of its own.

    Args:
        answer: what is tried.
        wanted: its answer to the unharmed input, which counts as correct.
        mark: a file that code in an input makes if it is run.
        seconds: limit of its time on the processor.
    """
    read, write = os.pipe()
    if not (child := os.fork()):
        os.close(read)
        _work(answer, write, mark, seconds)
    os.close(write)
    said, late = _said(read, time.monotonic() + PATIENCE * seconds, child, seconds)
    os.close(read)
    if late:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    if mark.exists():
        mark.unlink()
        return Trial("code ran", "it made the file that it was told to")
    if late or os.waitstatus_to_exitcode(status) == -signal.SIGXCPU:
        return Trial("hang", f"no end after {seconds:g} s")
    if used.ru_maxrss * 1024 > BYTES:
        return Trial("memory", f"{used.ru_maxrss / 2**20:.1f} GB")
    if not said:
        return Trial("crash", f"exit status {os.waitstatus_to_exitcode(status)}")
    kind, value = json.loads(said)
    if kind != "answer":
        return Trial(kind, value)
    return Trial("correct", "") if value == wanted else Trial("accepted though changed", "")


def answer_of(attack: Attack, *, mark: Path) -> Any:
    """The answer to the unharmed input.

    Raises:
        UserError: there is none, or not twice the same: what was built is of no use.
    """
    kept = mark.with_name("answer.json")

    def keep() -> Any:
        kept.write_text(json.dumps(value := attack.answer()))
        return value

    first = tried(keep, None, mark=mark)
    if first.outcome not in ("correct", "accepted though changed"):
        raise UserError(f"the attack {attack.name} cannot begin: {first.outcome}, {first.words}; report it")
    answer = json.loads(kept.read_text())
    if tried(attack.answer, answer, mark=mark).outcome != "correct":
        raise UserError(f"the attack {attack.name} has two answers to one input; report it")
    return answer


def _said(read: int, end: float, child: int, seconds: float) -> tuple[bytes, bool]:
    """What the process said, and whether it took too long."""
    parts: list[bytes] = []
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([read], [], [], min(left, 0.5))
        if ready:
            part = os.read(read, 1 << 16)
            if not part:
                return b"".join(parts), False
            parts.append(part)
        elif _idle(child) and time.monotonic() > end - (PATIENCE - 1) * seconds:
            # it waits for something that never comes
            return b"", True
    return b"", True


def _idle(child: int) -> bool:
    """Whether a process sleeps."""
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return False


def _work(answer: Callable[[], Any], write: int, mark: Path, seconds: float) -> None:
    """The child's part; it does not return."""
    # a crash is an outcome like others, and counted
    faulthandler.disable()
    try:
        said = json.dumps(_judged(answer, mark, seconds))
    # whatever it is, it is what is looked for
    except BaseException as error:  # noqa: BLE001
        said = json.dumps(["traceback", f"{type(error).__name__}: {str(error)[:200]}"])
    try:
        os.write(write, said.encode())
    finally:
        os._exit(0)


def _judged(answer: Callable[[], Any], mark: Path, seconds: float) -> list[Any]:
    os.environ[MARK] = str(mark)
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(quiet, stream)
    _limit(seconds)
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, mark))
    try:
        return ["answer", answer()]
    except UserError as error:
        text = str(error)
        if "\n" in text or len(text) > LINE:
            return ["traceback", f"an error of {len(text)} characters: {text[:200]}"]
        return ["clear error", text[:300]]
    except SystemExit as error:
        return ["clear error", f"exit status {error.code}"] if error.code else ["answer", None]


def _limit(seconds: float) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))


def _watch(event: str, arguments: tuple[Any, ...], mark: Path) -> None:
    """Code that an input names: a module of that name, or a command."""
    if (event == "import" and arguments[0] == CANARY) or event == "os.system":
        mark.touch()

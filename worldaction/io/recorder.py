"""What a run says while it works: metrics as JSON lines, CSV and TensorBoard, progress, and the log.

Metric keys are paths, such as `loss/kl`; a prefix, such as `world_model`, says which stage they belong to. The JSON
lines are the record, one object a line with `prefix`, `step`, `time` and the metrics; `metrics.csv` is made from them.
"""

from __future__ import annotations

import csv
import glob
import json
import logging
import math
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from worldaction.errors import Unfinished, UserError
from worldaction.io.atomic import replacing
from worldaction.io.disk import cannot_write
from worldaction.io.files import check_regular

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
NUMBERS = ("step", "time")
OWN_KEYS = ("prefix", *NUMBERS)
SECONDS_BETWEEN_LINES = 10.0
# workers draw no bars, and a lock between processes has a process of its own, which a closed terminal ends with a word
tqdm.set_lock(threading.RLock())
LOGGERS = ("worldaction", "envs", "agents", "experiments")


class Recorder:
    """Appends metrics to a folder, and can go back to an earlier step after a crash.

    A stage records in the folder of its artefact, so that its metrics go wherever its results go.

    Args:
        folder: holds `metrics.jsonl`; created.
        boards: the folder for TensorBoard's files; `folder`/tensorboard if it is not given.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path | str, *, boards: Path | str | None = None) -> None:
        self.folder = Path(folder)
        self.path = self.folder / METRICS
        self._board_folder = self.folder / "tensorboard" if boards is None else Path(boards)
        self._boards: dict[str, SummaryWriter] = {}
        with _on_disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _cut_half_line(self.path)
            self._file: TextIO = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # what could not be written cannot be flushed either, and the first error is the one to see
        with suppress(Unfinished) if kind is not None else nullcontext():
            self.close()

    def log(self, step: int, metrics: Mapping[str, Any], *, prefix: str, check: bool = False) -> None:
        """Record the metrics of one step.

        Args:
            step: counted by the stage.
            metrics: path to number; numbers may be one-element tensors. NaN and infinities are kept as null.
            prefix: the stage.
            check: raise where a number is NaN or infinite, after it was recorded.

        Raises:
            UserError: a metric takes one of the record's own names, is not finite though `check`, or the disk is full.
        """
        values = {name: float(value) for name, value in metrics.items()}
        if taken := set(OWN_KEYS) & values.keys():
            raise UserError(f"a metric cannot be called {taken.pop()!r}; the record uses that name")
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._append({"prefix": prefix, "step": step, "time": round(time.time(), 3), **finite})
        with _on_disk(self._board_folder):
            board = self._board(prefix)
            for name, value in values.items():
                board.add_scalar(name, value, step)
        if check and (bad := [name for name, value in finite.items() if value is None]):
            raise UserError(f"{prefix}: {bad[0]} is {values[bad[0]]} at step {step}; lower the learning rate")

    def rewind(self, prefix: str, step: int) -> None:
        """Forget what was recorded under `prefix` after `step`, because a resumed stage will record it again."""
        self._file.close()
        with replacing(self.path) as temporary, open(temporary, "w", encoding="utf-8") as kept:
            for line in _read_lines(self.path):
                if line["prefix"] != prefix or line["step"] <= step:
                    kept.write(json.dumps(line) + "\n")
        with _on_disk(self.path):
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        with _on_disk(self._board_folder):
            if board := self._boards.pop(prefix, None):
                board.close()
            self._board(prefix, purge_step=step + 1)

    def close(self) -> None:
        """Finish the files.

        Raises:
            Unfinished: the disk is full.
        """
        with _on_disk(self._board_folder):
            for prefix in list(self._boards):
                self._boards.pop(prefix).close()
        with _on_disk(self.path):
            self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        with _on_disk(self.path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()

    def _board(self, prefix: str, *, purge_step: int | None = None) -> SummaryWriter:
        """One TensorBoard run a prefix, so that stages and tasks are drawn over each other and rewound alone."""
        if prefix not in self._boards:
            folder = self._board_folder / prefix
            # TensorBoard reads a run's files in the order of their names, which is that of time from second to second
            while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
                time.sleep(0.02)
            self._boards[prefix] = SummaryWriter(str(folder), purge_step=purge_step)
        return self._boards[prefix]


@contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """What the system refuses, as one line."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def read_metrics(folder: Path | str) -> Iterator[dict[str, Any]]:
    """Every recorded line of a folder, its own first, then those of the artefacts that it links to, by place.

    Raises:
        UserError: a line other than an unfinished last one is damaged.
    """
    for link in (Path(folder) / "artefacts").rglob("*"):
        if link.is_symlink() and not link.exists():
            logger.warning("%s leads to nothing, so its metrics are missing; was the cache moved or deleted?", link)
    # glob follows links, which Path.rglob does not
    below = sorted(glob.glob(f"{glob.escape(str(folder))}/artefacts/**/{METRICS}", recursive=True))
    for path in (Path(folder) / METRICS, *map(Path, below)):
        if path.exists():
            yield from _read_lines(path)


def write_csv(folder: Path | str) -> None:
    """Write `metrics.csv` from the recorded lines: one row a number, with prefix, step, time, metric, value."""
    with (
        replacing(Path(folder) / "metrics.csv") as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow([*OWN_KEYS, "metric", "value"])
        for line in read_metrics(folder):
            own = [line[key] for key in OWN_KEYS]
            table.writerows([*own, name, value] for name, value in line.items() if name not in OWN_KEYS)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    # bytes that are no text make a line that is no JSON
    with open(check_regular(path), encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith("\n"):
                return  # a process was killed while it wrote, or is writing just now
            try:
                line = json.loads(text)
                if not isinstance(line["prefix"], str) or any(type(line[key]) not in (int, float) for key in NUMBERS):
                    raise ValueError("its prefix, step or time is of another type")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is damaged ({error}); delete that line") from error
            yield line


def _cut_half_line(path: Path) -> None:
    """Remove an unfinished last line, onto which the next line would be glued otherwise."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, 2)
        position = end
        while position:
            start = max(0, position - 4096)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            position = start
        file.truncate(0)


# --- progress and the log ---------------------------------------------------------------------------------------------


class Progress:
    """A bar with rate and time left on a terminal, and a line of the log every ten seconds elsewhere and in workers.

    Made by `progress`; a context manager.

    Args:
        total: how many units there are; None if unknown.
        description: what is done.
        unit: of what, in the singular.
        initial: units that were done before, by an interrupted run.
    """

    def __init__(self, total: int | None, description: str, unit: str, *, initial: int = 0) -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.done = self._initial = initial
        self._figures: dict[str, float] = {}
        self._since = self._said = time.monotonic()
        # the bars of several processes would overwrite each other
        self._plain = not sys.stderr.isatty() or multiprocessing.parent_process() is not None
        options = {"total": total, "desc": description, "unit": f" {unit}", "initial": initial}
        self._bar = tqdm(**options, dynamic_ncols=True, smoothing=0.1, mininterval=0.2, disable=self._plain)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()
        if self._plain:
            self._say()

    def update(self, n: int = 1, **figures: float) -> None:
        """Count `n` more units, and show the figures beside them."""
        self.done += n
        self._figures |= figures
        if not self._plain:
            self._bar.set_postfix(_formatted(self._figures), refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        rate = (self.done - self._initial) / max(self._said - self._since, 1e-9)
        parts = [f"{self.done}/{self.total}" if self.total else f"{self.done}", f"{rate:.3g} {self.unit}/s"]
        if self.total and rate and self.done < self.total:
            parts.append(f"{tqdm.format_interval((self.total - self.done) / rate)} left")
        parts += [f"{name} {value}" for name, value in _formatted(self._figures).items()]
        logger.info("%s: %s", self.description, ", ".join(parts))


def _formatted(figures: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.4g}" for name, value in figures.items()}


def progress(total: int | None, description: str, unit: str, *, initial: int = 0) -> Progress:
    """Show how far a loop is: `with progress(1000, "world model", "step") as bar: bar.update(1, loss=0.3)`."""
    return Progress(total, description, unit, initial=initial)


_PREFIX: ContextVar[str] = ContextVar("log prefix", default="")


@contextmanager
def log_prefix(name: str) -> Iterator[None]:
    """Lines that are logged meanwhile begin with a name, if there is one."""
    token = _PREFIX.set(name)
    try:
        yield
    finally:
        _PREFIX.reset(token)


class _Prefixed(logging.Formatter):
    """Puts the name of `log_prefix` before a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if name := _PREFIX.get():
            record.message = f"{name}: {record.message}"
        return super().formatMessage(record)


FILE_ALONE: Final = {"file_alone": True}
"""As `extra` of a log line: it goes to the file and not to the console, where the program's last line says the same."""


class _BesideTheBar(logging.StreamHandler[TextIO]):
    """A handler whose lines do not cut through a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "file_alone"):
            return
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except (OSError, ValueError):
            self.handleError(record)


class _ToFile(logging.FileHandler):
    """A log that a full disk ends without a word for each line that is not in it; the work says what happened."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def setup_logging(path: Path | str | None = None, *, level: int = logging.INFO) -> None:
    """Send this project's log to stderr and, with times, to a file; a second call replaces the first.

    Args:
        path: the file to append to, such as `console.log` in a run folder; none for stderr alone.
        level: the least severe level that is shown.
    """
    handlers: list[logging.Handler] = [_BesideTheBar()]
    handlers[0].setFormatter(_Prefixed("%(message)s"))
    if path is not None:
        with _on_disk(Path(path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_ToFile(path, encoding="utf-8"))
        handlers[1].setFormatter(_Prefixed("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in LOGGERS:
        named = logging.getLogger(name)
        named.setLevel(level)
        for handler in list(named.handlers):
            named.removeHandler(handler)
            handler.close()
        for handler in handlers:
            named.addHandler(handler)

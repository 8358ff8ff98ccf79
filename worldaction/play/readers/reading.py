"""What the readers of foreign files share: damage named by file, optional packages asked for by name."""

from __future__ import annotations

import re
import struct
import tokenize
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io import typed_json
from worldaction.io.files import check_regular
from worldaction.play.readers.source import BLOCK
from worldaction.spec import CALVIN, Layout

RESERVED: Final = (
    spec.ROBOT, spec.SCENE, spec.ACTION, spec.PREVIOUS_ACTION, spec.ACTION_MASK, spec.IS_INIT, spec.EPISODE, "meta",
)  # fmt: skip
"""Keys of a store that no camera may have."""
DAMAGED: Final = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, MemoryError, OverflowError,
    RecursionError, SyntaxError, NotImplementedError, RuntimeError, ZeroDivisionError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy, zipfile, HDF5, Arrow and FFmpeg raise over files that are not what they seem; Arrow's are ValueErrors,
HDF5's OSErrors, RuntimeErrors and KeyErrors, FFmpeg's OSErrors and ValueErrors."""

PIECE_BYTES: Final = 32 * 2**20
"""Images in memory at once, about."""

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def naming(where: Path | str, *also: type[Exception]) -> Iterator[None]:
    """Whatever a damaged file raises inside becomes a UserError that names the file.

    Args:
        where: the file, or a part of it.
        also: exceptions of a package's own.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{where} is missing; copy the set again") from None
    except DAMAGED + also as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where} is damaged ({reason[:200]}); get the file anew") from error


class Sound:
    """What could be read of a set, and what is to be said of the rest.

    Args:
        strict: whether the first thing that cannot be read is an error.

    Attributes:
        skipped: what is left out, a line each.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.skipped: list[str] = []

    def skip(self, reason: str) -> None:
        """Leave something out.

        Raises:
            UserError: nothing may be left out.
        """
        if self._strict:
            raise UserError(reason)
        self.skipped.append(reason)

    def each(self, items: Iterable[T], read: Callable[[T], R]) -> list[R]:
        """What `read` makes of the items, but for those that it refuses.

        Raises:
            UserError: it refuses all of them, or one and nothing may be left out; as it does the first one.
        """
        found: list[R] = []
        first: UserError | None = None
        for item in items:
            try:
                found.append(read(item))
            except UserError as error:
                first = first or error
                self.skip(str(error))
        if first is not None and not found:
            raise first
        return found


def need(package: str) -> Any:
    """Import an optional package.

    Raises:
        UserError: it is not installed; names the extra to install.
    """
    try:
        return import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise UserError(f'reading this format needs {name}; run pip install "worldaction[data]"') from error


def load_array(path: Path) -> np.ndarray:
    """A `.npy` file without objects."""
    with naming(path):
        array = np.load(check_regular(path), allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is no array")
        return array


def load_json(path: Path) -> Any:
    """A JSON file that somebody else wrote, of limited size and depth."""
    if not path.exists():
        raise UserError(f"{path} is missing; copy the set again")
    return typed_json.read(path, remedy="get the file anew")


def check_vectors(array: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Numbers as the store takes them: float32 from any kind of number, finite, of one shape.

    Args:
        array: what was read.
        shape: what it must be.
        where: the file and the part of it, for the error.
    """
    if array.shape != shape or array.dtype.kind not in "fiub":
        raise UserError(f"{where} is {array.dtype} {array.shape}, not numbers {shape}; get the file anew")
    with np.errstate(over="ignore"):
        vectors = array.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"{where} holds NaN or infinity; get the file anew")
    return vectors


def piece(frame_bytes: int) -> int:
    """How many frames a reader holds at once.

    Args:
        frame_bytes: of the largest image of a frame.
    """
    return max(1, min(BLOCK, PIECE_BYTES // max(frame_bytes, 1)))


def layout_of(cameras: Iterable[str], *, robot: int, scene: int, action: int, absolute: bool = False) -> Layout:
    """What a frame of a foreign set holds: CALVIN's layout where the numbers are CALVIN's, else one without meaning.

    Args:
        cameras: their names.
        robot: numbers of proprioception; 0 if there are none.
        scene: numbers of privileged state; 0 if there are none.
        action: numbers of an action.
        absolute: whether the set says that actions are where the robot is to be.
    """
    if (robot, action) == (CALVIN.robot, CALVIN.action) and scene in (0, CALVIN.scene):
        return replace(CALVIN, cameras=tuple(cameras), scene=scene, absolute=absolute)
    return Layout(tuple(cameras), robot, scene, action, (0.0,) * action, absolute=absolute)


def camera_name(name: str, taken: Iterable[str], where: Path | str) -> str:
    """A camera's name as a key of the store: letters, digits and underscores, and none that is in use.

    Args:
        name: in the set.
        taken: those of the other cameras.
        where: the file that names it, for the error.
    """
    key = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not key or key in {*taken, *RESERVED}:
        raise UserError(f"{where}: the camera {name!r} cannot be called {key!r} in a store; rename it in the set")
    return key


def in_order(pool: Executor, work: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
    """Results of `work` in the order of the items, with at most `ahead` of them waiting in memory."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()

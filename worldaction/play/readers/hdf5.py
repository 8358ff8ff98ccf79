"""What the readers of HDF5 files share: groups and arrays that are checked before a value of them is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldaction.errors import UserError
from worldaction.play.readers.hdf5_check import LINK
from worldaction.play.readers.reading import check_vectors, naming, need

MAGIC: Final = b"\x89HDF\r\n\x1a\n"
PATIENCE: Final = 10.0
"""Seconds that a walk through a small file may take."""
EMPTY: Final = 1 << 26
"""Bytes up to which an array may never have been written."""
DENSEST: Final = 1100
"""How many bytes one of the file may stand for: gzip makes at most 1,032 of it."""
BYTES_PER_SECOND: Final = 10e6
"""How much larger a file is for each second more."""


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def check(path: Path) -> None:
    """Walk through a file in another process, because the HDF5 library can crash or hang over a damaged one.

    Raises:
        UserError: h5py is not installed, or the file is missing or damaged.
    """
    need("h5py")
    if not path.is_file():
        raise UserError(f"{path} is missing; copy the set again")
    # -P: the script's neighbours must not be taken for other people's packages
    command = [sys.executable, "-P", str(Path(__file__).with_name("hdf5_check.py")), str(path)]
    limit = PATIENCE + path.stat().st_size / BYTES_PER_SECOND
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"{path} is damaged (HDF5 finds no end in it); get the file anew") from None
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"HDF5 crashes with {done.returncode}"
        if reason.endswith(LINK):
            raise UserError(f"{path}: {reason}")
        raise UserError(f"{path} is damaged ({reason[:200]}); get the file anew")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file; whatever it raises because it is damaged names it.

    Raises:
        UserError: h5py is not installed, or the file is missing or damaged.
    """
    h5py = need("h5py")
    with naming(path), h5py.File(path, "r") as file:
        yield file


def group(parent: Any, name: str, where: str) -> Any:
    """A group that must be there."""
    found = parent.get(name)
    if not hasattr(found, "keys"):
        raise UserError(f"{where} has no group {name}; get the file anew")
    return found


def array(parent: Any, name: str, where: str) -> Any:
    """A dataset of numbers that must be there, none of it read; files outside of this one are not opened."""
    found = parent.get(name)
    if found is None or not hasattr(found, "dtype"):
        raise UserError(f"{where} has no array {name}; get the file anew")
    if found.external or found.is_virtual:
        raise UserError(f"{where}: {name} keeps its values in other files; copy them into one file first")
    stored, size = found.id.get_storage_size(), found.size * found.dtype.itemsize
    if size > EMPTY and size > stored * DENSEST:
        raise UserError(f"{where}: {name} would be {size:,} bytes, made of {stored:,} in the file; get the file anew")
    return found


def frames(dataset: Any, start: int, stop: int, where: str) -> np.ndarray:
    """Images [T, H, W, 3] uint8, some rows of a dataset."""
    images = dataset[start:stop]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) != stop - start:
        raise UserError(f"{where} is {images.dtype} {images.shape}, not images (T, H, W, 3) of uint8; get it anew")
    return np.asarray(images)


def vectors(datasets: Sequence[tuple[str, Any]], start: int, stop: int, where: str) -> np.ndarray:
    """Some rows of several datasets beside each other, [T, n] float32.

    Args:
        datasets: with their names; each [T, ...] numbers.
        start: the first row.
        stop: one past the last row.
        where: the file and the part of it, for errors.
    """
    parts = []
    for name, dataset in datasets:
        rows = dataset[start:stop].reshape(stop - start, -1)
        parts.append(check_vectors(rows, rows.shape, f"{where}/{name}"))
    return np.concatenate(parts, axis=1)


def width(dataset: Any) -> int:
    """Numbers in a row of a dataset [T, ...]."""
    return int(np.prod(dataset.shape[1:], dtype=np.int64))

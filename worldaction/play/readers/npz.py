"""The arrays of an `.npz`, read on demand: what an array says of itself is looked at before it is decompressed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from worldaction.io.files import check_regular
from worldaction.play.readers.reading import naming

BYTES: Final = 1 << 26
"""The largest array that is read: some kilobytes can claim to be gigabytes."""


class Npz:
    """An open archive.

    Args:
        archive: the file.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = tuple(name.removesuffix(".npy") for name in archive.namelist())

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, of which nothing is decompressed but its first bytes."""
        with self._archive.open(f"{name}.npy") as member:
            return _header(member)[0]

    def __getitem__(self, name: str) -> np.ndarray:
        with self._archive.open(f"{name}.npy") as member:
            shape, fortran, dtype = _header(member)
            size = math.prod(shape) * dtype.itemsize
            # one byte more, because the checksum is compared at the end of the file
            data = member.read(size + 1)
        if len(data) != size:
            raise ValueError(f"{name} has not the {size} bytes that it says")
        # copied, so that the array can be written to
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy()


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("objects are not read")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > BYTES:
        raise ValueError(f"an array of {dtype} {shape} is larger than {BYTES:,} bytes")
    return shape, fortran, dtype


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """The arrays of a file.

    Raises:
        UserError: the file is missing, is none, or is damaged; names it, whatever is done inside.
    """
    with naming(path), zipfile.ZipFile(check_regular(path)) as archive:
        yield Npz(archive)

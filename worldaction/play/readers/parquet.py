"""Rows of parquet files as NumPy arrays, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from worldaction.errors import UserError
from worldaction.io.files import check_regular
from worldaction.play.readers.reading import naming, need

SMALL_BYTES: Final = 1 << 28
"""The largest table that is read at once, of Python's objects, about."""
SMALL_ROWS: Final = 256
ROW_BYTES: Final = 512


class Rows(NamedTuple):
    """Where rows begin."""

    path: Path
    first: int


class Batch:
    """Successive rows.

    Args:
        table: a pyarrow RecordBatch.
        path: the file, for errors.
    """

    def __init__(self, table: Any, path: Path) -> None:
        self._table = table
        self._path = path

    @property
    def numbers(self) -> np.ndarray:
        """Episode and frame of each row, [T, 2] int64."""
        return np.concatenate([self.vector("episode_index"), self.vector("frame_index")], axis=1).astype(np.int64)

    def vector(self, name: str) -> np.ndarray:
        """A column of numbers or of lists of numbers of one length, [T, size]."""
        pa, compute = need("pyarrow"), need("pyarrow.compute")
        with naming(f"{self._path}: {name}", pa.ArrowException):
            column = self._table.column(name)
            rows = len(column)
            while pa.types.is_nested(column.type):
                if column.null_count or len(compute.unique(compute.list_value_length(column))) != 1:
                    raise ValueError("lists are missing or differ in length")
                column = column.flatten()
            if column.null_count:
                raise ValueError("values are missing")
            return column.to_numpy(zero_copy_only=False).reshape(rows, -1)

    def images(self, name: str) -> list[Any]:
        """A column of images, as it is."""
        with naming(f"{self._path}: {name}"):
            values: list[Any] = self._table.column(name).to_pylist()
            return values


def read_rows(rows: Rows, columns: Sequence[str], *, start: int, count: int, size: int) -> Iterator[Batch]:
    """Read some rows of a file, `size` at most at a time.

    Args:
        rows: where the first one of the episode is.
        columns: their names.
        start: how many rows of the episode to leave out.
        count: how many rows to read.
        size: how many of them at once.

    Raises:
        UserError: pyarrow is not installed; the file is missing or damaged, lacks a column, or ends too early.
    """
    path, left = rows.path, count
    with _opened(path) as file:
        _check_columns(path, file.schema_arrow.names, columns)
        groups, skip = _groups(file.metadata, rows.first + start, count)
        for batch in file.iter_batches(size, row_groups=groups, columns=list(columns), use_threads=False):
            part = batch.slice(min(skip, len(batch)), left)
            skip -= min(skip, len(batch))
            if len(part):
                yield Batch(part, path)
                left -= len(part)
            if not left:
                return
    raise UserError(f"{path} ends {left} frames too early; get the file anew")


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """A small file, as one dict a row.

    Raises:
        UserError: pyarrow is not installed; the file is missing or damaged, or lacks a column.
    """
    lines: list[dict[str, Any]] = []
    with _opened(path) as file:
        names = file.schema_arrow.names
        _check_columns(path, names, columns or ())
        size = 0
        # a few at a time, because some kilobytes can say the same ten million times
        for batch in file.iter_batches(SMALL_ROWS, columns=list(columns or names), use_threads=False):
            size += batch.nbytes + ROW_BYTES * len(batch)
            if size > SMALL_BYTES:
                raise ValueError(f"it holds more than {SMALL_BYTES:,} bytes, where one row is an episode or a task")
            lines += batch.to_pylist()
    return lines


def scan(path: Path, columns: Sequence[str]) -> Iterator[Batch]:
    """All rows of a file, some of its columns, a few at a time; errors as for `read_table`."""
    with _opened(path) as file:
        _check_columns(path, file.schema_arrow.names, columns)
        for batch in file.iter_batches(1 << 14, columns=list(columns), use_threads=False):
            yield Batch(batch, path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file; whatever it raises because it is damaged names it."""
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    with naming(path, pa.ArrowException), parquet.ParquetFile(check_regular(path)) as file:
        yield file


def count_rows(path: Path) -> int:
    """How many rows a file has.

    Raises:
        UserError: pyarrow is not installed, or the file is missing or damaged.
    """
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of some columns of one value a row, [rows], that a file has; what is missing in a row makes it objects.

    Raises:
        UserError: pyarrow is not installed, or the file is missing or damaged.
    """
    with _opened(path) as file:
        present = [name for name in names if name in file.schema_arrow.names]
        if file.metadata.num_rows * ROW_BYTES > 64 * SMALL_BYTES:
            raise ValueError(f"it says that it holds {file.metadata.num_rows:,} rows")
        table = file.read(present, use_threads=False)
        return {name: _flat(table.column(name).combine_chunks(), name) for name in present}


def _flat(column: Any, name: str) -> np.ndarray:
    """One value a row, [rows], also from lists of one."""
    pa, rows = need("pyarrow"), len(column)
    while pa.types.is_nested(column.type):
        column = column.flatten()
    if len(column) != rows:
        raise ValueError(f"{name} has not one value a row")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _check_columns(path: Path, present: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in present]:
        raise UserError(f"{path} has no column {missing[0]}; it has {', '.join(present)[:200]}; get the file anew")


def _groups(metadata: Any, first: int, count: int) -> tuple[list[int], int]:
    """The row groups in which rows lie, and how many rows to leave out of the first one."""
    groups: list[int] = []
    skip = position = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        if position < first + count and first < position + rows:
            skip = skip if groups else first - position
            groups.append(number)
        position += rows
    return groups, skip

"""The two ways in which Minari keeps episodes: groups of one HDF5 file, or a folder of Arrow or Parquet files each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from worldaction.errors import UserError
from worldaction.play.readers import hdf5
from worldaction.play.readers.reading import naming, need

_EPISODE: Final = re.compile(r"episode_(\d+)")
MAIN: Final = "main_data.hdf5"


class Episode(Protocol):
    """What is kept of one episode of T actions."""

    def observed(self, path: str, shape: Sequence[int] | None) -> Any:
        """The observations [T + 1, *shape] of one leaf, of which rows are read as they are asked for.

        Args:
            path: of the leaf, such as `robot/position`; empty where the space is one leaf.
            shape: of one observation; None where each is a JPEG file.
        """
        ...

    def actions(self) -> Any:
        """[T, ...]."""
        ...

    def rewards(self) -> np.ndarray | None:
        """[T], if there are any."""
        ...

    def info(self, name: str) -> np.ndarray | None:
        """What the environment's info said under this name; None if nothing."""
        ...


class Hdf5Storage:
    """Groups `episode_<n>` of one file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MAIN
        hdf5.check(self.path)

    def names(self) -> list[str]:
        """Of the episodes, in order."""
        with hdf5.opened(self.path) as file:
            matches = (match for name in file if (match := _EPISODE.fullmatch(name)))
            return [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]

    def where(self, name: str) -> str:
        """The file and the part of it, for errors."""
        return f"{self.path}: {name}"

    @contextmanager
    def opened(self, name: str) -> Iterator[Episode]:
        """One episode."""
        with hdf5.opened(self.path) as file:
            yield _Hdf5Episode(file[name], self.where(name))


class _Hdf5Episode:
    def __init__(self, stored: Any, where: str) -> None:
        self._stored, self._where = stored, where

    def observed(self, path: str, shape: Sequence[int] | None) -> Any:
        return hdf5.array(self._stored, f"observations/{path}" if path else "observations", self._where)

    def actions(self) -> Any:
        return hdf5.array(self._stored, "actions", self._where)

    def rewards(self) -> np.ndarray | None:
        return self._small("rewards")

    def info(self, name: str) -> np.ndarray | None:
        return self._small(f"infos/{name}")

    def _small(self, name: str) -> np.ndarray | None:
        return np.asarray(hdf5.array(self._stored, name, self._where)[()]) if name in self._stored else None


class ArrowStorage:
    """Folders `<n>` of Arrow or Parquet files, in which actions are padded to the length of the observations."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.path, self._kind = folder, kind
        need("pyarrow")

    def names(self) -> list[str]:
        """Of the episodes, in order."""
        return sorted((p.name for p in self.path.iterdir() if p.is_dir() and p.name.isdecimal()), key=int)

    def where(self, name: str) -> str:
        """The folder, for errors."""
        return str(self.path / name)

    @contextmanager
    def opened(self, name: str) -> Iterator[Episode]:
        """One episode, held in memory."""
        pa = need("pyarrow")
        files = sorted((self.path / name).glob(f"*.{self._kind}"))
        if not files:
            raise UserError(f"{self.path / name} holds no file *.{self._kind}; copy the set again")
        with naming(self.path / name, pa.ArrowException):
            table = pa.concat_tables([self._table(file) for file in files])
            yield _ArrowEpisode(table, self.where(name))

    def _table(self, file: Path) -> Any:
        if self._kind == "parquet":
            return need("pyarrow.parquet").read_table(file, use_threads=False)
        with need("pyarrow").memory_map(str(file)) as source:
            return need("pyarrow.ipc").open_file(source).read_all()


class _ArrowEpisode:
    def __init__(self, table: Any, where: str) -> None:
        self._table, self._where = table, where

    def observed(self, path: str, shape: Sequence[int] | None) -> Any:
        # a tuple's parts are called by number here, `_index_<n>` in HDF5
        names = [name.removeprefix("_index_") for name in path.split("/")] if path else []
        column = self._column("observations", *names)
        if column is None:
            raise UserError(f"{self._where} has no observations {path}; get the file anew")
        if shape is None:
            return [np.frombuffer(data, np.uint8) for data in column.to_pylist()]
        return _numbers(column, shape)

    def actions(self) -> Any:
        column = self._column("actions")
        if column is None:
            raise UserError(f"{self._where} has no actions; get the file anew")
        return _numbers(column)[:-1]

    def rewards(self) -> np.ndarray | None:
        column = self._column("rewards")
        return None if column is None else _numbers(column)[:-1].ravel()

    def info(self, name: str) -> np.ndarray | None:
        column = self._column("infos", name)
        return None if column is None else _numbers(column)

    def _column(self, name: str, *inner: str) -> Any:
        """A column, or a field of one that has fields; None if it is not there."""
        pa = need("pyarrow")
        if name not in self._table.column_names:
            return None
        column = self._table.column(name).combine_chunks()
        for field in inner:
            if not pa.types.is_struct(column.type) or column.type.get_field_index(field) < 0:
                return None
            column = column.field(field)
        return column


def _numbers(column: Any, shape: Sequence[int] | None = None) -> np.ndarray:
    """[T, *shape], or as many numbers a row as there are."""
    pa, rows = need("pyarrow"), len(column)
    while pa.types.is_nested(column.type):
        column = column.flatten()
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    return values.reshape(rows, *((-1,) if shape is None else shape))

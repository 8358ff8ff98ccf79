"""Reads pickled NumPy object arrays, such as CALVIN's annotations, without the ability to run code.

A pickle is a program that may call whatever it names. Here only five names of NumPy exist, and they lead to the inert
records below instead of to NumPy: even NumPy's own constructors can be abused, because a pickled dtype may declare raw
bytes to be pointers. What the program built is then turned into dicts, lists, tuples, arrays and numbers.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from worldaction.errors import UserError
from worldaction.io.files import check_regular
from worldaction.play.readers.reading import DAMAGED

PARTS: Final = 10_000
"""Parts of a tuple, those of the tuples in it counted as often as they occur."""
MARK: Final = -1
_PLAIN_DTYPE = re.compile(r"[biuf](1|2|4|8)|[SU]\d{1,6}")


class _Dtype:
    """A pickled `numpy.dtype`: its code and byte order, nothing else."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = str(code)
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def dtype(self) -> np.dtype[Any]:
        if not _PLAIN_DTYPE.fullmatch(self.code):
            raise ValueError(f"arrays of type {self.code!r} are not read")
        return np.dtype(self.order + self.code)

    def is_object(self) -> bool:
        return self.code in ("O", "O8")


class _Array:
    """A pickled `numpy.ndarray`."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def value(self, seen: dict[int, Any]) -> Any:
        _, shape, dtype, fortran, data = self.state
        if dtype.is_object():
            if type(data) is not list:
                raise ValueError("an array of objects was given as raw bytes")
            items = [_plain(item, seen) for item in data]
            return items if shape else items[0]
        # copied, so that the array can be written to
        return np.frombuffer(data, dtype.dtype()).reshape(shape, order="F" if fortran else "C").copy()


class _Scalar:
    """A pickled NumPy number or string."""

    def __init__(self, dtype: _Dtype, data: bytes) -> None:
        self.dtype = dtype
        self.data = data

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a number has no state")

    def value(self, _: dict[int, Any]) -> Any:
        return np.frombuffer(self.data, self.dtype.dtype(), count=1)[0].item()


class _Buffer(_Array):
    """A pickled array in the form of protocol 5."""

    def __init__(self, data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        self.state = (1, shape, dtype, order == "F", data)


# NumPy 2 writes numpy._core, NumPy 1 wrote numpy.core
_ALLOWED: dict[tuple[str, str], type] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED |= {
        (f"{_core}.multiarray", "_reconstruct"): _Array,
        (f"{_core}.multiarray", "scalar"): _Scalar,
        (f"{_core}.numeric", "_frombuffer"): _Buffer,
    }


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            name = f"{module_name}.{global_name}"
            raise UserError(f"{self.path} asks for {name}, which annotations never need; get the file anew") from None


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """The records turned into values; what is shared stays shared, so that a small file cannot grow without bound."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, _Array | _Scalar):
        result = value.value(seen)
    elif type(value) is dict:
        result = {_plain(key, seen): _plain(item, seen) for key, item in value.items()}
    elif type(value) in (list, tuple):
        result = type(value)(_plain(item, seen) for item in value)
    elif value is None or isinstance(value, bool | int | float | str | bytes):
        result = value
    else:
        raise ValueError(f"a {type(value).__name__} is not data")
    seen[id(value)] = result
    return result


def load_object_array(path: Path | str) -> Any:
    """The content of a `.npy` file that holds one pickled object, such as a dict.

    Args:
        path: the file. Arrays in it come as arrays, object arrays as flat lists, NumPy numbers as Python's.

    Raises:
        UserError: the file is missing or damaged, or its pickle asks for anything but NumPy arrays of plain data.
    """
    path = Path(path)
    try:
        with open(check_regular(path), "rb") as file:
            return _load(file, path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; get the data set anew") from None
    except RecursionError:
        raise UserError(f"{path} is damaged (it contains itself); get the file anew") from None
    # what a damaged pickle can raise is not limited to UnpicklingError, as its documentation says
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise UserError(f"{path} is damaged ({error!r}); get the file anew") from error


def _check_hashes(file: BinaryIO) -> None:
    """Refuse tuples of the same tuples of the same tuples, whose hash, as the key of a dict, would take for ever.

    The program is followed without being run: of everything on its stack it is known how many parts its hash has.
    """
    start = file.tell()
    stack: list[int] = []
    memo: dict[int, int] = {}
    argument: Any
    for code, argument, _ in pickletools.genops(file):
        parts = 1
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
            continue
        if code.name in ("GET", "BINGET", "LONG_BINGET"):
            parts = memo[argument]
        elif code.name == "DUP":
            parts = stack[-1]
        elif pickletools.markobject in code.stack_before:
            mark = len(stack) - 1 - stack[::-1].index(MARK)
            parts += sum(stack[mark + 1 :])
            # what lies under the mark, such as the list that is added to, is taken off and put back
            del stack[mark - code.stack_before.index(pickletools.markobject) :]
        elif code.stack_before:
            parts += sum(stack[-len(code.stack_before) :])
            del stack[-len(code.stack_before) :]
        if not (code.name.startswith("TUPLE") or code.name in ("GET", "BINGET", "LONG_BINGET", "DUP")):
            parts = 1
        if parts > PARTS:
            raise ValueError(f"tuples that have more than {PARTS} parts together")
        stack += [MARK if code.name == "MARK" else parts] * len(code.stack_after)
    file.seek(start)


def _load(file: BinaryIO, path: Path) -> Any:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(file)
    if not dtype.hasobject:
        file.seek(0)
        return np.load(file, allow_pickle=False)
    _check_hashes(file)
    return _plain(_RestrictedUnpickler(file, path).load(), {})

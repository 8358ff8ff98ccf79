"""JSON as values of known types: limits before it is taken in, and whatever is of another type named by its path.

    about = read_typed(path, Info, remedy="copy the set again")
    # UserError: meta/info.json is damaged (features.action.shape[0] is 'x', not a whole number); copy the set again

A type is a dataclass, a NamedTuple, or whatever their fields may be: bool, int, float, str, None, Any, Literal, unions,
lists, tuples, mappings with text for keys, and `Annotated` numbers with a `Range`. What was read is data: nothing that
it names is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union

from worldaction.config import Range
from worldaction.errors import UserError
from worldaction.io.files import check_regular

BYTES: Final = 1 << 26
"""The largest text that is read: Python's objects take up to 24 times as much."""
DEPTH: Final = 64
"""How deep lists and objects may lie in each other."""
DAMAGED: Final = "delete it and write it again"
_WORDS: Final = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null",
    list: "a list", dict: "an object",
}  # fmt: skip

T = TypeVar("T")


def parse(text: str | bytes, source: Path | str, *, remedy: str = DAMAGED) -> Any:
    """JSON from a text, of limited size and depth.

    Args:
        text: of JSON.
        source: where it comes from, for the error.
        remedy: for the error: what to do if it is damaged.

    Raises:
        UserError: it is no JSON, or beyond the limits.
    """
    if len(text) > BYTES:
        raise UserError(f"{source} has {len(text):,} bytes of JSON, more than {BYTES:,}; {remedy}")
    try:
        value = json.loads(text)
    except RecursionError:
        raise UserError(f"{source} is damaged (lists and objects more than {DEPTH} deep); {remedy}") from None
    except ValueError as error:
        raise UserError(f"{source} is damaged ({error}); {remedy}") from error
    if _too_deep(value):
        raise UserError(f"{source} is damaged (lists and objects more than {DEPTH} deep); {remedy}")
    return value


def read(path: Path | str, *, remedy: str = DAMAGED) -> Any:
    """JSON from a file; see `parse`.

    Raises:
        UserError: the file is missing, no file, no JSON, or beyond the limits.
    """
    try:
        with open(check_regular(path), "rb") as file:
            content = file.read(BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path, or run what writes it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', error)}; make it readable") from error
    return parse(content, path, remedy=remedy)


def read_typed(path: Path | str, kind: type[T], *, remedy: str = DAMAGED, others: bool = False) -> T:
    """A value of a known type from a file; see `read` and `typed`."""
    return typed(read(path, remedy=remedy), kind, path, remedy=remedy, others=others)


def typed(
    value: Any, kind: Any, source: Path | str, *, name: str = "", remedy: str = DAMAGED, others: bool = False
) -> Any:
    """What JSON gave, as a value of a type.

    Args:
        value: of `json.loads`.
        kind: the type; see above. Numbers keep their own: a whole one is a float's as well.
        source: where it comes from, for the error.
        name: what it is called there, for the error.
        remedy: for the error: what to do about it.
        others: whether objects may have fields that their dataclass has not got, as files of other programs do.

    Raises:
        UserError: something in it is of another type, missing or unknown; names its path.
    """
    try:
        return _Reader(others).value(value, kind, name)
    except _Wrong as wrong:
        raise UserError(f"{source} is damaged ({wrong}); {remedy}") from None


class _Wrong(Exception):
    """What is wrong with a value, in words that begin with its path."""


@dataclasses.dataclass(frozen=True)
class _Reader:
    others: bool

    def value(self, value: Any, kind: Any, path: str) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any or kind is object:
            return value
        if origin is Annotated:
            return self._ranged(value, arguments, path)
        if origin in (Union, types.UnionType):
            return self._one_of(value, arguments, path)
        if origin is Literal:
            if not any(value == one and type(value) is type(one) for one in arguments):
                raise _wrong(value, f"one of {', '.join(map(str, arguments))}", path)
            return value
        if origin in (list, tuple, Sequence):
            return self._sequence(value, origin, arguments, path)
        if origin in (dict, Mapping):
            items = _expect(value, dict, path).items()
            return {key: self.value(item, arguments[1], _below(path, key)) for key, item in items}
        if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
            return self._object(value, kind, path)
        return _expect(value, kind, path)

    def _ranged(self, value: Any, arguments: Sequence[Any], path: str) -> Any:
        found = self.value(value, arguments[0], path)
        for one in arguments[1:]:
            if isinstance(one, Range) and not one.holds(found):
                raise _wrong(value, one.words, path)
        return found

    def _one_of(self, value: Any, kinds: Sequence[Any], path: str) -> Any:
        wrong: list[_Wrong] = []
        for kind in kinds:
            try:
                return self.value(value, kind, path)
            except _Wrong as error:
                wrong.append(error)
        # what went wrong furthest inside says most
        raise max(wrong, key=lambda one: len(str(one).partition(" is ")[0]))

    def _sequence(self, value: Any, origin: Any, arguments: Sequence[Any], path: str) -> Any:
        items = value if isinstance(value, tuple) else _expect(value, list, path)
        kinds: Iterable[Any] = [arguments[0]] * len(items)
        if origin is tuple and arguments[-1] is not Ellipsis:
            kinds = arguments
            if len(items) != len(arguments):
                raise _wrong(value, f"a list of {len(arguments)}", path)
        found = [self.value(item, kind, f"{path}[{i}]") for i, (item, kind) in enumerate(zip(items, kinds))]
        return tuple(found) if origin is tuple else found

    def _object(self, value: Any, kind: Any, path: str) -> Any:
        content = _expect(value, dict, path)
        hints, names, optional = _fields(kind)
        if missing := [name for name in names if name not in content and name not in optional]:
            raise _Wrong(f"{path or 'it'} has no {missing[0]!r}")
        if not self.others and (more := [name for name in content if name not in names]):
            near = difflib.get_close_matches(more[0], names, n=1)
            raise _Wrong(
                f"{path or 'it'} has an unknown {more[0]!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        given = {name: self.value(content[name], hints[name], _below(path, name)) for name in names if name in content}
        return kind(**given)


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], list[str], set[str]]:
    """Types and names of the fields, and those that have a default."""
    hints = typing.get_type_hints(kind, include_extras=True)
    if not dataclasses.is_dataclass(kind):
        return hints, list(kind._fields), set(kind._field_defaults)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    none = dataclasses.MISSING
    return hints, [f.name for f in fields], {f.name for f in fields if (f.default, f.default_factory) != (none, none)}


def _expect(value: Any, kind: type, path: str) -> Any:
    """A value of exactly a type, for JSON's true is no number; numbers are finite."""
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits or (kind is float and not _finite(value)):
        raise _wrong(value, _WORDS[kind], path)
    return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _wrong(value: Any, words: str, path: str) -> _Wrong:
    return _Wrong(f"{path or 'it'} is {_short(value)}, not {words}")


def _short(value: Any) -> str:
    """A value in a few characters: what is long or nested is told by its kind."""
    if isinstance(value, list | dict | tuple):
        return f"{_WORDS[dict if isinstance(value, dict) else list]} of {len(value)}"
    text = str(value)[:100] if isinstance(value, str) else ""
    return repr(text) if isinstance(value, str) else json.dumps(value)[:40]


def _below(path: str, name: str) -> str:
    return f"{path}.{name[:60]}" if path else name[:60]


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True

"""JSON is read as values of known types, with limits, and what is out of place is named by its path."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from worldaction.config import Count, Share
from worldaction.errors import UserError
from worldaction.io import typed_json
from worldaction.io.typed_json import parse, read, read_typed, typed


class Point(NamedTuple):
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Inner:
    size: Count
    kind: Literal["a", "b"] = "a"
    share: Share = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    points: list[Point] = field(default_factory=list)
    sides: tuple[int, ...] = ()
    pair: tuple[int, str] | None = None
    by_name: dict[str, Inner] = field(default_factory=dict)
    anything: Any = None
    on: bool = False


WHOLE: dict[str, Any] = {
    "name": "n",
    "inner": {"size": 3},
    "points": [{"x": 1}, {"x": 2.5, "y": 3}],
    "sides": [1, 2],
    "pair": [1, "x"],
    "by_name": {"k": {"size": 1, "kind": "b"}},
    "anything": {"deep": [1, None]},
    "on": True,
}


def test_values_come_as_their_types() -> None:
    found = typed(WHOLE, Outer, "f.json")
    assert found == Outer(
        "n", Inner(3), [Point(1), Point(2.5, 3)], (1, 2), (1, "x"), {"k": Inner(1, "b")}, {"deep": [1, None]}, True
    )
    # a digest of settings must not change because a number was written without a point
    assert type(found.points[0].x) is int


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is 3, not text"),
        ({"name": None}, "name is null, not text"),
        ({"inner": {"size": "x"}}, "inner.size is 'x', not a whole number"),
        ({"inner": {"size": True}}, "inner.size is true, not a whole number"),
        ({"inner": {"size": 1.0}}, "inner.size is 1.0, not a whole number"),
        ({"inner": {"size": 0}}, "inner.size is 0, not 1 or more"),
        ({"inner": {"size": 1, "share": float("nan")}}, "inner.share is NaN, not a number"),
        ({"inner": {"size": 1, "share": 10**400}}, "inner.share is 1000000000000000000000000000000000000000, not a n"),
        ({"inner": {"size": 1, "kind": "c"}}, "inner.kind is 'c', not one of a, b"),
        ({"inner": {"siez": 1, "size": 1}}, "inner has an unknown 'siez'; did you mean 'size'?"),
        ({"inner": {}}, "inner has no 'size'"),
        ({"inner": []}, "inner is a list of 0, not an object"),
        ({"points": [{"x": 1}, {"x": "y"}]}, "points[1].x is 'y', not a number"),
        ({"points": {"x": 1}}, "points is an object of 1, not a list"),
        ({"pair": [1]}, "pair is a list of 1, not a list of 2"),
        ({"pair": [1, 2]}, "pair[1] is 2, not text"),
        ({"by_name": {"k": {"size": []}}}, "by_name.k.size is a list of 0, not a whole number"),
        ({"on": "no"}, "on is 'no', not true or false"),
        ({"on": 1}, "on is 1, not true or false"),
    ],
)
def test_what_is_out_of_place_is_named_by_its_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        typed(WHOLE | change, Outer, "f.json", remedy="get it anew")
    assert str(error.value).startswith(f"f.json is damaged ({message}")
    assert str(error.value).endswith("; get it anew")


def test_files_of_others_may_say_more() -> None:
    assert typed({"size": 1, "more": 2}, Inner, "f", others=True) == Inner(1)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100 + "]" * 100, '{"a":' * 70 + "1" + "}" * 70])
def test_depth_is_limited(text: str) -> None:
    with pytest.raises(UserError, match="more than 64 deep"):
        parse(text, "f.json")
    assert parse("[" * 64 + "]" * 64, "f.json")


def test_size_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.json").write_text(json.dumps("x" * 100))
    assert read(tmp_path / "f.json") == "x" * 100
    monkeypatch.setattr(typed_json, "BYTES", 50)
    with pytest.raises(UserError, match=r"f\.json has 51 bytes of JSON, more than 50"):
        read(tmp_path / "f.json")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a pipe, not a file"):
        read(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a device, not a file"):
        read("/dev/zero")
    for path, message in ((tmp_path, "cannot read"), (tmp_path / "none", "does not exist"), ("a\0b", "cannot read")):
        with pytest.raises(UserError, match=message):
            read(path)


def test_a_file_is_read_as_its_type(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"size": 2}')
    assert read_typed(tmp_path / "f.json", Inner) == Inner(2)

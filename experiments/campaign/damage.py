"""What can happen to a file: bits, holes, other lengths, other contents, and values of JSON that are out of place."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldaction.io.sealed_json import SEAL

Rng = np.random.Generator
CANARY: Final = "worldaction_canary"
"""A module that nobody has; whoever tries to import it obeys a file."""
MARK: Final = "WORLDACTION_CAMPAIGN_MARK"
"""The environment variable with the name of a file that code in an input would make."""
DEEP: Final = 100_000
VALUES: Final[tuple[Any, ...]] = (
    None, True, False, -1, 0, 1, 3, 2**31, 2**70, 1.5, -1e308, float("nan"), float("inf"), "", "x", "no", "../x", "\0",
    "/dev/zero", f"{CANARY}:X", [], {}, [[]], [1], {"a": 1}, "x" * 10_000,
)  # fmt: skip


PROGRAM: Final = f"""cos\nsystem\n(S'touch "${MARK}"'\ntR.""".encode()
"""A pickle, written by hand: whoever unpickles it the ordinary way makes a file."""


def damages(path: Path, rng: Rng) -> tuple[str, Callable[[Path], object]]:
    """One damage to a file, in words and as what does it."""
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.6:
        text = _in_json(path.read_text(encoding="utf-8"), rng, lines=path.suffix == ".jsonl")
        return "a value of its JSON", lambda where: where.write_text(text, encoding="utf-8")
    if rng.random() < 0.1:
        words = list(PLACES)[rng.integers(len(PLACES))]
        return words, PLACES[words]
    words, change = CHANGES[rng.integers(len(CHANGES))]
    content = change(path.read_bytes(), rng)
    return words, lambda where: where.write_bytes(content)


def by_hand(path: Path, rng: Rng) -> tuple[str, Callable[[Path], object]]:
    """A value of a JSON file, changed as by somebody who means it, and has deleted the seal."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop(SEAL, None)
    edited = changed(content, rng)
    text = json.dumps(edited)
    return f"by hand, {_edit(content, edited)}", lambda where: where.write_text(text, encoding="utf-8")


def _edit(before: Any, after: Any, path: str = "") -> str:
    """What was edited, in words, so that it can be done again."""
    if isinstance(before, dict) and isinstance(after, dict):
        if gone := before.keys() - after.keys():
            return f"{path}.{min(gone)} is gone"
        key = next((key for key in after if key not in before or before[key] is not after[key]), "")
        return _edit(before.get(key), after.get(key), f"{path}.{key}")
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        at = next((at for at, value in enumerate(after) if value is not before[at]), 0)
        return _edit(before[at], after[at], f"{path}[{at}]") if after else f"{path} stays"
    return f"{path} is {after!r:.80}"


def _flip(content: bytes, rng: Rng) -> bytes:
    """One to eight bits, anywhere or near the beginning, where formats say what they are."""
    if not content:
        return b"\0"
    found = bytearray(content)
    end = len(found) if rng.random() < 0.5 else min(len(found), 256)
    for position in rng.integers(0, end, rng.integers(1, 9)):
        found[position] ^= 1 << int(rng.integers(8))
    return bytes(found)


def _blank(content: bytes, rng: Rng) -> bytes:
    """A stretch of zeros, as a disk leaves it."""
    first = int(rng.integers(len(content) + 1))
    last = min(len(content), first + int(rng.integers(1, 4096)))
    return content[:first] + bytes(last - first) + content[last:]


def _move(content: bytes, rng: Rng) -> bytes:
    """A stretch of the file in another place of it."""
    first, place = (int(rng.integers(len(content) + 1)) for _ in range(2))
    piece = content[first : first + int(rng.integers(1, 512))]
    return content[:place] + piece + content[place + len(piece) :]


def _pickled(_: bytes, rng: Rng) -> bytes:
    """A program in the place of data: as it is, in an array, and in an archive of arrays."""
    form, out = rng.integers(3), io.BytesIO()
    if form == 0:
        return PROGRAM
    np.lib.format.write_array_header_1_0(out, {"descr": "|O", "fortran_order": False, "shape": ()})
    array = out.getvalue() + PROGRAM
    if form == 1:
        return array
    with zipfile.ZipFile(out := io.BytesIO(), "w") as archive:
        archive.writestr("rel_actions.npy", array)
    return out.getvalue()


CHANGES: Final[tuple[tuple[str, Callable[[bytes, Rng], bytes]], ...]] = (
    ("bits", _flip),
    ("bits", _flip),
    ("bits", _flip),
    ("cut", lambda content, rng: content[: rng.integers(len(content) + 1)]),
    ("zeros", _blank),
    ("longer", lambda content, rng: content + rng.bytes(int(rng.integers(1, 100)))),
    ("noise", lambda content, rng: rng.bytes(len(content))),
    ("a stretch elsewhere", _move),
    ("emptied", lambda content, rng: b""),
    ("twice", lambda content, rng: content * 2),
    ("a pickled program", _pickled),
    ("a hundred thousand brackets", lambda content, rng: b"[" * DEEP),
)


def _put(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def do(path: Path) -> None:
        path.unlink()
        make(path)

    return do


PLACES: Final[dict[str, Callable[[Path], object]]] = {
    "gone": Path.unlink,
    "a pipe": _put(os.mkfifo),
    "a folder": _put(Path.mkdir),
    "a link to /dev/zero": _put(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": _put(lambda path: path.symlink_to(path)),
    "a link to nothing": _put(lambda path: path.symlink_to(path.with_name("nothing"))),
    "unreadable": lambda path: path.chmod(0) if os.getuid() else shutil.copymode(path, path),
}


def _in_json(text: str, rng: Rng, *, lines: bool) -> str:
    parts = text.splitlines() if lines else [text]
    if not parts:
        return "x"
    at = int(rng.integers(len(parts)))
    parts[at] = json.dumps(changed(json.loads(parts[at]), rng))
    return "\n".join(parts)


def changed(value: Any, rng: Rng) -> Any:
    """A JSON value with one thing in it replaced, removed, added or lying deep in lists."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        chance = rng.random()
        if chance < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if chance < 0.15:
            return {**value, "more": VALUES[rng.integers(len(VALUES))]}
        return {**value, key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = int(rng.integers(len(value)))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    if rng.random() < 0.05:
        for _ in range(200):
            value = [value]
        return value
    return VALUES[rng.integers(len(VALUES))]

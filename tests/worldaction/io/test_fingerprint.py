"""A data set is told from another one in its place, and not from its copy."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from worldaction.io.fingerprint import code_of, content_of


def recorded(folder: Path) -> Path:
    """Something like a data set: many files of a kind, one that describes them, a large one, and a hidden one."""
    (folder / "training" / ".cache").mkdir(parents=True)
    for number in range(100):
        (folder / "training" / f"episode_{number:03}.npz").write_bytes(bytes([number]) * 50)
    (folder / "training" / "annotations.json").write_text("[" + "0, " * 50_000 + "0]")
    (folder / "training" / ".cache" / "downloaded").write_text("today")
    with open(folder / "frames.memmap", "wb") as file:
        file.truncate(1 << 25)
    return folder


def test_a_copy_has_the_same_content_whatever_its_times_and_hidden_files(tmp_path: Path) -> None:
    original = recorded(tmp_path / "a")
    copy = shutil.copytree(original, tmp_path / "b", copy_function=shutil.copy)
    os.utime(copy / "frames.memmap", (1, 1))
    (copy / "training" / ".cache" / "downloaded").write_text("yesterday")
    assert content_of(copy) == content_of(original) == content_of(str(original))
    assert content_of(original / "frames.memmap") == content_of(copy / "frames.memmap")
    assert content_of(tmp_path / "absent") is None


def rewritten(folder: Path, name: str, at: int) -> None:
    with open(folder / name, "rb+") as file:
        file.seek(at)
        file.write(b"x")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "training" / "episode_050.npz").unlink(),
        lambda folder: (folder / "training" / "episode_050.npz").rename(folder / "training" / "episode_100.npz"),
        # all of a description, both ends of a large file and of a series of them
        lambda folder: rewritten(folder, "training/annotations.json", 70_001),
        lambda folder: rewritten(folder, "frames.memmap", 0),
        lambda folder: rewritten(folder, "frames.memmap", (1 << 25) - 1),
        lambda folder: rewritten(folder, "training/episode_000.npz", 49),
        lambda folder: rewritten(folder, "training/episode_099.npz", 0),
    ],
)
def test_another_set_in_the_place_of_one_has_another_content(tmp_path: Path, change: Any) -> None:
    folder = recorded(tmp_path / "a")
    before = content_of(folder)
    change(folder)
    assert content_of(folder) != before


# Code -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a loss of the user's, whose helpers are in files of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "hashed_loss.py").write_text(
        "import torch\nfrom hashed_helpers import deep\nimport hashed_constants as c\n"
    )
    (tmp_path / "hashed_helpers").mkdir()
    (tmp_path / "hashed_helpers" / "__init__.py").write_text("")
    (tmp_path / "hashed_helpers" / "deep.py").write_text("from . import deeper\nraise SystemExit\n")
    (tmp_path / "hashed_helpers" / "deeper.py").write_text("SLOPE = 1\n")
    (tmp_path / "hashed_constants.py").write_text("import hashed_loss\n")
    (tmp_path / "hashed_other.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["hashed_loss", "hashed_constants", "hashed_helpers/__init__", "hashed_helpers/deep", "hashed_helpers/deeper"],
)
def test_code_is_told_apart_by_what_it_imports_as_well(mine: Path, name: str) -> None:
    before = code_of("hashed_loss")
    path = mine / f"{name}.py"
    path.write_text(path.read_text() + "# edited\n")
    assert code_of("hashed_loss") not in (before, None)


def test_what_it_does_not_import_is_no_part_of_it_nor_is_what_is_installed(mine: Path) -> None:
    before = code_of("hashed_loss")
    (mine / "hashed_other.py").write_text("EDITED = True\n")
    assert code_of("hashed_loss") == before
    (mine / "hashed_loss.py").write_text("import torch, json, worldaction.spec\n")
    assert code_of("hashed_loss") == hashlib.sha256(b"import torch, json, worldaction.spec\n").hexdigest()[:16]


def test_code_that_is_no_python_is_its_file_alone(mine: Path) -> None:
    (mine / "hashed_loss.py").write_text("import (\n")
    assert code_of("hashed_loss") == hashlib.sha256(b"import (\n").hexdigest()[:16]

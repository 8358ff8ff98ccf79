"""Writing a first file of any kind of plug-in, and going through a contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.policies.base import POLICIES
from agents.policies.tools.scaffold import new_policy
from agents.updates.tools.scaffold import new_update
from worldaction.errors import UserError
from worldaction.scaffold import examine, title_of, write_plugin


def test_the_texts_are_filled_with_the_name_and_the_class(tmp_path: Path) -> None:
    paths = write_plugin(POLICIES, "my_head", tmp_path, code="class {title}: {{}}", test="from {name} import {title}")
    assert [path.name for path in paths] == ["my_head.py", "test_my_head.py"]
    assert [path.read_text() for path in paths] == ["class MyHead: {}", "from my_head import MyHead"]


@pytest.mark.parametrize(
    ("writer", "taken", "kind"), [(new_policy, "gaussian", "policy"), (new_update, "ppo", "update")]
)
def test_names_that_cannot_be_or_are_taken_are_refused(writer: Any, taken: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{kind} name {taken!r} is taken"):
        writer(taken, tmp_path)
    for name in ("Mine", "my head", "class"):
        with pytest.raises(UserError, match=f"such as my_{kind}"):
            writer(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["torch", "numpy", "json", "sys", "envs", "worldaction"])
def test_a_name_that_would_hide_a_module_is_refused_with_another(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=rf"name '{name}': its file would hide .*{name}.*; give another, such as my_{name}"
    ):
        write_plugin(POLICIES, name, Path(), code="", test="")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*my_head\.py: No such file or directory"):
        write_plugin(POLICIES, "my_head", tmp_path / "nowhere", code="", test="")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("dear to me")
    with pytest.raises(UserError, match=r"test_mine\.py is there already"):
        new_update("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]


def test_the_class_of_a_name() -> None:
    assert title_of("arrow_of_time") == "ArrowOfTime"


def test_an_examination_ends_with_a_wrong_class_and_goes_on_after_any_other_fault() -> None:
    def is_class(cls: Any) -> list[str]:
        """It is a class.

        Not shown.
        """
        return [] if isinstance(cls, type) else ["class: no"]

    def is_named(cls: Any) -> list[str]:
        """It has a name."""
        return ["name: none"]

    checks = [is_class, is_named, is_class]
    assert list(examine(int, checks)) == [
        ("It is a class.", []),
        ("It has a name.", ["name: none"]),
        ("It is a class.", []),
    ]
    assert list(examine(3, checks)) == [("It is a class.", ["class: no"])]

"""A folder or a package that hides one of ours is named in one line, and nothing else is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import environment

from worldaction import installation
from worldaction.errors import UserError


def said(folder: Path, *arguments: str) -> str:
    """What a fresh Python in a folder says before it refuses."""
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert result.returncode != 0
    assert result.stdout == ""
    return result.stderr.strip()


def package(folder: Path, name: str) -> Path:
    """A user's own package."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    return folder


@pytest.mark.parametrize("program", ["worldaction", "experiments.calvin"])
def test_a_folder_that_hides_our_environments_is_named_in_one_line(tmp_path: Path, program: str) -> None:
    # `-m` puts the working directory first, as a script's folder is
    line = said(package(tmp_path, "envs"), "-m", program, "--help")
    assert line == "error: ./envs hides worldaction's package envs: run from another folder, or rename it"


@pytest.mark.parametrize("name", ["envs", "agents", "experiments"])
def test_an_import_says_it_too_for_each_of_the_names(tmp_path: Path, name: str) -> None:
    folder = package(tmp_path, name)
    line = said(folder, "-c", "import worldaction.installation as i; i.refuse_hidden()").splitlines()[-1]
    assert line.endswith(f"./{name} hides worldaction's package {name}: run from another folder, or rename it")


def test_a_single_file_and_a_folder_without_init_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text("")
    assert "./agents.py hides worldaction's package agents" in said(tmp_path, "-m", "worldaction", "doctor")
    (tmp_path / "agents.py").unlink()
    # a folder without __init__.py gives way to an installed package
    (tmp_path / "agents").mkdir()
    asked = [sys.executable, "-c", "import worldaction.installation as i; i.refuse_hidden()"]
    assert subprocess.run(asked, cwd=tmp_path, env=environment(), timeout=60).returncode == 0


def test_a_package_from_elsewhere_has_another_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        installation, "_where", lambda name: tmp_path / name if name == "envs" else installation.ROOT / name
    )
    with pytest.raises(UserError, match="hides worldaction's package envs: take it off PYTHONPATH or uninstall it"):
        installation.refuse_hidden()
    monkeypatch.setattr(installation, "_where", lambda name: None)
    assert installation.hidden().keys() == {"envs", "agents", "experiments"}
    assert "is not installed beside it" in installation.hidden()["envs"]


def test_nothing_hides_our_packages_here() -> None:
    assert installation.hidden() == {}

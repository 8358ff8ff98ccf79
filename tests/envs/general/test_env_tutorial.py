"""The tutorial on environments does what it says, step by step, in a folder of its own."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_study import ROOT, options, study, summary
from tutorial import run

from experiments.study.options import parse_study

TUTORIAL = (ROOT / "docs/tutorial_env.md").read_text()
BASH, PYTHON = (re.findall(rf"```{kind}\n(.*?)```", TUTORIAL, re.DOTALL) for kind in ("bash", "python"))
COMMANDS = [shlex.split(line) for block in BASH for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, in which the first two steps have been done."""
    made = run(shlex.join(COMMANDS[0]), tmp_path)
    assert made.returncode == 0, made.stderr
    assert "worldaction check env gate:Gate" in made.stdout
    (text,) = PYTHON
    (tmp_path / "gate.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("gate", None)


def test_the_steps_are_those_that_are_tested_here() -> None:
    assert [command[:3] for command in COMMANDS] == [
        ["worldaction", "new", "env"],
        ["worldaction", "check", "env"],
        ["worldaction", "train", "debug"],
    ]


def test_the_environment_of_the_tutorial_gives_a_study_what_it_asks(folder: Path) -> None:
    said = run(shlex.join(COMMANDS[1]), folder)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "gate:Gate keeps to the contract" in said.stdout


def test_the_check_says_of_a_missing_demonstrator_what_the_tutorial_says(folder: Path) -> None:
    text = PYTHON[0].replace('    demonstrator = "gate:GateExpert"\n', "")
    assert text != PYTHON[0]
    (folder / "gate.py").write_text(text)
    said = run(shlex.join(COMMANDS[1]), folder)
    assert said.returncode == 2
    (wrong,) = [line for line in said.stdout.splitlines() if line.startswith("WRONG")]
    assert f"    {wrong}\n" in TUTORIAL


def test_the_tutorial_s_study_is_fitted_to_the_environment(folder: Path) -> None:
    settings, *_ = parse_study(COMMANDS[2][2:])
    assert settings.tasks == ("Gate",)
    assert settings.world_model.cameras == ("image",)
    assert settings.table.max_steps <= 50


def test_a_debug_study_runs_in_an_environment_that_is_one_file_in_a_folder(folder: Path) -> None:
    arguments = options(env="gate:Gate", world_model__cameras="image", run_dir="run", workers=1)
    result = study(*arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert summary(folder / "run")["tasks"]["Gate"]["n"] == 2

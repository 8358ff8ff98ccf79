"""`python -m` of one of our modules does its work, or says that it is no program and what is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from tiny_study import environment

from worldaction import programs


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and what is said on stderr."""
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    return result.returncode, result.stderr.strip()


@pytest.mark.parametrize("module", ["worldaction.fit", "agents.bc", "envs.tasks", "experiments.study.run"])
def test_a_module_that_is_no_program_says_so(module: str) -> None:
    assert run("-m", module) == (1, f"error: {module} is no program; see worldaction --help")
    assert run("-W", "ignore", "-m", module)[0] == 1


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("experiments.benchmark", "worldaction benchmark"),
        ("experiments.gpu_check", "worldaction gpu-check"),
        ("experiments.fidelity", "worldaction table fidelity"),
        ("envs.playtable.check", "worldaction table experts"),
        ("worldaction.kernels.build", "worldaction build-kernels"),
    ],
)
def test_a_program_of_before_says_its_new_name(module: str, command: str) -> None:
    assert run("-m", module) == (1, f"error: python -m {module} is now: {command}")


@pytest.mark.parametrize("module", ["worldaction", "experiments", "experiments.metaworld", "experiments.losses"])
def test_programs_answer_for_help(module: str) -> None:
    assert run("-m", module, "--help") == (0, "")


def test_a_study_of_ones_own_is_a_program_as_soon_as_its_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("if __name__ == \"__main__\":\n    print('mine')\n")
    (tmp_path / "other.py").write_text("")
    assert programs._is_program(tmp_path, ["mine"])
    assert not programs._is_program(tmp_path, ["other"])
    assert not programs._is_program(tmp_path, ["nowhere"])

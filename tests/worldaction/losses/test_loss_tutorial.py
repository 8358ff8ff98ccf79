"""The tutorial on losses does what it says, step by step, in a folder of its own; and the page on the zoo is true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from tiny_study import ROOT, environment

from experiments.calvin import main
from experiments.losses import parse as parse_comparison
from experiments.study.options import parse_study
from worldaction.losses import available
from worldaction.losses.registry import find
from worldaction.losses.tools.contract import noise_batch, tiny_model

TUTORIAL = (ROOT / "docs/tutorial_loss.md").read_text()
ZOO = (ROOT / "docs/losses.md").read_text()
BASH, PYTHON = (re.findall(rf"```{kind}\n(.*?)```", TUTORIAL, re.DOTALL) for kind in ("bash", "python"))
COMMANDS = [line for block in BASH for line in block.splitlines()]
# programs of their own, which begin by importing torch
pytestmark = pytest.mark.timeout(300)
WORLDACTION = "from experiments.__main__ import main; main()"


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell would do in a folder."""
    program, *arguments = shlex.split(command)
    words = ["-c", WORLDACTION, *arguments] if program == "worldaction" else arguments
    return subprocess.run(
        [sys.executable, *words], env=environment(), cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first two steps have been done."""
    folder = tmp_path_factory.mktemp("tutorial")
    made = run(COMMANDS[0], folder)
    assert made.returncode == 0, made.stderr
    loss, test = PYTHON
    for path, text in ((folder / "arrow_of_time.py", loss), (folder / "test_arrow_of_time.py", test)):
        assert path.exists()
        path.write_text(text)
    return folder


def test_the_steps_are_those_that_are_tested_here() -> None:
    assert [shlex.split(command)[:3] for command in COMMANDS] == [
        ["worldaction", "new", "loss"],
        ["worldaction", "check", "loss"],
        ["python", "-m", "pytest"],
        ["python", "-m", "experiments.calvin"],
        ["python", "-m", "experiments.losses"],
    ]


def test_the_loss_of_the_tutorial_passes_the_contract(folder: Path) -> None:
    said = run(COMMANDS[1], folder)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "keeps to the contract" in said.stdout


def test_the_tests_of_the_tutorial_pass(folder: Path) -> None:
    said = run(f"{COMMANDS[2]} -q -p no:cacheprovider", folder)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_contract_says_of_a_wrong_tap_what_the_tutorial_says(folder: Path, tmp_path: Path) -> None:
    wrong = PYTHON[0].replace('frozenset({"embed"})', 'frozenset({"belief"})')
    assert wrong != PYTHON[0]
    (tmp_path / "arrow_of_time.py").write_text(wrong)
    said = run(COMMANDS[1], tmp_path)
    assert said.returncode == 2
    shown = [line.strip() for line in re.findall(r"^    (.*)$", TUTORIAL, re.MULTILINE)]
    answer = [line for line in shown if line.startswith(("WRONG", "taps:"))]
    assert len(answer) == 3
    assert all(line in said.stdout for line in answer)


def test_training_and_the_comparison_find_the_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    study, _, _ = parse_study(COMMANDS[3].split()[3:])
    model, batch = tiny_model(study.losses), noise_batch()
    terms, metrics, _ = model.losses_of(batch)
    assert {"loss/arrow_of_time", "metrics/arrow_of_time/right"} <= metrics.keys()
    assert model.shares(terms)["gradient_share/arrow_of_time"] > 0
    comparison = parse_comparison(COMMANDS[4].split()[3:])
    assert [arm.partition(":")[0] for arm in comparison.study.arms] == ["base", "arrow_of_time", "taco"]
    sys.modules.pop("arrow_of_time", None)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_debug_study_of_the_tutorial_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    main(COMMANDS[3].split()[3:])


# The page on the zoo --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(available()))
def test_the_page_names_every_loss_with_its_scale_source_and_options(name: str) -> None:
    cls = find(name)
    (row,) = re.findall(rf"^\| `{name}` \|.*$", ZOO, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == f"{cls.Options().scale:g}"
    assert cells[2].split(", ") == [*sorted(cls.needs), *sorted(cls.reads), *(["images"] if cls.encodes else [])]
    for option in fields(cls.Options)[1:]:
        assert f"`{option.name}`" in ZOO, f"{name} has an option that the page does not explain"

"""The tutorials on policy heads and updates do what they say, step by step."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tutorial import Tutorial, run

from experiments.calvin import main
from experiments.study.options import parse_study

PAGES = {
    "policy": (Tutorial("tutorial_policy.md"), ("(weight + each)", "(weight - each)")),
    "update": (Tutorial("tutorial_update.md"), ("loss = -(weight", "loss = +(weight")),
}
"""Each page, and the change that it says is noticed."""
# programs of their own, which begin by importing torch
pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("kind", PAGES)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind, a folder in which the first two steps have been done."""
    return {kind: page.made(tmp_path_factory.mktemp(kind)) for kind, (page, _) in PAGES.items()}


def test_the_steps_are_those_that_are_tested_here(kind: str) -> None:
    assert [shlex.split(command)[:3] for command in PAGES[kind][0].commands] == [
        ["worldaction", "new", kind],
        ["worldaction", "check", kind],
        ["python", "-m", "pytest"],
        ["python", "-m", "experiments.calvin"],
    ]


def test_what_the_tutorial_builds_passes_the_contract(kind: str, folders: dict[str, Path]) -> None:
    said = run(PAGES[kind][0].commands[1], folders[kind])
    assert said.returncode == 0, said.stdout + said.stderr
    assert "keeps to the contract" in said.stdout


def test_the_tests_of_the_tutorial_pass(kind: str, folders: dict[str, Path]) -> None:
    said = run(f"{PAGES[kind][0].commands[2]} -q -p no:cacheprovider", folders[kind])
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_contract_says_of_a_mistake_what_the_tutorial_says(kind: str, tmp_path: Path) -> None:
    page, (right, wrong) = PAGES[kind]
    assert right in page.programs[0]
    (tmp_path / f"{page.commands[0].split()[-1]}.py").write_text(page.programs[0].replace(right, wrong))
    said = run(page.commands[1], tmp_path)
    assert said.returncode == 2
    assert len(page.answers()) == 1
    assert page.answers()[0] in said.stdout


def test_the_command_line_takes_it(kind: str) -> None:
    command = PAGES[kind][0].commands[3].split()[3:]
    study, _, _ = parse_study(command)
    assert getattr(study, kind).name == command[-1]
    assert study.improved == ("regression" if kind == "update" else "ppo")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_debug_study_of_the_tutorial_runs(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders[kind])
    main(PAGES[kind][0].commands[3].split()[3:])

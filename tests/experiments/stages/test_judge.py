"""Another simulator as the judge: the same policies from the same start states, within a study or after it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from tiny_study import SETTINGS, copied, files, finished_run, options

import experiments.__main__ as cli
from experiments.calvin import main
from experiments.guard import guarded
from experiments.study.run import Run
from worldaction.config import digest
from worldaction.io.sealed_json import read_json

TASK = "turn_on_led"
TWIN, ABSENT, TABLE = "judges:Twin", "judges:Absent", "worldaction/PlayTable-v0"
EPISODES = SETTINGS["evaluation.episodes"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judges, for processes of their own too."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "support"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A finished run that may be changed."""
    return copied(finished_run(), tmp_path / "run")


def evaluate(*arguments: Any) -> int:
    """`worldaction eval`; gives its exit status."""
    return guarded(lambda: cli.command(["eval", *map(str, arguments)]))


def values(path: Path) -> Any:
    """The content of a JSON file."""
    found: Any = read_json(path)
    return found


def test_the_same_policies_from_the_same_starts_come_to_the_same_where_the_judge_is_the_same_table(copy: Path) -> None:
    assert evaluate(copy, "--in", TWIN) == 0
    own = values(copy / "evaluation" / f"{TASK}-seed0.json")
    judged = values(copy / "evaluation" / "judged-judges-Twin" / f"{TASK}-seed0.json")
    assert judged.pop("env") == TWIN
    # of both samplers, the choice as well
    assert judged == own
    told = values(copy / "summary.json")["tasks"][TASK]
    assert told["judged"][TWIN]["ppo"] == told["ppo"]
    assert "Twin" in (copy / "report.html").read_text()
    assert (copy / "artefacts/seed0" / TASK / "judged-judges-Twin" / "evaluation.json").exists()


def test_what_has_been_judged_is_not_judged_again_and_another_number_of_episodes_is_another_judgement(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy / "evaluation" / "judged-judges-Twin" / f"{TASK}-seed0.json"
    assert evaluate(copy, "--in", TWIN) == 0
    first = path.read_text()
    assert evaluate(copy, "--in", TWIN, "--episodes", 1) == 0
    assert values(path)["ppo"]["index"] == [0]

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it has been judged before")

    monkeypatch.setattr("experiments.stages.judge.outcomes", never)
    assert evaluate(copy, "--in", TWIN, "--episodes", EPISODES) == 0
    assert path.read_text() == first


def test_a_judge_that_was_thought_of_later_changes_neither_the_run_nor_what_it_finds_when_run_again(copy: Path) -> None:
    before = {place: artefact.digest for place, artefact in Run.open(copy).artefacts().items()}
    assert evaluate(copy, "--in", TWIN, "--tasks", TASK, "--seeds", 0, "--workers", 1) == 0
    assert {place: artefact.digest for place, artefact in Run.open(copy).artefacts().items()} == before
    assert guarded(lambda: main(["--resume", str(copy)])) == 0
    new = {name for name in files(copy) - files(finished_run()) if not name.startswith("cache/")}
    assert new == {f"evaluation/judged-judges-Twin/{TASK}-seed0.json"}


def test_a_study_elsewhere_is_judged_at_the_embedded_table(tmp_path: Path) -> None:
    arguments = options(run_dir=tmp_path / "run", workers=1, env=TWIN, evaluation__curve_episodes=0)
    assert guarded(lambda: main([*arguments, "--evaluate-in", TABLE])) == 0
    run = Run.open(tmp_path / "run")
    assert run.artefacts()[f"seed0/{TASK}/judged-PlayTable-v0"].complete
    judged = values(run.folder / "evaluation" / "judged-PlayTable-v0" / f"{TASK}-seed0.json")
    assert judged.pop("env") == TABLE
    assert judged == values(run.folder / "evaluation" / f"{TASK}-seed0.json")
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (ABSENT, "no such simulator is known: set ABSENT_PYTHON"),
        ("worldaction/Calvin-v0", "no CALVIN simulator is known: set WORLDACTION_CALVIN_PYTHON"),
        ("Pendulum-v1", "unknown task 'turn_on_led'"),
        ("Calvin-v0", "unknown environment 'Calvin-v0'; did you mean 'worldaction/Calvin-v0'?"),
        ("nothing:Here", "nothing"),
    ],
)
def test_a_judge_that_cannot_be_had_is_refused_before_anything_is_computed(
    env: str,
    said: str,
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WORLDACTION_CALVIN_PYTHON", raising=False)
    assert guarded(lambda: main([*options(run_dir=tmp_path / "new", workers=1), "--evaluate-in", env])) == 2
    error = capsys.readouterr().err
    assert said in error
    assert f"--evaluate-in {env}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
    before = files(copy)
    assert evaluate(copy, "--in", env) == 2
    assert said in capsys.readouterr().err
    assert files(copy) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--in", TABLE], "has been evaluated there already"),
        (["--in", TWIN, "--episodes", "0"], "--episodes 0: give 1 or more"),
        (["--in", TWIN, "--episodes", str(EPISODES + 1)], f"--episodes {EPISODES + 1}: give 1 to {EPISODES}"),
        (["--in", TWIN, "--tasks", "open_drawer"], "open_drawer"),
        (["--in", TWIN, "--seeds", "3"], "seed"),
    ],
)
def test_what_a_run_cannot_be_asked_for_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(finished_run(), *arguments) == 2
    assert said in capsys.readouterr().err


def test_what_made_a_judgement_names_the_simulator_and_the_starts_and_not_who_else_judges(copy: Path) -> None:
    run = Run.open(copy)
    one = run.judged(0, TASK, TWIN)
    assert one.digest == run.judged(0, TASK, TWIN, episodes=SETTINGS["evaluation.judged-episodes"]).digest
    assert one.digest != run.judged(0, TASK, ABSENT).digest
    assert digest(one.made_by) == one.digest
    assert {"env", "episodes", "first", "table", "ppo", "sampler"} <= one.made_by.keys()

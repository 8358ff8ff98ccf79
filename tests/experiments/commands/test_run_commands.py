"""Runs that exist are listed, set beside each other, and drawn for a paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_study import copied, finished_run

from experiments import __main__ as cli
from experiments.guard import guarded
from worldaction.io.atomic import write_json

TASK = "turn_on_led"


def said(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    cli.command(list(map(str, arguments)))
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert guarded(lambda: cli.command(list(map(str, arguments)))) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def change(path: Path, **values: Any) -> None:
    write_json(path, json.loads(path.read_text()) | values)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs alike in a folder, one below a program's name."""
    return copied(finished_run(), tmp_path / "one"), copied(finished_run(), tmp_path / "calvin" / "two")


# worldaction runs -----------------------------------------------------------------------------------------------------


def test_every_run_has_a_line_with_its_state_and_what_it_came_to(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = runs
    change(two / "env.json", started="2020-01-02T03:04:05")
    change(two / "summary.json", unfinished=["seed0/a", "seed0/b"])
    damaged, begun = one.parent / "damaged", one.parent / "begun"
    for folder in (damaged, begun):
        folder.mkdir()
        for name in ("config.json", "env.json"):
            (folder / name).write_text((one / name).read_text())
    (damaged / "env.json").write_text("{")
    lines = {line.split()[0]: line for line in said(capsys, "runs", one.parent).splitlines()[2:]}
    assert lines.keys() == {str(folder) for folder in (one, two, damaged, begun)}
    assert "2020-01-02 03:04" in lines[str(two)]
    assert "2 stages left" in lines[str(two)]
    assert "damaged: " in lines[str(damaged)]
    assert "interrupted or at work" in lines[str(begun)]
    tasks = json.loads((one / "summary.json").read_text())["tasks"]
    rates = [f"{name} {100 * tasks[TASK][name.lower()]['rate']:.0f} %" for name in ("BC", "PPO")]
    assert all(word in lines[str(one)] for word in ("debug", "PlayTable-v0", "finished", *rates))
    # two damaged dates sort first, then by the time at which they were begun
    assert list(lines)[:2] == [str(damaged), str(two)]


def test_a_folder_without_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no runs" in refused(capsys, "runs", tmp_path)
    assert "there is no folder" in refused(capsys, "runs", tmp_path / "none")


# worldaction compare --------------------------------------------------------------------------------------------------


def test_equal_runs_differ_in_nothing(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = runs[0].parent / "compared.json"
    text = said(capsys, "compare", *runs, "--out", out)
    found = json.loads(out.read_text())
    own = json.loads((runs[0] / "summary.json").read_text())["tasks"][TASK]
    assert list(found["arms"]) == ["one", "two"]
    for arm in found["arms"].values():
        assert arm["tasks"][TASK]["ppo"] == own["ppo"]
    assert found["arms"]["two"]["against_first"]["average"]["ppo"]["value"] == 0
    assert "two is not clearly different from one" in text.replace("\n", " ")


def test_a_run_that_fails_more_often_is_so_much_worse(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for run, success in zip(runs, (1, 0), strict=True):
        path = run / "evaluation" / f"{TASK}-seed0.json"
        values = json.loads(path.read_text())
        for policy in ("bc", "ppo"):
            values[policy]["success"] = [success] * values[policy]["n"]
        path.unlink()
        write_json(path, values)
    out = runs[0].parent / "compared.json"
    said(capsys, "compare", *runs, "--out", out)
    against = json.loads(out.read_text())["arms"]["two"]["against_first"]
    assert against["tasks"][TASK]["ppo"]["value"] == -1


def test_all_tables_come_as_markdown(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "| two |" in said(capsys, "compare", *runs, "--markdown")


@pytest.mark.parametrize(
    ("section", "values", "name"),
    [
        ("table", {"max_steps": 24}, r"table.max_steps 16, 24"),
        ("stress", {"tolerance": 0.0}, r"stress.tolerance 1.0, 0.0"),
        ("evaluation", {"first": 7}, r"evaluation.first 0, 7"),
    ],
)
def test_runs_that_were_not_tested_alike_are_refused_with_what_differs(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], section: str, values: dict[str, Any], name: str
) -> None:
    config = json.loads((runs[1] / "config.json").read_text())
    change(runs[1] / "config.json", **{section: config[section] | values})
    assert f"were not tested alike ({name})" in refused(capsys, "compare", *runs)


def test_what_cannot_be_compared_is_refused(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    one, two = runs
    assert "one run, which compares nothing" in refused(capsys, "compare", one)
    assert "a run is given twice" in refused(capsys, "compare", one, one)
    assert "no config.json" in refused(capsys, "compare", one, one.parent)
    change(two / "config.json", seeds=[1])
    assert "no task and seed in common" in refused(capsys, "compare", one, two)
    (two / "summary.json").unlink()
    assert "has no summary yet" in refused(capsys, "compare", one, two)


# worldaction figure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "head"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_every_figure_of_the_page_becomes_a_file_with_its_numbers(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], kind: str, head: bytes
) -> None:
    run, _ = runs
    out = run.parent / "figures"
    written = said(capsys, "figure", run, "--format", kind, "--out", out).split()
    assert [Path(path).read_bytes()[: len(head)] for path in written] == [head] * len(written)
    shown = {path.stem: path for path in (run / "curves").glob("*.csv")}
    assert shown.keys() == {Path(path).stem for path in written}
    assert all((out / path.name).read_bytes() == path.read_bytes() for path in shown.values())


def test_one_figure_can_be_asked_for_and_is_the_same_file_every_time(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = runs
    first = Path(said(capsys, "figure", run, "--only", "success").strip())
    assert first == run / "curves" / "success.pdf"
    before = first.read_bytes()
    said(capsys, "figure", run, "--only", "success")
    assert first.read_bytes() == before
    assert "did you mean 'success'" in refused(capsys, "figure", run, "--only", "sucess")
    assert "holds no run" in refused(capsys, "figure", run.parent)

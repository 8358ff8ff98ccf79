"""The whole study as a user runs it: what it leaves behind, what is refused, and what a second run does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_world import without_simulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_study import (
    ROOT,
    SETTINGS,
    Started,
    copied,
    evaluations,
    files,
    finished_run,
    forget,
    metrics,
    options,
    summary,
)

from agents.policy import Policy
from envs.episodes import SEEDS
from envs.playtable.benchmark import PlayTable
from experiments.calvin import main
from experiments.guard import guarded
from experiments.report.statistics import wilson
from experiments.report.summary import summarise
from experiments.stages import world_model
from experiments.study.run import Run
from experiments.study.settings import load_study
from worldaction.config import TableConfig
from worldaction.io.atomic import write_json
from worldaction.io.recorder import read_metrics
from worldaction.world_model import train

TASK = "artefacts/seed0/turn_on_led"


@pytest.fixture(scope="session")
def run() -> Path:
    """A finished run."""
    return finished_run()


def values(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text())


# What comes out -------------------------------------------------------------------------------------------------------


def test_the_folder_says_what_was_run_where_and_with_what(run: Path) -> None:
    assert load_study(run).world_model.steps == SETTINGS["world-model.steps"]
    env = values(run / "env.json")
    assert {"torch", "mujoco", "python"} <= env["versions"].keys()
    assert env["device"] == "cpu" or env["device"]
    assert "run folder run" in (run / "console.log").read_text()


def test_a_summary_that_is_written_again_by_later_code_names_the_commit_that_made_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(run, tmp_path / "run")
    made = values(run / "env.json")["commit"]
    monkeypatch.setattr("experiments.report.summary.commit", lambda: "later")
    summary = summarise(Run.open(tmp_path / "run"))
    assert (summary["commit"], summary["summarised_by"]) == (made, "later")
    monkeypatch.setattr("experiments.report.summary.commit", lambda: made)
    assert "summarised_by" not in summarise(Run.open(tmp_path / "run"))


def test_gradient_shares_are_recorded_all_through_the_training(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(run, tmp_path / "run")
    forget(tmp_path / "run", "seed0/world_model")
    monkeypatch.setattr(world_model, "LOG_EVERY", 5)
    monkeypatch.setattr(train, "SHARES_EVERY", 10)
    world_model.train_world_model(Run.open(tmp_path / "run"), 0)
    lines = [line for line in read_metrics(tmp_path / "run") if line["prefix"] == "seed0/world_model"]
    assert [line["step"] for line in lines if "gradient_share/kl" in line] == [1, 10, 20, 30, 40]


def test_every_stage_records_its_metrics_as_lines_csv_and_tensorboard(run: Path) -> None:
    lines = metrics(run)
    expected = {
        "seed0/world_model": {"loss/reconstruction", "loss/kl", "loss/inverse_dynamics", "gradient_norm"},
        "seed0/turn_on_led/success": set(),
        "seed0/turn_on_led/clone": {"loss"},
        "seed0/turn_on_led": {"imagined/success", "ppo/divergence"},
        "seed0/turn_on_led/real": {"success"},
    }
    for prefix, names in expected.items():
        recorded = [line for line in lines if line["prefix"] == prefix]
        assert recorded, prefix
        assert names <= set().union(*recorded), prefix
        assert names <= tags(run / "tensorboard" / prefix).keys()
        for name in names:
            assert f"{prefix},{recorded[-1]['step']}," in (run / "metrics.csv").read_text(), name
    assert [line["step"] for line in lines if line["prefix"] == "seed0/turn_on_led"] == [1, 2, 3]
    assert [line["step"] for line in lines if line["prefix"] == "seed0/turn_on_led/real"] == [0, 1, 2]


def tags(folder: Path) -> dict[str, list[float]]:
    """What TensorBoard shows of a folder."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_films_of_the_world_model_and_of_both_policies_are_mp4_with_a_picture_beside(run: Path) -> None:
    for name in ("open_loop-seed0-rgb_static", "turn_on_led-seed0"):
        assert (run / "videos" / f"{name}.mp4").read_bytes()[4:8] == b"ftyp"
        assert (run / "videos" / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_summary_holds_the_documented_keys_and_agrees_with_the_episodes(run: Path) -> None:
    found = values(run / "summary.json")
    assert found.keys() >= {"tasks", "average", "seeds", "settings", "renderer", "commit", "world_model", "seconds"}
    assert found["seeds"] == [0]
    assert found["renderer"] in ("egl", "osmesa", "rays")
    task, episodes = found["tasks"]["turn_on_led"], evaluations(run)["turn_on_led-seed0.json"]
    assert task["n"] == SETTINGS["evaluation.episodes"]
    for name in ("bc", "ppo"):
        successes = sum(episodes[name]["success"])
        assert task[name]["successes"] == successes == episodes[name]["successes"]
        assert task[name]["rate"] == successes / task["n"]
        np.testing.assert_allclose(task[name]["interval"], list(wilson(successes, task["n"])))
        assert 0 <= task["imagined"][name] <= 1
        assert episodes[name]["index"] == list(range(task["n"]))
    low, high = task["difference"]["interval"]
    assert low <= task["difference"]["value"] == task["ppo"]["rate"] - task["bc"]["rate"] <= high
    for name in ("bc", "ppo", "difference"):
        assert found["average"][name].keys() == {"value", "interval"}
    psnr = found["world_model"]["psnr"]["rgb_static"]
    assert len(psnr) == SETTINGS["evaluation.horizon"]
    assert all(0 < value < 60 for value in psnr)


@pytest.mark.parametrize("name", ["bc", "ppo"])
def test_a_policy_can_be_loaded_and_acts_in_the_table(run: Path, name: str) -> None:
    policy = Policy.from_pretrained(run / "policies" / f"turn_on_led-seed0-{name}")
    table = PlayTable(TableConfig(image_size=32, supersample=2, max_steps=16)).make("turn_on_led")
    observation, _ = table.reset(seed=SEEDS["evaluation"])
    action, state = policy.predict(observation)
    policy.reset(seed=policy.seed)
    again, _ = policy.predict(observation)
    table.close()
    assert action.shape == (7,)
    assert np.abs(action).max() <= 1
    np.testing.assert_array_equal(action, again)
    assert state is not None


def test_the_report_is_one_file_that_loads_nothing_from_elsewhere(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "turn on led" in page
    loaded = re.findall(r"""\b(?:src|poster|srcset)\s*=\s*["']?([^"'\s>]{1,40})""", page)
    assert len(loaded) >= 8
    assert all(address.startswith("data:") for address in loaded)
    assert not re.search(r"<(?:link|iframe|object|embed|base)\b|@import|url\((?!\s*[\"']?data:)", page)
    # links lead to files of the run
    links = [address for address in re.findall(r"""href="([^"]*)""", page) if not address.startswith("#")]
    assert all((run / address).is_file() for address in links)


# A second run ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_does_nothing_when_run_again(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "run"
    copied(run, copy)
    monkeypatch.chdir(tmp_path)
    before = stamps(copy)
    seconds = values(copy / "env.json")["started"]
    for arguments in (options(run_dir="run", workers=1), ["--resume", "run"]):
        assert guarded(lambda arguments=arguments: main(arguments)) == 0  # type: ignore[misc]
        assert stamps(copy) == before
        assert summary(copy) == summary(run)
        assert values(copy / "env.json")["started"] == seconds
        assert files(copy) == files(run)


def stamps(run: Path) -> dict[str, int]:
    """When the files were written that only a stage writes."""
    parts = ("cache", "evaluation", "policies", "videos", "tensorboard")
    return {str(p): p.stat().st_mtime_ns for part in parts for p in (run / part).rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"update.lr": 0.5}, "update.lr 0.0003, not 0.5"),
        ({"world-model.steps": 41}, "world_model.steps 40, not 41"),
        ({"seeds": 3}, "seeds [0], not [3]"),
        ({"losses": "kl"}, "losses ["),
    ],
)
def test_a_folder_with_a_run_of_other_settings_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], setting: str
) -> None:
    before = files(run)
    assert guarded(lambda: main(options(run_dir=run, workers=1, **change))) == 2
    said = capsys.readouterr().err
    assert setting in said
    assert "--run-dir" in said
    assert said.count("\n") == 1
    assert files(run) == before


# Losses and recorded play ---------------------------------------------------------------------------------------------


def short(**changes: Any) -> list[str]:
    """A study whose world model hardly trains, for tests of what comes before and after."""
    return options(
        world_model__steps=6, update__iterations=1, update__evaluate_every=0, evaluation__videos=0, **changes
    )


@pytest.fixture
def folder_with_my_losses(tmp_path: Path) -> Path:
    """A working directory with the README's own loss in my_losses.py."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (text,) = [block for block in blocks if "class Mine(Loss)" in block]
    (tmp_path / "my_losses.py").write_text(text)
    return tmp_path


def test_workers_find_the_loss_of_the_readme_in_the_working_directory(folder_with_my_losses: Path) -> None:
    arguments = short(run_dir="run", workers=2)
    arguments += ["--seeds", "0", "1", "--losses", "reconstruction", "kl", "my_losses:Mine=0.1"]
    run = folder_with_my_losses / "run"
    process = Started(arguments, cwd=folder_with_my_losses)
    try:
        process.wait_for(lambda: all((run / f"artefacts/seed{s}/world_model/manifest.json").exists() for s in (0, 1)))
    finally:
        process.clean_up()
    for seed in (0, 1):
        assert tags(run / "tensorboard" / f"seed{seed}" / "world_model").keys() >= {"loss/mine", "gradient_share/mine"}


@pytest.mark.parametrize("mine", [(), ("my_losses:Mine=0.1",)], ids=["fewer", "and the README's own"])
def test_a_study_runs_to_its_end_with_other_losses(
    folder_with_my_losses: Path, monkeypatch: pytest.MonkeyPatch, mine: tuple[str, ...]
) -> None:
    monkeypatch.chdir(folder_with_my_losses)
    arguments = [*short(run_dir="run", workers=1), "--losses", "reconstruction", "kl", *mine]
    assert guarded(lambda: main(arguments)) == 0
    run = folder_with_my_losses / "run"
    # what the preset says of the losses that stay is kept
    assert load_study(run).losses == ("reconstruction=1,proprio=50,share=0.25", "kl=0.3,free_nats=1", *mine)
    shown = tags(run / "tensorboard/seed0/world_model")
    names = {tag.removeprefix("loss/") for tag in shown if tag.startswith("loss/")}
    # and that of the pose, which is no loss of the list
    assert names == {"reconstruction", "kl", "pose", *(["mine"] if mine else [])}
    assert {tag.removeprefix("gradient_share/") for tag in shown if tag.startswith("gradient_share/")} == names
    assert all(shown[f"loss/{name}"][0] > 0 for name in names)
    assert values(run / "summary.json")["tasks"]["turn_on_led"]["n"] == SETTINGS["evaluation.episodes"]


@pytest.mark.parametrize(("sample", "tasks"), [("calvin_sample_64", ["open_drawer"]), ("calvin_sample_native", None)])
def test_recordings_of_calvin_teach_a_world_model_and_tasks_that_succeed_in_both_splits(
    sample: str, tasks: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    arguments = without_simulator(short(run_dir=tmp_path / "run", workers=1, play=f"tests/data/{sample}"))
    assert guarded(lambda: main(arguments)) == 0
    found = values(tmp_path / "run" / "summary.json")
    assert found["renderer"] == "calvin"
    assert found["play"]["source"] == "calvin"
    assert found["play"]["frames"] > 0
    psnr = found["world_model"]["psnr"]["rgb_static"]
    assert len(psnr) == SETTINGS["evaluation.horizon"]
    assert all(0 < value < 60 for value in psnr)
    assert (list(found["tasks"]) if tasks else found.get("tasks")) == tasks
    assert (tmp_path / "run" / "report.html").exists()


# Damaged runs ---------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    """What a full disk leaves of a file."""
    path.write_bytes(path.read_bytes()[:1000])


def other_settings(run: Path) -> None:
    """Artefacts of a run under the settings of another one."""
    config = values(run / "config.json")
    config["world_model"]["lr"] = 0.5
    write_json(run / "config.json", config)


@pytest.mark.parametrize(
    ("damage", "value", "remedy"),
    [
        (lambda run: truncate(run / "config.json"), "config.json is damaged", "begin another run"),
        (other_settings, "world_model.lr = 0.002, not 0.5", "delete it or use another run"),
    ],
    ids=["settings", "settings of another run"],
)
def test_a_run_whose_settings_are_damaged_is_refused_by_the_file_that_is_damaged(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    value: str,
    remedy: str,
) -> None:
    copy = tmp_path / "run"
    copied(run, copy)
    forget(copy, "seed0/turn_on_led/evaluation")
    damage(copy)
    capsys.readouterr()
    assert guarded(lambda: main(["--resume", str(copy)])) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert value in last
    assert remedy in last

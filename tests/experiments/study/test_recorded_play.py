"""Recorded sets of any format: some of it held out, seen through what it has, and never tested on what it taught."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_study import options, study, summary

from envs.benchmark import CRASHES, retry_on_crash
from envs.calvin.client import SimulatorCrashed
from experiments.stages.task_run import TaskRun
from experiments.study.checks import measured
from experiments.study.resolve import _check_demonstrated, open_recorded
from worldaction.errors import UserError
from worldaction.extension import load
from worldaction.io.fingerprint import code_of
from worldaction.play.convert import convert
from worldaction.play.held_out import HeldOut
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore, Segment, StoreWriter
from worldaction.spec import CALVIN, Layout

NUMBERS = Layout((), robot=3, scene=0, action=2, null_action=(0.0, 0.0))


def record(path: Path, episodes: int, *, validation: int = 0, frames: int = 20) -> Path:
    """A set of demonstrations of a point that moves as it is told, without pictures."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, image_size=1, source="x", renderer="none", layout=NUMBERS) as writer:
        for number in range(episodes):
            action = rng.uniform(-1, 1, (frames, 2))
            robot = np.concatenate([action.cumsum(0), rng.normal(size=(frames, 1))], -1)
            split: Any = "validation" if number >= episodes - validation else "training"
            writer.add_episode({"robot_obs": robot, "action": action}, kind="demo", split=split)
    return path


@pytest.mark.parametrize("absolute", [True, False])
def test_actions_that_a_robot_goes_to_are_absolute_whether_or_not_the_set_says_so(
    tmp_path: Path, absolute: bool
) -> None:
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "s", image_size=1, source="x", renderer="none", layout=NUMBERS) as writer:
        for _ in range(4):
            aims = np.clip(np.cumsum(rng.normal(0, 0.1, (60, 2)), 0), -1, 1)
            robot = np.concatenate([[np.zeros(2)], aims])
            action = aims if absolute else np.diff(robot, axis=0) / 0.5
            seen = np.concatenate([robot[:-1], rng.normal(size=(60, 1))], -1)
            writer.add_episode({"robot_obs": seen, "action": action.clip(-1, 1)}, kind="demo")
    source = open_recorded(str(tmp_path / "s"))
    assert source.layout.absolute is absolute
    # and the store that is made of it says so
    assert convert(source, tmp_path / "t", image_size=1).meta.layout == source.layout


@pytest.mark.parametrize(("episodes", "apart"), [(1, [0]), (4, [3]), (10, [9]), (23, [9, 19])])
def test_every_tenth_episode_is_held_out_where_none_is_and_the_last_at_least(
    tmp_path: Path, episodes: int, apart: list[int]
) -> None:
    source = HeldOut(open_source(record(tmp_path / "s", episodes)))
    assert [n for n, one in enumerate(source.episodes) if one.split == "validation"] == apart
    first = next(source.blocks(0, image_size=0))
    assert first["robot_obs"].shape == (20, 3)


def test_a_set_that_holds_some_out_itself_stays_as_it_is(tmp_path: Path) -> None:
    source = open_source(record(tmp_path / "s", 12, validation=2))
    assert HeldOut(source).episodes == source.episodes


def test_a_world_model_is_trained_and_measured_on_a_set_without_pictures_play_or_validation(tmp_path: Path) -> None:
    record(tmp_path / "set", 12)
    result = study(*options(play=tmp_path / "set", run_dir="run", workers=1), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "is seen through no camera" in result.stderr + result.stdout
    found = summary(tmp_path / "run")
    assert "tasks" not in found
    assert found["world_model"]["per_seed"][0]["probes"]["seen"]["r2"] <= 1
    store = PlayStore.open(tmp_path / "run/artefacts/play/store")
    assert [e.split for e in store.episodes].count("validation") == 1
    assert (tmp_path / "run/report.html").exists()


def test_episodes_that_are_too_short_are_refused_before_they_are_read(tmp_path: Path) -> None:
    record(tmp_path / "set", 12, frames=7)
    result = study(*options(play=tmp_path / "set", run_dir="run", workers=1), cwd=tmp_path)
    assert result.returncode == 2
    assert "--world-model.length 8 needs episodes of 8 frames, the longest for training has 7" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_set_of_another_robot_is_refused_in_calvin_s_simulator(tmp_path: Path) -> None:
    record(tmp_path / "set", 12)
    asked = options(play=tmp_path / "set", env="worldaction/Calvin-v0", run_dir="run", workers=1)
    result = study(*asked, cwd=tmp_path)
    assert result.returncode == 2
    assert "has 3 numbers of robot a frame, worldaction/Calvin-v0 has 15; leave out --env" in result.stderr


def test_what_is_measured_is_play_where_there_is_any() -> None:
    one, other = SimpleNamespace(kind="play", split="training"), SimpleNamespace(kind="demo", split="training")
    assert measured([one, other], "training") == [one]
    assert measured([other], "training") == [other]
    assert measured([one, other], "validation") == []


@pytest.mark.parametrize(("split", "kept"), [("training", [(2, 6)]), ("validation", [(11, 15)])])
def test_nothing_is_learned_from_windows_for_validation_in_which_evaluations_begin(
    tmp_path: Path, split: Any, kept: list[tuple[int, int]]
) -> None:
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "s", image_size=1, source="x", renderer="none", layout=CALVIN) as writer:
        for task, of in (("a", "training"), ("a", "validation"), ("b", "training")):
            arrays = {key: rng.uniform(-1, 1, (9, size)) for key, size in CALVIN.vectors.items()}
            chosen: Any = of
            writer.add_episode(arrays, kind="play", split=chosen, segments=[Segment(task, 2, 6, success=True)])
    here: Any = SimpleNamespace(task="a", store=PlayStore.open(tmp_path / "s"), told_by_recording=False)
    assert TaskRun.attempts(here, split) == kept


def test_attempts_that_nobody_knows_the_end_of_are_no_demonstrations(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", image_size=1, source="x", renderer="none", layout=CALVIN) as writer:
        for success in (None, False):
            arrays = {key: np.zeros((9, size)) for key, size in CALVIN.vectors.items()}
            writer.add_episode(arrays, kind="play", segments=[Segment("a", 2, 6, success=success)])
    study: Any = SimpleNamespace(play=tmp_path / "s", env="here", tasks=["a"])
    benchmark: Any = SimpleNamespace(layout=CALVIN, simulates=True, labels_scenes=True)
    with pytest.raises(UserError, match="does not say of 1 attempts at a whether they succeeded; if they did, convert"):
        _check_demonstrated(study, open_source(tmp_path / "s"), benchmark)
    _check_demonstrated(study, open_source(tmp_path / "s", unknown="success"), benchmark)


def test_work_with_simulators_is_begun_again_a_few_times() -> None:
    tries: list[int] = []

    def work(crashes: int) -> str:
        tries.append(1)
        if len(tries) <= crashes:
            raise SimulatorCrashed("gone")
        return "done"

    assert retry_on_crash(lambda: work(CRASHES - 1)) == "done"
    tries.clear()
    with pytest.raises(SimulatorCrashed):
        retry_on_crash(lambda: work(CRASHES))
    assert len(tries) == CRASHES


def test_what_users_bring_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brought_along.py").write_text("class Expert: pass\n")
    monkeypatch.chdir(tmp_path)
    assert load("brought_along:Expert", "--gym.expert").__name__ == "Expert"
    for target, message in (
        ("brought_along", "must be module:name"),
        ("brought_along:Nobody", "there is no 'Nobody' in brought_along"),
        ("brought_alone:Expert", "module 'brought_alone' cannot be imported"),
    ):
        with pytest.raises(UserError, match=f"--gym.expert .*{message}"):
            load(target, "--gym.expert")


def test_code_is_told_apart_by_its_file_and_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "brought_code.py").write_text("raise SystemExit\n")
    before = code_of("brought_code")
    assert before == code_of("brought_code")
    (tmp_path / "brought_code.py").write_text("raise SystemExit(1)\n")
    assert None not in (before, code_of("brought_code"))
    assert code_of("brought_code") != before
    # built in, of a package that is not here, and a folder
    (tmp_path / "folder").mkdir()
    assert {code_of("sys"), code_of("nowhere.module"), code_of("folder")} == {None}
    (tmp_path / "brought_code.py").unlink()
    (tmp_path / "brought_code.py").symlink_to(tmp_path / "folder/gone.py")
    assert code_of("brought_code") is None

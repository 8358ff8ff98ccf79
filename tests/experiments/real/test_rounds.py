"""`--real.episodes`: policies are recorded, what learned them goes on, and BC is given the same successes."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_study import Started, copied, evaluations, finished_run, options, study, summary, weights

from envs.benchmark import recorded_start
from experiments.real.starts import round_numbers
from experiments.report.results import real_table
from experiments.stages.demonstrations import cloned, demonstrated
from experiments.stages.task_run import TaskRun
from experiments.study.options import parse_study
from experiments.study.run import Run, settings_of
from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json
from worldaction.play.store import PlayStore
from worldaction.spec import ACTION

TASK = "turn_on_led"


def asked(**changes: object) -> list[str]:
    """The tiny study, which finds in the cache what it comes to without real episodes."""
    return options(workers=1, cache="base", real__episodes=2, **changes)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("rounds")
    copied(finished_run(), folder / "base")
    result = study(*asked(run_dir="run"), cwd=folder)
    assert result.returncode == 0, result.stderr
    (folder / "said.txt").write_text(result.stdout + result.stderr)
    return folder


def test_without_real_episodes_nothing_is_another_one(world: Path) -> None:
    run, plain = Run.open(world / "run"), Run.open(world / "base")
    before = {place: artefact.digest for place, artefact in plain.artefacts().items()}
    after = {place: artefact.digest for place, artefact in run.artefacts().items()}
    assert {place: after[place] for place in before} == before
    assert {place for place in after if place not in before} == {
        *(f"real1/seed0/{name}" for name in ("play", "world_model")),
        *(f"real1/seed0/{TASK}/{s}" for s in ("recorded", "success", "clone", "sampler", "ppo", "evaluation")),
    }
    assert set(before) <= {*summary(world / "run")["reused"]}
    assert settings_of(plain.study) == settings_of(replace(run.study, real=plain.study.real))
    assert settings_of(plain.study) != settings_of(run.study)


def test_recorded_episodes_stand_behind_the_play_and_begin_where_nothing_else_does(world: Path) -> None:
    (side,) = Run.open(world / "run").rounds()
    recorded, play = PlayStore.open(side.recorded(0, TASK).path / "store"), PlayStore.open(side.play(0).path / "store")
    assert recorded.meta.config["starts"] == [recorded_start(n).seed for n in round_numbers(1, 2)]
    assert [(e.kind, e.split) for e in recorded.episodes] == [("near_miss", "training")] * 2
    old = PlayStore.open(world / "base/artefacts/play/store")
    assert len(play) == len(old) + len(recorded)
    task_run = TaskRun(side, 0, TASK)
    assert task_run.recorded_from == len(old)
    assert play.frames[ACTION][len(old) :].equal(recorded.frames[ACTION][:])
    # the classifier learns from them, and is measured on what was held out before
    new = [(s.start + len(old), s.stop + len(old)) for s in recorded.segments]
    known = TaskRun(Run.open(world / "run"), 0, TASK)
    assert task_run.attempts("training") == known.attempts("training") + new
    assert task_run.attempts("validation") == known.attempts("validation")


def test_bc_is_given_the_same_successes_and_no_failures(world: Path) -> None:
    (side,) = Run.open(world / "run").rounds()
    task_run = TaskRun(side, 0, TASK)
    shown = demonstrated(task_run)
    assert cloned(TaskRun(Run.open(world / "run"), 0, TASK)) == shown
    first, second = (s for s in task_run.store.segments if s.start >= task_run.recorded_from)
    others = [s for s in task_run.store.segments if s.start < task_run.recorded_from]
    task_run.store.segments = [*others, replace(first, success=True), replace(second, success=False)]
    assert cloned(task_run) == [*shown, (first.start, first.stop)]
    # how many demonstrations are cloned is said of demonstrations
    clone = replace(task_run.study.clone, demos=1)
    task_run.study = replace(task_run.study, clone=clone)
    assert cloned(task_run) == [shown[0], (first.start, first.stop)]


def test_every_number_stands_beside_the_real_episodes_and_steps_behind_it(world: Path) -> None:
    found = summary(world / "run")
    (told,) = found["tasks"][TASK]["real"]
    recorded = PlayStore.open(Run.open(world / "run").rounds()[0].recorded(0, TASK).path / "store")
    assert (told["episodes"], told["steps"], told["seeds"]) == (2, len(recorded), [0])
    evaluation = read_json(world / "run/evaluation/real1" / f"{TASK}-seed0.json")
    own = read_json(world / "run/evaluation" / f"{TASK}-seed0.json")
    for name in ("bc", "ppo"):
        assert told[name]["successes"] == evaluation[name]["successes"]
        assert evaluation[name]["index"] == own[name]["index"]
    table = real_table(found)
    assert [row[1:3] for row in table.rows] == [("0", "0"), ("2", str(len(recorded)))]
    page = (world / "run/report.html").read_text()
    assert "After real episodes" in page
    assert "After real episodes" in (world / "said.txt").read_text()
    assert "After real episodes" not in (world / "base/report.html").read_text()
    assert (world / "run/policies" / f"{TASK}-seed0-ppo-real1/config.json").exists()
    assert (world / "run/policies" / f"{TASK}-seed0-ppo/config.json").exists()


def test_killed_and_resumed_it_comes_to_the_same_numbers(world: Path, tmp_path: Path) -> None:
    copied(finished_run(), tmp_path / "base")
    models = len(list((tmp_path / "base").glob("cache/world_model/*")))
    started = Started(asked(run_dir="run"), cwd=tmp_path)
    try:
        here = "base/cache/world_model/*/checkpoint.safetensors"
        started.wait_for(lambda: list(tmp_path.glob(here)))
        started.signal(signal.SIGKILL)
        started.end()
    finally:
        started.clean_up()
    assert len(list((tmp_path / "base").glob("cache/world_model/*"))) == models + 1
    again = study("--resume", "run", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert summary(tmp_path / "run") == summary(world / "run")
    assert evaluations(tmp_path / "run") == evaluations(world / "run")
    ours, theirs = (dict(weights(folder / "base/cache")) for folder in (tmp_path, world))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_damaged_play_of_a_round_is_made_again(world: Path, tmp_path: Path) -> None:
    (side,) = Run.open(copied(world / "run", tmp_path / "run")).rounds()
    # in the cache, which both runs have
    path = side.play(0).path / "store/frames/action.memmap"
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    again = study("--resume", "run", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "action.memmap has changed since it was written" in again.stderr
    assert path.read_bytes() == whole
    assert summary(tmp_path / "run") == summary(world / "run")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("debug --real.episodes 2 --update.jury 1", "jurors have recorded no episodes; leave out --update.jury"),
        ("debug --real.episodes 1001", "--real.episodes 1001: give 1000 at most"),
        ("debug --real.episodes 2 --real.rounds 3", "--real.rounds 3: give 1 or 2"),
        ("debug --real.share 0", "--real.share 0.0: give a number above 0, up to 1"),
        ("debug --real.episodes 2 --play tests/data/calvin_sample_64", "nothing here can record them; record episodes"),
    ],
)
def test_what_cannot_be_is_refused(arguments: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(UserError, match=said):
        parse_study(arguments.split())

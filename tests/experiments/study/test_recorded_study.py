"""A study of recorded data alone: no simulator is asked, and world models of the held-out episodes judge."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reach_env import HIGH, LOW
from recorded_world import TASKS, record, record_reach, without_simulator
from tiny_study import ROOT, options, study, summary

from agents.policy import Policy
from envs.benchmark import env_of
from experiments.report.recorded.jurors import FEW
from experiments.stages.task_run import TaskRun
from experiments.study.options import parse_study
from experiments.study.run import Run
from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json
from worldaction.play.attempts import task_name

RED, BLUE = map(task_name, TASKS)
SAID = [n % 6 < 4 for n in range(24)]


def asked(path: Path, **changes: object) -> list[str]:
    """The tiny study of a recorded set."""
    return without_simulator(options(play=path, run_dir="run", workers=1, **changes))


def shown(page: str) -> str:
    """What is to be read on a page, but for settings and versions."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page.partition("What made it")[0], flags=re.DOTALL)
    return re.sub(r"<[^>]*>", " ", text)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study."""
    folder = tmp_path_factory.mktemp("recorded")
    result = study(*asked(record(folder / "set", 24, outcomes=SAID)), cwd=folder)
    assert result.returncode == 0, result.stderr
    (folder / "said.txt").write_text(result.stderr + result.stdout)
    return folder


def test_policies_are_learned_from_the_recording_and_judged_by_models_of_what_was_held_out(learned: Path) -> None:
    found = summary(learned / "run")
    assert found["env"] == "recorded"
    assert list(found["tasks"]) == [RED, BLUE]
    assert found["jurors"]["models"] == 2
    run = Run.open(learned / "run")
    store = TaskRun(run, 0, RED).store
    assert found["jurors"]["held_out"] == sum(e.split == "validation" for e in store.episodes)
    for task in (RED, BLUE):
        starts = TaskRun(run, 0, task).attempts("validation")[: run.study.evaluation.dreams]
        assert found["tasks"][task]["starts"] == len(starts)
        assert [one["juror"] for one in found["tasks"][task]["per_juror"]] == [0, 1]
        told = found["jurors"]["tasks"][task]
        # jurors are tried on what they have not learned from, which is what the policies' models have
        known = [s for s in store.segments if s.task == task and store.episode_of(s.start).split == "training"]
        assert told["succeeded"]["attempts"] == sum(s.success is True for s in known)
        assert told["failed"]["attempts"] == sum(s.success is False for s in known)
    for seed, side in run.jurors().items():
        held = TaskRun(side, seed, RED)
        assert held.attempts("training") == TaskRun(run, 0, RED).attempts("validation")
        assert held.attempts("validation") == TaskRun(run, 0, RED).attempts("training")
        ours, theirs = TaskRun(run, 0, RED).model, held.model
        assert any(not torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_an_episode_of_the_evaluation_is_a_replay_by_one_juror(learned: Path) -> None:
    found = read_json(learned / "run/evaluation" / f"{RED}-seed0.json")
    run = Run.open(learned / "run")
    starts = TaskRun(run, 0, RED).attempts("validation")[: run.study.evaluation.dreams]
    for policy in ("bc", "ppo"):
        assert set(found[policy]["index"]) == set(range(len(starts)))
        assert found[policy]["n"] % (2 * len(starts)) == 0
        assert all(1 <= steps <= found["limit"] for steps in found[policy]["steps"])
        assert found[policy]["juror"] == sorted(found[policy]["juror"])
        assert set(found[policy]["juror"]) == {0, 1}
    assert found["action_error"]["bc"] > 0
    assert set(found["action_error"]) == {"bc", "ppo"}


def test_the_time_limit_leaves_the_longest_success_a_quarter_more(learned: Path) -> None:
    # 20 frames, in decisions of 4 actions
    assert read_json(learned / "run/config.json")["table"]["max_steps"] == 28


def test_the_page_says_first_that_nobody_was_asked_and_what_is_not_known(learned: Path) -> None:
    page = (learned / "run/report.html").read_text()
    assert "No robot and no simulator was asked." in page
    assert "With one hour on the robot, test reach the" in page
    assert "in the simulator" not in page
    assert "Juror by juror" in page
    assert f"Fewer than {FEW} first frames a task: reach the red block (" in page
    assert not re.search(r"\b(skill|real)\b", shown(page))
    # a terminal breaks lines
    assert "2 world models that learned from the" in " ".join((learned / "said.txt").read_text().split())


def test_a_policy_of_a_recording_knows_of_no_environment(learned: Path) -> None:
    policy = Policy.from_pretrained(learned / "run/policies" / f"{RED}-seed0-ppo")
    with pytest.raises(UserError, match="does not say where it was evaluated"):
        env_of(policy)


def test_a_resumed_study_makes_nothing_anew(learned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (learned / "run/cache").rglob("manifest.json")}
    # play, model and fidelity; five stages of two tasks; two jurors, who know two tasks each
    assert len(before) == 3 + 10 + 2 + 4
    (learned / "set").rename(learned / "elsewhere")
    again = study("--resume", "run", cwd=learned)
    (learned / "elsewhere").rename(learned / "set")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (learned / "run/cache").rglob("manifest.json")} == before


def test_all_arms_have_the_jurors_of_the_study(learned: Path, tmp_path: Path) -> None:
    arms = ["base:", "wide:world_model.hidden=24,success.threshold=0.6,table.image_size=2"]
    record(tmp_path / "set", 24, outcomes=SAID)
    made = study(*asked(tmp_path / "set"), "--tasks", TASKS[0], "--arms", *arms, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    found, run = summary(tmp_path / "run"), Run.open(tmp_path / "run")
    base, wide = (Run.open(arm.folder) for arm in run.arms().values())
    for seed in (0, 1):
        of_each = [arm.jurors()[seed] for arm in (base, wide)]
        assert len({one.world_model(seed).digest for one in of_each}) == 1
        assert len({one.task(seed, RED, "success").digest for one in of_each}) == 1
        # the study's own settings, which are those of its first arm
        assert of_each[1].world_model(seed).digest == replace(base, held_out=True).world_model(seed).digest
    assert base.world_model(0).digest != wide.world_model(0).digest
    models = list((tmp_path / "run/cache/world_model").iterdir())
    assert len(models) == 2 + 2
    # of a run without arms they are that run itself
    alone = Run.open(learned / "run")
    assert alone.jurors()[0] == replace(alone, held_out=True)
    # both arms begin at the same first frames, and the page speaks of jurors
    starts = [arm["tasks"][RED]["starts"] for arm in found["arms"].values()]
    assert starts[0] == starts[1] > 0
    assert found["jurors"] == summary(base.folder)["jurors"] | {"tasks": found["jurors"]["tasks"]}
    words = shown((tmp_path / "run/report.html").read_text())
    assert "No robot and no simulator was asked." in words
    assert not re.search(r"\b(skill|real|in the simulator)\b", words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/cache").rglob("manifest.json")}
    again = study("--resume", "run", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run/cache").rglob("manifest.json")} == before


# What cannot work -----------------------------------------------------------------------------------------------------


def test_settings_that_make_no_jurors_are_refused_though_all_arms_change_them(tmp_path: Path) -> None:
    path = record(tmp_path / "set", 12)
    arms = ["a:world_model.length=8", "b:world_model.length=9"]
    refused = study(*asked(path), "--world-model.length", "40", "--arms", *arms, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--world-model.length 40" in refused.stderr
    for one in ("recorded.success=ends", "success.held-out=0.4", "evaluation.dreams=3"):
        refused = study(*asked(path), "--arms", "base:", f"other:{one}", cwd=tmp_path)
        assert refused.returncode == 2
        assert "by which the policies of a recording are judged" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_tasks_are_named_as_people_say_them(tmp_path: Path) -> None:
    path = record(tmp_path / "set", 12)
    shown = study(*asked(path), "--tasks", TASKS[1], "--print-config", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert f'"{BLUE}"' in shown.stdout
    assert RED not in shown.stdout
    refused = study(*asked(path), "--tasks", "reach the green block", cwd=tmp_path)
    assert refused.returncode == 2
    assert "holds out no attempt at reach_the_green_block that succeeds" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_set_that_does_not_say_what_succeeded_is_refused_until_somebody_does(tmp_path: Path) -> None:
    path = record(tmp_path / "set", 12, outcomes=[None] * 12)
    refused = study(*asked(path), cwd=tmp_path)
    assert refused.returncode == 2
    assert "add --recorded.success ends" in refused.stderr
    assert not (tmp_path / "run").exists()
    shown = study(*asked(path), "--recorded.success", "ends", "--print-config", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


def test_other_labels_are_another_study(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text('{"0": true}')
    path = record(tmp_path / "set", 12, outcomes=[None] * 12)
    shown = study(*asked(path), "--recorded.success", labels, "--print-config", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


def test_labels_that_only_arms_name_count_by_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = tmp_path / "labels.json"
    record(tmp_path / "set", 24, outcomes=SAID)
    arms = [f"{name}:recorded.success=labels.json,update.bc={bc}" for name, bc in (("a", 0), ("b", 1))]
    digests = []
    for name, number in (("one", "5"), ("other", "11")):
        labels.write_text(json.dumps({str(n): said for n, said in enumerate(SAID)} | {number: True}))
        begun = parse_study([*asked(tmp_path / "set"), "--arms", *arms])[0]
        run = Run.create(replace(begun, run_dir=name))
        arm = next(iter(run.arms().values()))
        digests.append(arm.jurors()[0].play().digest)
    assert digests[0] != digests[1]
    with pytest.raises(UserError, match=r"--recorded.success labels.json has changed since the run in one began"):
        Run.create(replace(begun, run_dir="one"))


def test_a_recorded_environment_needs_a_recording(tmp_path: Path) -> None:
    refused = study(*options(run_dir="run", workers=1, env="recorded"), cwd=tmp_path)
    assert refused.returncode == 2
    assert "--env recorded is for recorded data; add --play" in refused.stderr


# Demonstrations of one's own, in an environment of one's own ----------------------------------------------------------


def test_recorded_demonstrations_are_learned_from_and_evaluated_in_the_environment_that_they_are_of(
    tmp_path: Path,
) -> None:
    pytest.importorskip("h5py")
    record_reach(tmp_path / "set", 24)
    shutil.copy(ROOT / "tests/support/reach_env.py", tmp_path)
    where = options(play=tmp_path / "set", env="reach_env:Reach-v0", run_dir="run", workers=1)
    result = study(*where, "--gym.camera", "none", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = summary(tmp_path / "run")
    assert list(found["tasks"]) == ["Reach_v0"]
    assert "jurors" not in found
    # actions are brought to [-1, 1] by the environment's range, not by what happens to be recorded
    store = TaskRun(Run.open(tmp_path / "run"), 0, "Reach_v0").store
    scale = store.meta.config["action_scale"]
    assert (scale["low"], scale["high"]) == (LOW.tolist(), HIGH.tolist())
    outcomes = {segment.success for segment in store.segments}
    assert outcomes == {True, False}

"""`--play OLD NEW --from RUN` goes on training what a run has trained, on both, and says so."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded_world import TASKS, record, without_simulator
from tiny_study import Started, assert_same_run, copied, options, place, study, summary

from agents.policy import Policy
from agents.served_episodes import ServedEpisodes
from experiments.real.go_on import check_trained
from experiments.stages.play import make_play, open_play
from experiments.stages.task_run import TaskRun
from experiments.study.options import parse_study
from experiments.study.resolve import seen_through, source_of
from experiments.study.run import Run
from worldaction.config import to_dict
from worldaction.errors import UserError
from worldaction.fit import linear_rise
from worldaction.io.atomic import load_tensors, write_json
from worldaction.play.attempts import Attempts, task_name
from worldaction.play.convert import convert
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore
from worldaction.world_model.train import ModelStep

RED = task_name(TASKS[0])
SAID = [n % 6 < 4 for n in range(24)]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a set, a new one, and a run that has learned from the first."""
    folder = tmp_path_factory.mktemp("go_on")
    old = record(folder / "old", 24, outcomes=SAID)
    record(folder / "new", 9, outcomes=[n % 3 < 2 for n in range(9)], frames=16)
    asked = options(play=old, run_dir="first", workers=1, tasks=RED, recorded__jurors=1)
    result = study(*without_simulator(asked), cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def world(first: Path) -> Path:
    """The same folder with a run that went on."""
    result = study(*going_on(first, "second"), cwd=first)
    assert result.returncode == 0, result.stderr
    return first


def going_on(world: Path, run: str) -> list[str]:
    return ["--play", str(world / "old"), str(world / "new"), "--from", str(world / "first"), "--run-dir", run]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--play new --from first", "give --play .*old NEW"),
        ("--play old --from first", "give --play .*old NEW"),
        ("--play old new ./new --from first", "--play old new ./new names a set twice; name each once"),
        ("debug --play old new --from first", "the preset debug cannot be given with it"),
        ("--play old new --from first --seeds 0 5", "--seeds: the run of --from has trained 0, not 5"),
        ("--play old new --from first --tasks red", "--tasks: the run of --from has trained .*, not red"),
        ("--play old new --from first --losses reconstruction", "--losses .*goes on so; leave it out"),
        ("--play old new --from first --world-model.deter 32", "--world-model.deter 32: the run of --from has 64"),
        ("--play old new --from first --success.held-out 0.4", "--success.held-out 0.4: the run of --from has 0.2"),
        ("--play old new --from nowhere", "there is no run in nowhere"),
    ],
)
def test_what_would_not_fit_is_refused(world: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str) -> None:
    monkeypatch.chdir(world)
    with pytest.raises(UserError, match=said):
        parse_study(arguments.split())


def test_the_settings_are_those_of_the_first_run_and_what_it_held_out_stays_so(world: Path) -> None:
    first, second = Run.open(world / "first"), Run.open(world / "second")
    assert second.study.world_model == first.study.world_model
    assert second.study.tasks == first.study.tasks
    old, both, new = open_play(first), open_play(second), PlayStore.open(world / "new")
    assert [e.split for e in both.episodes[: len(old.episodes)]] == [e.split for e in old.episodes]
    assert len(both) == len(old) + len(new)
    # one of three successes of each task, none of one or two failures
    assert [e.split for e in both.episodes[len(old.episodes) :]].count("validation") == 2


def test_what_the_first_run_was_told_need_not_be_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "old", 24, outcomes=SAID)
    record(tmp_path / "new", 24, outcomes=SAID, frames=16)
    asked = "debug --play old --clone.demos 2 --stress.hidden-actions 0.5 --table.max-steps 48"
    first = parse_study(asked.split())[0]
    write_json(tmp_path / "first/config.json", to_dict(first))
    going_on = "--play old new --from first"
    with pytest.raises(UserError, match=r"--stress.hidden-actions 0.5: others would be hidden"):
        parse_study(going_on.split())
    second = parse_study([*going_on.split(), "--stress.hidden-actions", "0"])[0]
    ours, stress = to_dict(second), replace(first.stress, hidden_actions=0.0)
    new = {"more_play": ["new"], "from_run": str(tmp_path / "first")}
    assert ours == to_dict(replace(first, stress=stress)) | new
    assert second.clone.demos == 2
    more = f"--stress.hidden-actions 0 --clone.demos 3 --tasks {RED}"
    third = parse_study([*going_on.split(), *more.split()])[0]
    assert (third.clone.demos, third.tasks) == (3, (RED,))


def test_it_goes_on_in_fewer_steps_with_what_the_first_run_has_trained(world: Path) -> None:
    first, second = Run.open(world / "first"), Run.open(world / "second")
    steps = first.study.world_model.steps
    lines = (second.world_model(0).path / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line)["step"] for line in lines) <= round(0.25 * steps)
    # a quarter of the steps from nothing ends elsewhere than a quarter more
    weights = [load_tensors(run.world_model(0).path / "model.safetensors") for run in (first, second)]
    kept = [name for name in weights[0] if name.startswith("proprio_") or ".law" in name]
    assert kept
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in kept)
    moved = {name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])}
    assert moved
    near = [(weights[0][name] - weights[1][name]).abs().mean() / weights[0][name].abs().mean() for name in moved]
    assert min(near) < 0.2
    for run, seed in ((first, 0), (second, 0)):
        assert run.task(seed, RED, "clone").made_by.get("from") == (
            None if run is first else first.task(0, RED, "clone").digest
        )
    # jurors go on from jurors
    for seed, side in second.jurors().items():
        assert side.before is not None
        assert side.world_model(seed).made_by["from"] == first.jurors()[seed].world_model(seed).digest
    began = TaskRun(second, 0, RED).before
    assert began is not None
    assert began.run.folder == (world / "first").resolve()


def test_the_page_and_the_summary_say_from_which_run_and_with_how_much(world: Path) -> None:
    found = summary(world / "second")
    assert found["from"] == {"run": str((world / "first").resolve()), "episodes": 9, "steps": 9 * 16}
    assert "from" not in summary(world / "first")
    assert "9 new real episodes of 144 steps" in (world / "second/report.html").read_text()
    assert found["settings"] != summary(world / "first")["settings"]


def test_killed_and_resumed_it_comes_to_the_same_numbers(world: Path) -> None:
    run = world / "killed"
    started = Started(going_on(world, "killed"), cwd=world)
    try:
        started.wait_for(lambda: list(run.glob("cache/world_model/*/checkpoint.safetensors")))
        started.signal(signal.SIGKILL)
        started.end()
    finally:
        started.clean_up()
    again = study("--resume", "killed", cwd=world)
    assert again.returncode == 0, again.stderr
    assert_same_run(world / "second", run)


def test_a_model_that_sees_imagines_from_the_first_step_on() -> None:
    class Batches:
        def sample(self) -> torch.Tensor:
            return torch.zeros(1)

    model = torch.nn.Linear(1, 1)
    model.register_buffer("proprio_mean", torch.zeros(1))
    asked = {"steps": 8, "open_loop": 0.5, "bf16": False, "looks_every": 5}
    shares = {}
    for sees in (False, True):
        step = ModelStep(model, Batches(), sees=sees, **asked)  # type: ignore[arg-type]
        for number in range(8):
            step.draw(number)
            shares[sees, number] = step.open_loop
    assert [shares[True, n] for n in range(8)] == [0.5] * 8
    assert [shares[False, n] for n in range(8)] == [0.5 * linear_rise(n, steps=8) for n in range(8)]


def test_a_run_that_is_not_finished_is_named(first: Path, tmp_path: Path) -> None:
    half = copied(first / "first", tmp_path / "half")
    place(half, f"seed0/{RED}/clone").joinpath("manifest.json").unlink()
    arguments = ["--play", str(first / "old"), str(first / "new"), "--from", str(half), "--run-dir", "x"]
    refused = study(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    said = " ".join(refused.stderr.split())
    assert f"seed0/{RED}/clone is not finished or damaged; go on with that run first" in said
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("changed", "option"),
    [("old", "--play"), ("more", r"--play \(2\)"), ("labels.json", "--recorded.success"), ("judge.py", "judge")],
)
def test_what_the_first_run_has_read_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps({str(n): said for n, said in enumerate(SAID)}))
    (tmp_path / "judge.py").write_text("def done(source, number, segment):\n    return number % 6 < 4  # True\n")
    for name, frames in (("old", 20), ("more", 18), ("new", 16)):
        record(tmp_path / name, 24, outcomes=SAID, frames=frames)
    success = "judge:done" if changed == "judge.py" else "labels.json"
    asked = options(play="old", run_dir="first", tasks=RED, recorded__jurors=1, recorded__success=success)
    asked.insert(asked.index("old") + 1, "more")
    begun = parse_study(without_simulator(asked))[0]
    make_play(Run.create(seen_through(begun, source_of(begun).layout)), workers=1)
    going_on = parse_study(["--play", "old", "more", "new", "--from", "first"])[0]
    if (tmp_path / changed).is_dir():
        # it has grown
        shutil.rmtree(tmp_path / changed)
        record(tmp_path / changed, 26, outcomes=[*SAID, True, False])
    else:
        (tmp_path / changed).write_text((tmp_path / changed).read_text().replace("rue", "rue "))
    with pytest.raises(UserError, match=f"{option}.* has changed since the run in .*first began"):
        check_trained(Run(going_on, Path()))


def test_what_a_served_policy_has_recorded_fits_what_it_has_learned_from(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy.from_pretrained(first / "first/policies" / f"{RED}-seed0-ppo")
    seen = [{"robot_obs": np.full(2, n / 20, np.float32)} for n in range(12)]
    with ServedEpisodes(tmp_path / "tried", policy, name="mine") as kept:
        for success in (True, False, None, True):
            policy.reset()
            kept.keep(seen, [policy.select_action(frame) for frame in seen], success)
    asked = ["--play", str(first / "old"), str(tmp_path / "tried"), "--from", str(first / "first")]
    asking, _, _ = parse_study(asked)
    source = source_of(asking)
    store = convert(source, tmp_path / "both", image_size=1)
    play = open_play(Run.open(first / "first"))
    assert store.meta.layout == play.meta.layout
    known = [(s.task, s.success) for s in store.segments][-4:]
    assert known == [(RED, True), (RED, False), (RED, None), (RED, True)]
    # and by itself it is a set as any other
    alone = Attempts(open_source(tmp_path / "tried"))
    assert {e.split for e in alone.episodes} == {"training", "validation"}

"""A run that is killed, whenever that is, ends in the same numbers as one that was left alone."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_study import (
    Started,
    assert_same_run,
    copied,
    evaluations,
    finished_run,
    forget,
    metrics,
    options,
    place,
    study,
    weights,
)

from experiments.stages import improve as learn
from experiments.stages.all_of_task import learn_task
from experiments.study.run import Run
from worldaction.io.sealed_json import read_json

TASK = "artefacts/seed0/turn_on_led"
# what there is when a stage has just begun or is at work, what it has not finished then, and what ends it
STAGES = {
    "play data": ("artefacts/play/shards/0001", "artefacts/play", signal.SIGKILL),
    "world model": (
        "artefacts/seed0/world_model/checkpoint.safetensors",
        "artefacts/seed0/world_model",
        signal.SIGKILL,
    ),
    "success": ("artefacts/seed0/fidelity/manifest.json", f"{TASK}/success", signal.SIGKILL),
    "clone": (f"{TASK}/success/manifest.json", f"{TASK}/clone", signal.SIGKILL),
    "sampler": (f"{TASK}/clone/manifest.json", f"{TASK}/sampler", signal.SIGKILL),
    "ppo": (f"{TASK}/ppo/checkpoint.safetensors", f"{TASK}/ppo", signal.SIGKILL),
    "evaluation": (f"{TASK}/evaluation/policies/ppo/config.json", f"{TASK}/evaluation", signal.SIGINT),
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts studies in a folder of their own, and leaves none of them behind."""
    started: list[Started] = []

    def begin(*arguments: str, shard_frames: int = 0) -> Started:
        started.append(Started(arguments, cwd=tmp_path, shard_frames=shard_frames))
        return started[-1]

    yield begin
    for process in started:
        process.clean_up()


@pytest.mark.timeout(600)
def test_a_run_ended_in_every_stage_comes_to_the_same_numbers(start: Callable[..., Started], tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = options(run_dir="run", workers=1)
    for at_work, unfinished, number in STAGES.values():
        process = start(*arguments, shard_frames=150)
        process.wait_for((run / at_work).exists)
        process.signal(number)
        status, said = process.end()
        assert status == (130 if number == signal.SIGINT else -number)
        assert not (run / unfinished / "manifest.json").exists()
        arguments = ["--resume", "run"]
    # the last one was asked politely
    assert "go on with: python -m experiments.calvin --resume run" in said
    result = study(*arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert_same_run(run, finished_run())
    assert scalars(run) == scalars(finished_run())


def scalars(run: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """What TensorBoard shows: steps and values by folder and tag."""
    found = {}
    for folder in sorted({path.parent for path in run.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(folder))
        events.Reload()
        found[str(folder.relative_to(run))] = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }
    return found


def test_a_checkpoint_that_was_left_in_a_finished_artefact_is_removed(tmp_path: Path) -> None:
    """By a process that was killed after it wrote the manifest."""
    run = copied(finished_run(), tmp_path / "run")
    left = place(run, "seed0/world_model") / "checkpoint.safetensors"
    left.touch()
    found = Run.open(run)
    found.publish("seed0/world_model", found.world_model(0))
    assert not left.exists()


def test_a_run_says_how_many_of_its_iterations_are_behind_its_policy() -> None:
    told = read_json(finished_run() / "summary.json")["tasks"]["turn_on_led"]["per_seed"][0]
    assert told["iterations"] == 3
    assert told["kept"] == (1 if told["stop_reason"] == "fell" else 2)


@pytest.mark.parametrize("saves", [0, 1, 2])
def test_a_point_of_the_real_curve_is_recorded_once_though_ppo_ends_before_it_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    run = tmp_path / "run"
    copied(finished_run(), run)
    forget(run, "seed0/turn_on_led/ppo", "seed0/turn_on_led/evaluation")
    save, left = learn.save_checkpoint, iter([True] * saves)

    def end_instead(*args: Any, **kwargs: Any) -> None:
        if not next(left, False):
            raise KeyboardInterrupt
        save(*args, **kwargs)

    monkeypatch.setattr(learn, "save_checkpoint", end_instead)
    with pytest.raises(KeyboardInterrupt):
        learn_task(Run.open(run), 0, "turn_on_led")
    monkeypatch.undo()
    learn_task(Run.open(run), 0, "turn_on_led")
    ours, theirs = ([m for m in metrics(r) if "real" in str(m)] for r in (run, finished_run()))
    assert ours == theirs


@pytest.mark.timeout(600)
def test_two_workers_end_with_their_parent_and_go_on_to_the_numbers_of_one(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed = start(*options(run_dir="run", workers=2), "--seeds", "0", "1")
    killed.wait_for(lambda: list(run.glob("artefacts/*/world_model/checkpoint.safetensors")))
    # the parent and two workers at least
    assert len(killed.members()) >= 3
    killed.signal(signal.SIGKILL, alone=True)
    wait_until_gone(killed, seconds=10)

    interrupted = start("--resume", "run")
    interrupted.wait_for(lambda: list(run.glob("artefacts/*/*/ppo/checkpoint.safetensors")))
    # to every process, as a terminal does
    interrupted.signal(signal.SIGINT)
    status, said = interrupted.end()
    assert status == 130
    assert "go on with: python -m experiments.calvin --resume run" in said
    assert "Traceback" not in said
    wait_until_gone(interrupted, seconds=2)

    result = study("--resume", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    ours, alone = of_seed(0, run), of_seed(0, finished_run())
    assert ours == alone
    assert of_seed(1, run)["weights"] != alone["weights"]


def wait_until_gone(process: Started, *, seconds: float) -> None:
    """No process of the session is left soon."""
    end = time.monotonic() + seconds
    while process.members() and time.monotonic() < end:
        time.sleep(0.05)
    assert process.members() == []


def of_seed(seed: int, run: Path) -> dict[str, Any]:
    """What a run came to for one of its seeds."""
    return {
        "evaluation": evaluations(run)[f"turn_on_led-seed{seed}.json"],
        "metrics": [line for line in metrics(run) if line["prefix"].startswith(f"seed{seed}/")],
        "weights": {name: value.tolist() for name, value in weights(run) if f"seed{seed}" in name},
    }

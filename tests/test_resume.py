"""A run that is killed, whenever that is, ends in the same numbers as one that was left alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_study import Started, assert_same_run, finished_run, metrics, options, study

TASK = "artefacts/seed0/turn_on_led"
# what a run leaves behind in the order of its stages: sign that a stage is at work, and what it has not finished yet
STAGES = {
    "play data": ("artefacts/play/shards/0001", "artefacts/play/manifest.json"),
    "world model": ("artefacts/seed0/world_model/checkpoint.safetensors", "artefacts/seed0/world_model/manifest.json"),
    "success": (f"{TASK}/success/made_by.json", f"{TASK}/success/manifest.json"),
    "clone": (f"{TASK}/clone/manifest.json", f"{TASK}/ppo/manifest.json"),
    "ppo": (f"{TASK}/ppo/checkpoint.safetensors", f"{TASK}/ppo/manifest.json"),
    "evaluation": ("policies/turn_on_led-seed0-ppo/config.json", f"{TASK}/evaluation/manifest.json"),
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
def test_a_run_killed_in_every_stage_ends_as_if_it_had_not_been(start: Callable[..., Started], tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = options(run_dir="run", workers=1)
    for at_work, unfinished in STAGES.values():
        study_process = start(*arguments, shard_frames=150)
        study_process.wait_for((run / at_work).exists)
        study_process.signal(signal.SIGKILL)
        assert study_process.end()[0] == -signal.SIGKILL
        assert not (run / unfinished).exists()
        arguments = ["--resume", "run"]
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

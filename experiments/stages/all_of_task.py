"""All stages of a task and seed, in order."""

from __future__ import annotations

from pathlib import Path

from experiments.stages.bc import clone_policy
from experiments.stages.evaluation import compare
from experiments.stages.improve import improve
from experiments.stages.success import learn_success
from experiments.stages.task_run import TaskRun
from worldaction.io.recorder import Recorder


def learn_task(folder: Path, seed: int, task: str) -> None:
    """All stages of one task and seed."""
    task_run = TaskRun(folder, seed, task)
    with Recorder(folder, f"seed{seed}-{task}") as recorder:
        learn_success(task_run, recorder)
        clone_policy(task_run, recorder)
        improve(task_run, recorder)
        compare(task_run)

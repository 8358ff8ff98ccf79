"""The stages of a task and seed, in order."""

from __future__ import annotations

from experiments.stages.bc import clone_policy
from experiments.stages.evaluation import compare
from experiments.stages.improve import STAGE, improve
from experiments.stages.samplers import STAGE as SAMPLER
from experiments.stages.samplers import choose_sampler
from experiments.stages.success import learn_success
from experiments.stages.task_run import TaskRun
from experiments.study.run import Run
from worldaction.io.recorder import Recorder

STAGES = {"success": learn_success, "clone": clone_policy, SAMPLER: choose_sampler, STAGE: improve}


def learn_task(run: Run, seed: int, task: str) -> None:
    """All stages of one task and seed."""
    task_run = TaskRun(run, seed, task)
    for stage in STAGES:
        _learn(task_run, stage)
    compare(task_run)


def learn_stage(run: Run, seed: int, task: str, stage: str) -> None:
    """One of the stages of a task alone, after those before it."""
    _learn(TaskRun(run, seed, task), stage)


def _learn(task_run: TaskRun, stage: str) -> None:
    """A stage, unless it is done; its metrics are recorded in the folder of its artefact."""
    artefact = task_run.run.task(task_run.seed, task_run.task, stage)
    if not artefact.complete:
        with Recorder(artefact.folder, boards=task_run.run.boards) as recorder:
            STAGES[stage](task_run, recorder)

"""Finished policies --> jury: what the world models of the other seeds say of what each policy dreams."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.imagination import Actor, FirstFrames
from agents.jury import dreamed_actions, replayed_success
from agents.policies.base import PolicyHead
from experiments.report.summary import seed_of
from experiments.stages.bc import load_actor
from experiments.stages.improve import STAGE, Deterministic, as_starts
from experiments.stages.samplers import STAGE as SAMPLER
from experiments.stages.success import load_classifier
from experiments.stages.task_run import TaskRun
from experiments.study.run import Run
from worldaction.random import Use, branch
from worldaction.success import SuccessClassifier


class Heard(NamedTuple):
    """One policy, by three judges; shares of successes."""

    task: str
    seed: int
    policy: str
    real: float
    """In the simulator."""
    own: float
    """In dreams of the model that it acts on."""
    jury: float
    """Of the same dreams, in replays by the models of all other seeds."""
    jurors: tuple[float, ...]
    """By each of these."""


class _Judge(NamedTuple):
    """A world model with what it knows of a task."""

    task_run: TaskRun
    success: SuccessClassifier
    starts: FirstFrames


def hear(run: Run, task: str) -> list[Heard]:
    """The clones and improved policies of all seeds.

    Args:
        run: finished, of two seeds or more.
        task: one of its tasks.
    """
    # what is seen first is the same to all: the scenes in which the run measured its dreams
    learned, measured = run.study.update.starts, run.study.evaluation.dreams
    runs = [TaskRun(run, seed, task) for seed in run.study.seeds]
    seen = runs[0].benchmark.first_frames(task, learned + measured)[learned:]
    judges = {one.seed: _Judge(one, load_classifier(one), as_starts(one, seen)) for one in runs}
    return [_heard(judges, seed, name) for seed in judges for name in ("bc", run.study.improved)]


def _heard(judges: dict[int, _Judge], seed: int, name: str) -> Heard:
    own = judges[seed]
    run, task, study = own.task_run.run, own.task_run.task, own.task_run.study
    # as the dreams of which the run says how many succeed
    rows, drawn = torch.arange(len(own.starts), device=own.task_run.device), branch(seed, Use.MEASURED_DREAMS)

    def first(judge: _Judge) -> Any:
        return judge.starts.draw(rows, seed=drawn, rows=rows)

    decisions = study.table.max_steps // study.policy.chunk
    actions = dreamed_actions(
        own.task_run.model, _actor(own.task_run, name), first(own), decisions=decisions, seed=drawn, rows=rows
    )

    def says(judge: _Judge) -> float:
        done = replayed_success(
            judge.task_run.model,
            judge.success,
            first(judge),
            actions,
            threshold=study.success.threshold,
            seed=drawn,
            rows=rows,
        )
        return _share(done)

    jurors = tuple(says(judge) for other, judge in judges.items() if other != seed)
    told = seed_of(run, task, seed)
    return Heard(
        task,
        seed,
        name,
        real=told[name],
        own=told[f"imagined_{name}"],
        jury=sum(jurors) / len(jurors),
        jurors=jurors,
    )


def _actor(task_run: TaskRun, name: str) -> Actor:
    """As it acts in the simulator."""
    if name != "bc":
        improved: Actor = load_actor(task_run, STAGE)
        return improved
    cloned = load_actor(task_run, "clone")
    assert isinstance(cloned, PolicyHead)
    deterministic = task_run.run.task(task_run.seed, task_run.task, SAMPLER).results["sampler"] == "deterministic"
    return Deterministic(cloned) if deterministic else cloned


def _share(done_at: Tensor) -> float:
    return float((done_at > 0).double().mean())

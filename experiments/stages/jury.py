"""Policies --> jury: what world models in which none of them has dreamed say of what each policy dreams.

Of a run with several seeds these are the models of the other seeds. Of a study without a simulator they are models that
have learned from the held-out episodes alone, and what they say is the study's evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.imagination import Actor, FirstFrames
from agents.jury import Juror, dreamed_actions, replayed_success
from agents.policies.base import PolicyHead
from agents.policy import Policy
from envs.benchmark import Observation
from experiments.report.summary import seed_of
from experiments.stages.bc import load_actor
from experiments.stages.improve import STAGE, Deterministic, as_starts
from experiments.stages.rollout import Evaluation
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
    _, seen = runs[0].first_frames(learned, measured)
    judges = {one.seed: _Judge(one, load_classifier(one), as_starts(one, seen)) for one in runs}
    return [_heard(judges, seed, name) for seed in judges for name in ("bc", run.study.improved)]


def _heard(judges: dict[int, _Judge], seed: int, name: str) -> Heard:
    own = judges[seed]
    run, task, study = own.task_run.run, own.task_run.task, own.task_run.study
    # as the dreams of which the run says how many succeed
    rows, drawn = torch.arange(study.evaluation.dreams, device=own.task_run.device), branch(seed, Use.MEASURED_DREAMS)

    def first(judge: _Judge) -> Any:
        return judge.starts.draw(rows % len(judge.starts), seed=drawn, rows=rows)

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


def evaluate_by_jurors(task_run: TaskRun, compared: Mapping[str, Policy]) -> dict[str, Evaluation]:
    """Dreams of each policy from the held-out first frames, each replayed by every juror: that is an episode.

    Args:
        task_run: the task and seed, of a study without a simulator.
        compared: the policies, by name.
    """
    study, sides = task_run.study, task_run.run.jurors()
    _, seen = task_run.first_frames(study.update.starts, study.evaluation.dreams)
    each = math.ceil(study.evaluation.episodes / (len(seen) * len(sides)))
    rows, drawn = torch.arange(len(seen) * each, device=task_run.device), branch(task_run.seed, Use.EVALUATED_DREAMS)
    jurors = [_juror(TaskRun(side, seed, task_run.task), seen) for seed, side in sides.items()]
    own, which, results = as_starts(task_run, seen), rows % len(seen), {}
    for name, policy in compared.items():
        actor = as_it_acts(policy)
        actions = dreamed_actions(
            task_run.model,
            actor,
            own.draw(which, seed=drawn, rows=rows),
            decisions=study.table.max_steps // actor.chunk,
            seed=drawn,
            rows=rows,
        )
        # [J, B]
        done_at = torch.stack(
            [
                replayed_success(
                    juror.model,
                    juror.success,
                    juror.starts.draw(which, seed=drawn, rows=rows),
                    actions,
                    threshold=study.success.threshold,
                    seed=drawn,
                    rows=rows,
                )
                for juror in jurors
            ]
        )
        done = (done_at > 0).flatten().cpu().numpy()
        steps = np.where(done, done_at.flatten().cpu().numpy(), study.table.max_steps)
        results[name] = Evaluation(which.repeat(len(jurors)).cpu().numpy(), done, steps)
    return results


def _juror(task_run: TaskRun, seen: Sequence[Observation]) -> Juror:
    return Juror(task_run.model, load_classifier(task_run), as_starts(task_run, seen))


def as_it_acts(policy: Policy) -> Actor:
    """The head of a policy, which dreams by the policy's sampler."""
    if policy.sampler == "deterministic":
        assert isinstance(policy.actor, PolicyHead)
        return Deterministic(policy.actor)
    actor: Actor = policy.actor
    return actor


def _actor(task_run: TaskRun, name: str) -> Actor:
    """As it acts in the simulator."""
    if name != "bc":
        return as_it_acts(task_run.policy(load_actor(task_run, STAGE)))
    sampler = task_run.run.task(task_run.seed, task_run.task, SAMPLER).results["sampler"]
    return as_it_acts(task_run.policy(load_actor(task_run, "clone"), sampler=sampler))


def _share(done_at: Tensor) -> float:
    return float((done_at > 0).double().mean())

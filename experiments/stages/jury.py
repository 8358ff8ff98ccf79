"""Policies --> jury: what world models in which none of them has dreamed say of what each policy dreams.

Of a run with several seeds these are the models of the other seeds. Of a study without a simulator they are models that
have learned from the held-out episodes alone, and what they say is the study's evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.imagination import Actor, Starts
from agents.jury import Juror, dreamed_actions
from agents.policies.base import PolicyHead
from agents.policy import Policy
from experiments.report.summary import seed_of
from experiments.stages.bc import load_actor
from experiments.stages.improve import STAGE, Deterministic, as_starts, jurors_of
from experiments.stages.rollout import Evaluation
from experiments.stages.samplers import STAGE as SAMPLER
from experiments.stages.task_run import TaskRun
from experiments.study.run import Run
from worldaction.random import Use, branch


class Heard(NamedTuple):
    """One policy, by three judges; shares of successes."""

    task: str
    seed: int
    policy: str
    real: float
    """In the simulator; of a study of recorded data, in replays by its jurors."""
    own: float
    """In dreams of the model that it acts on."""
    jury: float
    """Of the same dreams, in replays by the models of all other seeds."""
    jurors: tuple[float, ...]
    """By each of these."""


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
    judges = {one.seed: jurors_of(one, [seen])[0] for one in runs}
    return [_heard(one, judges, name) for one in runs for name in ("bc", run.study.improved)]


def _heard(task_run: TaskRun, judges: Mapping[int, Juror], name: str) -> Heard:
    study, own = task_run.study, judges[task_run.seed]
    # as the dreams of which the run says how many succeed
    drawn = branch(task_run.seed, Use.MEASURED_DREAMS)
    rows = torch.arange(study.evaluation.dreams, device=task_run.device)
    which = rows % len(own.starts)
    actions = _dreamed(task_run, _actor(task_run, name), own.starts, which, seed=drawn, rows=rows)
    replays = [
        judge.replay(actions, which, threshold=study.success.threshold, seed=drawn, rows=rows)
        for seed, judge in judges.items()
        if seed != task_run.seed
    ]
    jurors = tuple(_share(done_at) for done_at in replays)
    told = seed_of(task_run.run, task_run.task, task_run.seed)
    return Heard(
        task_run.task,
        task_run.seed,
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
    jurors = [jurors_of(TaskRun(side, seed, task_run.task), [seen])[0] for seed, side in sides.items()]
    own, which, results = as_starts(task_run, seen), rows % len(seen), {}
    for name, policy in compared.items():
        actions = _dreamed(task_run, as_it_acts(policy), own, which, seed=drawn, rows=rows)
        replays = [
            juror.replay(actions, which, threshold=study.success.threshold, seed=drawn, rows=rows) for juror in jurors
        ]
        # [J, B]
        done_at = torch.stack(replays)
        done = (done_at > 0).flatten().cpu().numpy()
        steps = np.where(done, done_at.flatten().cpu().numpy(), study.table.max_steps)
        index, asked = which.repeat(len(jurors)).cpu().numpy(), np.repeat(list(sides), len(which))
        results[name] = Evaluation(index, done, steps, juror=asked)
    return results


def _dreamed(task_run: TaskRun, actor: Actor, starts: Starts, which: Tensor, *, seed: int, rows: Tensor) -> Tensor:
    """What a policy does in dreams of its own model, as long as an episode: [B, T, A]."""
    first, decisions = starts.draw(which, seed=seed, rows=rows), task_run.study.table.max_steps // actor.chunk
    return dreamed_actions(task_run.model, actor, first, decisions=decisions, seed=seed, rows=rows)


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

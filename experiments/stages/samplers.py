"""Cloned policy --> sampler: the better way to draw its actions, which makes it the baseline.

A diffusion policy denoises with fresh noise at every step (stochastic) or with none but the first (deterministic), and
either can be worth many points. An improved policy is set against the better clone: else a part of its gain would be
the sampler's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.policies.base import Sampler
from agents.policy import Policy
from experiments.stages.bc import load_actor
from experiments.stages.rollout import Evaluation, evaluate
from experiments.stages.task_run import TaskRun, samplers
from experiments.study.checks import start_states
from worldaction.io.atomic import write_json
from worldaction.io.recorder import Recorder, progress

STAGE = "sampler"


def choose_sampler(task_run: TaskRun, recorder: Recorder) -> None:
    """Cloned policy --> sampler: each of its samplers from start states that the evaluation does not use."""
    artefact = task_run.run.task(task_run.seed, task_run.task, STAGE)
    if artefact.complete:
        return
    cloned = load_actor(task_run, "clone")
    found = compared(task_run, samplers(cloned), lambda sampler: task_run.policy(cloned, sampler=sampler))
    rates: dict[str, Any] = {sampler: result.rate for sampler, result in found.items()}
    write_json(artefact.folder / "sampler.json", {sampler: result.to_dict() for sampler, result in found.items()})
    choice = rates | {"n": task_run.study.evaluation.sampler_episodes} if rates else None
    artefact.finish({"sampler": better(rates), "choice": choice})


def compared(
    task_run: TaskRun, known: Sequence[Sampler], policy: Callable[[Sampler], Policy]
) -> dict[Sampler, Evaluation]:
    """Episodes of a policy by each of its samplers, from start states that the evaluation does not use.

    Args:
        task_run: the task and seed.
        known: the samplers that the policy has; with one there is nothing to compare, and nothing is done.
        policy: the one that acts by a sampler.
    """
    options = task_run.study.evaluation
    indices = start_states(options, len(task_run.benchmark.starts(task_run.task))).sampler
    if len(known) < 2 or not indices:
        return {}
    found = {}
    with progress(len(known) * len(indices), f"samplers of {task_run.prefix}", "episode") as bar:
        for sampler in known:
            found[sampler] = evaluate(
                policy(sampler), task_run.benchmark, indices=indices, parallel=options.parallel, progress=bar.update
            )
    return found


def better(rates: Mapping[str, float]) -> Sampler:
    """The sampler with the higher success rate; stochastic, as the policy was trained, if none is better."""
    return "deterministic" if rates.get("deterministic", 0.0) > rates.get("stochastic", 0.0) else "stochastic"

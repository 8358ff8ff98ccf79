"""Cloned policy --> sampler: the better way to draw its actions, which makes it the baseline.

A diffusion policy denoises with fresh noise at every step (stochastic) or with none but the first (deterministic), and
either can be worth many points. An improved policy is set against the better clone: else a part of its gain would be
the sampler's.
"""

from __future__ import annotations

from experiments.stages.bc import load_actor
from experiments.stages.rollout import Evaluation, evaluate
from experiments.stages.task_run import TaskRun, samplers
from experiments.study.checks import start_states
from worldaction.io.artefact import write_json
from worldaction.io.recorder import Recorder, progress

STAGE = "sampler"


def choose_sampler(task_run: TaskRun, recorder: Recorder) -> None:
    """Cloned policy --> sampler: each of its samplers from start states that the evaluation does not use."""
    artefact = task_run.run.task(task_run.seed, task_run.task, STAGE)
    if artefact.complete:
        return
    options, cloned = task_run.study.evaluation, load_actor(task_run, "clone")
    indices = start_states(options, len(task_run.benchmark.starts(task_run.task))).sampler
    known = samplers(cloned) if options.sampler_episodes else ()
    found: dict[str, Evaluation] = {}
    name = f"samplers of {task_run.task}, seed {task_run.seed}"
    with progress(len(known) * len(indices), name, "episode") as bar:
        for sampler in known if len(known) > 1 else ():
            policy = task_run.policy(cloned, sampler=sampler)
            found[sampler] = evaluate(
                policy, task_run.benchmark, indices=indices, parallel=options.parallel, progress=bar.update
            )
    rates = {sampler: result.rate for sampler, result in found.items()}
    write_json(artefact.folder / "sampler.json", {sampler: result.to_dict() for sampler, result in found.items()})
    artefact.finish({"sampler": better(rates), "choice": rates | {"n": len(indices)} if rates else None})


def better(rates: dict[str, float]) -> str:
    """The sampler with the higher success rate; stochastic, as the policy was trained, if none is better."""
    return "deterministic" if rates.get("deterministic", 0.0) > rates.get("stochastic", 0.0) else "stochastic"

"""Improved policy --> evaluation: it and the cloned one from the same start states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.policy import Policy
from envs.benchmark import Benchmark
from experiments.report.outcomes import OTHER
from experiments.report.video import Rollout, rollout_video
from experiments.stages.bc import action_error, load_actor
from experiments.stages.improve import STAGE
from experiments.stages.jury import film_dreams, replays_by_jurors
from experiments.stages.rollout import Evaluation, evaluate
from experiments.stages.samplers import STAGE as SAMPLER
from experiments.stages.task_run import TaskRun, samplers
from experiments.study.run import LOGGER
from worldaction.io.atomic import write_json
from worldaction.io.recorder import progress


def compare(task_run: TaskRun) -> None:
    """Improved policy --> evaluation: it and the cloned one from the same start states."""
    artefact = task_run.run.task(task_run.seed, task_run.task, "evaluation")
    if artefact.complete:
        return
    options = task_run.study.evaluation
    found = policies(task_run)
    for name in ("bc", task_run.study.improved):
        found[name].save_pretrained(artefact.folder / "policies" / name)
    if task_run.benchmark.simulates:
        indices = range(options.first, options.first + options.episodes)
        results = outcomes(task_run, found, task_run.benchmark, indices=indices, films=options.videos)
    else:
        replays = replays_by_jurors(task_run, found)
        results = replays.evaluations(task_run.study.table.max_steps)
        shown = ("bc", task_run.study.improved)
        film_dreams(artefact.folder / "film.mp4", task_run, replays, shown, count=options.videos)
        _say(task_run, results, " by world models that saw only what was held out")
    told = values(task_run, found, results)
    if task_run.told_by_recording:
        told["action_error"] = {name: action_error(task_run, policy) for name, policy in found.items()}
    write_json(artefact.folder / "evaluation.json", told)
    _film(artefact.folder / "film.mp4", results)
    artefact.finish({name: result.rate for name, result in results.items()})
    task_run.run.publish(f"{task_run.prefix}/evaluation", artefact)


def policies(task_run: TaskRun) -> dict[str, Policy]:
    """What is compared: the clone by its better sampler and, if it had a choice, the other one; the improved policy.

    Returns:
        "bc", `OTHER`, and the improved policy by its name.
    """
    chosen = task_run.run.task(task_run.seed, task_run.task, SAMPLER).results
    cloned, sampler = load_actor(task_run, "clone"), chosen["sampler"]
    found = {"bc": task_run.policy(cloned, sampler=sampler)}
    if chosen["choice"] is not None:
        (other,) = set(samplers(cloned)) - {sampler}
        found[OTHER] = task_run.policy(cloned, sampler=other)
    return found | {task_run.study.improved: task_run.policy(load_actor(task_run, STAGE))}


def outcomes(
    task_run: TaskRun, compared: Mapping[str, Policy], benchmark: Benchmark, *, indices: range, films: int = 0
) -> dict[str, Evaluation]:
    """Episodes of each policy from the same start states.

    Args:
        task_run: the task and seed.
        compared: the policies, by name.
        benchmark: the simulator.
        indices: start states of its fixed list.
        films: how many of the first episodes are filmed, of all but `OTHER`.
    """
    results, where = {}, "" if benchmark is task_run.benchmark else f" in {benchmark.name}"
    with progress(len(compared) * len(indices), f"evaluation of {task_run.prefix}{where}", "episode") as bar:
        for name, policy in compared.items():
            results[name] = evaluate(
                policy,
                benchmark,
                indices=indices,
                parallel=task_run.study.evaluation.parallel,
                films=0 if name == OTHER else films,
                progress=bar.update,
            )
    _say(task_run, results, where)
    return results


def _say(task_run: TaskRun, results: Mapping[str, Evaluation], where: str) -> None:
    improved = task_run.study.improved
    LOGGER.info(
        "%s, seed %d%s: BC %.0f %%, %s %.0f %%",
        task_run.task,
        task_run.seed,
        where,
        100 * results["bc"].rate,
        improved.upper(),
        100 * results[improved].rate,
    )


def values(task_run: TaskRun, compared: Mapping[str, Policy], results: Mapping[str, Evaluation]) -> dict[str, Any]:
    """What evaluation.json says: see docs/design.md, "Run folder"."""
    chosen = task_run.run.task(task_run.seed, task_run.task, SAMPLER).results
    return {
        "task": task_run.task,
        "seed": task_run.seed,
        "limit": task_run.study.table.max_steps,
        "sampler": chosen["sampler"],
        "choice": chosen["choice"],
        "samplers": list(samplers(compared["bc"].actor)),
        OTHER: None,
        **{name: result.to_dict() for name, result in results.items()},
    }


def _film(path: Path, results: Mapping[str, Evaluation]) -> None:
    rollouts = []
    for i in range(len(results["bc"].frames)):
        for name, result in results.items():
            if result.frames:
                label = f"{name.upper()}, start {int(result.index[i])}"
                rollouts.append(Rollout(label, result.frames[i], bool(result.success[i])))
    if rollouts:
        rollout_video(rollouts, path)

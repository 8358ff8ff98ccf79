"""Improved policy --> evaluation: both policies from the same start states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.report.video import Rollout, rollout_video
from experiments.stages.bc import load_actor
from experiments.stages.improve import STAGE
from experiments.stages.rollout import Evaluation, evaluate
from experiments.stages.task_run import TaskRun
from experiments.study.run import LOGGER
from worldaction.io.artefact import write_json
from worldaction.io.recorder import progress


def compare(task_run: TaskRun) -> None:
    """Improved policy --> evaluation: it and the cloned one from the same start states."""
    artefact = task_run.run.task(task_run.seed, task_run.task, "evaluation")
    if artefact.complete:
        return
    options, improved = task_run.study.evaluation, task_run.study.improved
    results: dict[str, Evaluation] = {}
    with progress(2 * options.episodes, f"evaluation {task_run.task}, seed {task_run.seed}", "episode") as bar:
        for name, stage in (("bc", "clone"), (improved, STAGE)):
            policy = task_run.policy(load_actor(task_run, stage))
            policy.save_pretrained(artefact.folder / "policies" / name)
            results[name] = evaluate(
                policy,
                task_run.benchmark,
                indices=range(options.episodes),
                parallel=options.parallel,
                films=options.videos,
                progress=bar.update,
            )
    values: dict[str, Any] = {name: result.to_dict() for name, result in results.items()}
    values |= {"task": task_run.task, "seed": task_run.seed}
    write_json(artefact.folder / "evaluation.json", values)
    _film(artefact.folder / "film.mp4", results)
    rates = {name: result.rate for name, result in results.items()}
    LOGGER.info(
        "%s, seed %d: BC %.0f %%, %s %.0f %%",
        task_run.task,
        task_run.seed,
        100 * rates["bc"],
        improved.upper(),
        100 * rates[improved],
    )
    artefact.finish(rates)
    task_run.run.publish(f"{task_run.prefix}/evaluation", artefact)


def _film(path: Path, results: Mapping[str, Evaluation]) -> None:
    rollouts = []
    for i in range(len(results["bc"].frames)):
        for name, result in results.items():
            label = f"{name.upper()}, start {int(result.index[i])}"
            rollouts.append(Rollout(label, result.frames[i], bool(result.success[i])))
    if rollouts:
        rollout_video(rollouts, path)

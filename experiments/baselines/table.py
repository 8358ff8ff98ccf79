"""What the baselines of a run came to, beside its own BC and improved policy: on a terminal, as Markdown, and as CSV.

Every row is over the same start states. `real` are control steps in the simulator beyond what had been recorded.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.statistics import Estimate, average, paired_difference, success_rate
from experiments.report.table import DASH, Table, change, label, rate
from experiments.study.run import Run
from worldaction.io.atomic import replacing
from worldaction.io.recorder import read_metrics
from worldaction.io.sealed_json import read_json

COSTS = ("recorded_frames", "real_steps", "imagined_steps", "gradient_steps", "cpu_seconds")
"""Numbers of a `Result`."""


@dataclass(frozen=True)
class Result:
    """One method, task and seed."""

    method: str
    task: str
    seed: int
    sees: str
    success: tuple[bool, ...]
    """At the first start states of the run's evaluation, in order."""
    recorded_frames: int
    real_steps: int
    imagined_steps: int | None
    gradient_steps: int | None
    """None where another run, from which this one has its policy, did not say."""
    cpu_seconds: float
    """Stages of the run that the method builds on included; the world model's training is not."""


def results(run: Run, tasks: Sequence[str], seeds: Sequence[int]) -> list[Result]:
    """Everything that is known of these tasks and seeds: the run's own policies, then the baselines by name."""
    pairs = [(task, seed) for task in tasks for seed in seeds]
    found = [_own(run, method, task, seed) for method in ("bc", run.study.improved) for task, seed in pairs]
    values = [read_json(p)["results"] for p in sorted((run.folder / "baselines").glob("*/manifest.json"))]
    found += [_baseline(run, value) for value in values if (value["task"], value["seed"]) in pairs]
    return found


def _own(run: Run, method: str, task: str, seed: int) -> Result:
    evaluated = read_json(run.folder / "evaluation" / f"{task}-seed{seed}.json")[method]
    imagined, updates = _dreamed(run, task, seed) if method == run.study.improved else (0, 0)
    return Result(
        method,
        task,
        seed,
        "latents",
        tuple(map(bool, evaluated["success"])),
        run.play().results["frames"],
        0,
        imagined,
        None if updates is None else run.study.clone.steps + updates,
        _seconds(run, task, seed, ("clone",) if method == "bc" else ("clone", "success", "ppo")),
    )


def _dreamed(run: Run, task: str, seed: int) -> tuple[int | None, int | None]:
    """Imagined control steps and gradient steps of a policy's fine-tuning, from what was recorded of it."""
    prefix, longest = f"seed{seed}/{task}", run.study.dream_steps
    lines = [line for line in read_metrics(run.folder) if line["prefix"] == prefix and "imagined/success" in line]
    if not lines:
        return None, None
    steps = 0.0
    for line in lines:
        share = line["imagined/success"]
        steps += run.study.update.dreams * (share * line.get("imagined/time", 0.0) + (1 - share) * longest)
    # under the name of the update's class, whatever the policy is called
    taken = sum(value for line in lines for key, value in line.items() if key.endswith("/policy_steps"))
    return round(steps), round(taken)


def _seconds(run: Run, task: str, seed: int, stages: Iterable[str]) -> float:
    """Time of a run's stages, which work with one thread."""
    return sum(read_json(run.task(seed, task, stage).path / "manifest.json")["seconds"] for stage in stages)


def _baseline(run: Run, value: dict[str, Any]) -> Result:
    task, seed = value["task"], value["seed"]
    cloned = run.study.clone.steps if "clone" in value["stages"] else 0
    return Result(
        value["method"],
        task,
        seed,
        value["sees"],
        tuple(map(bool, value["evaluation"]["success"])),
        value["recorded_frames"],
        value["real_steps"],
        value["imagined_steps"],
        value["gradient_steps"] + cloned,
        value["cpu_seconds"] + _seconds(run, task, seed, value["stages"]),
    )


# Tables ---------------------------------------------------------------------------------------------------------------


def tables(found: Sequence[Result], improved: str) -> list[Table]:
    """What each method takes, and how it does on each task.

    Args:
        found: of all methods.
        improved: which of them is the run's own improved policy, against which the others are held.
    """
    return [_costs(found, improved), _by_task(found)]


def _costs(found: Sequence[Result], improved: str) -> Table:
    """A row for each method: what it takes a policy on average, and success on the average of the tasks."""
    columns = ("method", "sees", "recorded frames", "real steps", "imagined steps", "gradient steps", "CPU s", "n")
    rows = [
        (
            method,
            own[0].sees,
            *(_mean([getattr(result, name) for result in own]) for name in COSTS),
            str(sum(len(result.success) for result in own)),
            rate(_success(own)),
            "" if method == improved else change(_difference(own, found, improved)),
        )
        for method in _methods(found)
        for own in [[result for result in found if result.method == method]]
    ]
    return Table((*columns, "success %", f"{label(improved)} - it, points"), rows)


def _by_task(found: Sequence[Result]) -> Table:
    """A row for each method: success on each task, over all seeds."""
    tasks = list(dict.fromkeys(result.task for result in found))
    cells = {(r.method, r.task): [s for s in found if (s.method, s.task) == (r.method, r.task)] for r in found}
    rows = [
        (method, *(rate(_success(cells[method, task])) if (method, task) in cells else DASH for task in tasks))
        for method in _methods(found)
    ]
    return Table(("success %", *tasks), rows)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):,.0f}" if known and len(known) == len(values) else DASH


def _methods(found: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.method for result in found))


def _of_tasks(found: Sequence[Result]) -> list[list[Result]]:
    return [[r for r in found if r.task == task] for task in dict.fromkeys(r.task for r in found)]


def _success(own: Sequence[Result]) -> Estimate:
    """Average over the tasks of the success over all seeds."""
    return average([success_rate(*_pooled([r.success for r in part])) for part in _of_tasks(own)])


def _difference(own: Sequence[Result], found: Sequence[Result], improved: str) -> Estimate:
    """By how much the run's improved policy succeeds more often, start by start, on the average of the tasks."""
    best = {(r.task, r.seed): r.success for r in found if r.method == improved}
    parts = []
    for part in _of_tasks(own):
        pairs = [(best[r.task, r.seed][: len(r.success)], r.success[: len(best[r.task, r.seed])]) for r in part]
        ours, theirs = zip(*pairs, strict=True)
        parts.append(paired_difference(_pooled(ours)[0], *_pooled(theirs)))
    return average(parts)


def _pooled(seeds: Sequence[Sequence[bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of all seeds laid end to end, [n], and the number of the start state of each."""
    return np.concatenate(seeds), np.concatenate([np.arange(len(seed)) for seed in seeds])


def write_csv(found: Sequence[Result], path: Path) -> None:
    """A line for every method, task and seed, with Wilson's interval."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "task", "seed", "sees", "n", "successes", "rate", "low", "high", *COSTS])
        for result in found:
            found_rate = success_rate(result.success)
            counts = [len(result.success), sum(result.success), found_rate.value, *found_rate.interval]
            own = [result.method, result.task, result.seed, result.sees]
            writer.writerow([*own, *counts, *(getattr(result, name) for name in COSTS)])

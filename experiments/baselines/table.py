"""What the baselines of a run came to, beside its own BC and PPO: on a terminal, as Markdown, and as CSV.

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
from experiments.report.verdict import bracket, points
from experiments.study.run import Run
from worldaction.io.artefact import read_json, replacing
from worldaction.io.recorder import read_metrics

HEAD = (
    "method", "sees", "recorded frames", "real steps", "imagined steps", "gradient steps", "CPU s", "n", "success %",
    "PPO - it, points",
)  # fmt: skip
OWN = ("bc", "ppo")
"""The run's own policies."""


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
    found = [_own(run, method, task, seed) for method in OWN for task, seed in pairs]
    values = [read_json(path) for path in sorted((run.folder / "baselines").glob("*.json"))]
    found += [_baseline(run, value) for value in values if (value["task"], value["seed"]) in pairs]
    return found


def _own(run: Run, method: str, task: str, seed: int) -> Result:
    evaluated = read_json(run.folder / "evaluation" / f"{task}-seed{seed}.json")[method]
    imagined, updates = _dreamed(run, task, seed) if method == "ppo" else (0, 0)
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
    prefix, longest = f"seed{seed}/{task}", run.study.table.max_steps
    lines = [line for line in read_metrics(run.folder) if line["prefix"] == prefix and "imagined/success" in line]
    if not lines:
        return None, None
    steps = 0.0
    for line in lines:
        share = line["imagined/success"]
        steps += run.study.update.dreams * (share * line.get("imagined/time", 0.0) + (1 - share) * longest)
    return round(steps), round(sum(line.get("ppo/policy_steps", 0.0) for line in lines))


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


# Rows -----------------------------------------------------------------------------------------------------------------


def cost_rows(found: Sequence[Result]) -> list[tuple[str, ...]]:
    """A row for each method: what it takes a policy on average, and success on the average of the tasks."""
    rows = []
    for method in _methods(found):
        own = [result for result in found if result.method == method]
        success, difference = _success(own), _difference(own, found)
        rows.append(
            (
                method,
                own[0].sees,
                *(_mean([getattr(result, name) for result in own]) for name in HEAD_NUMBERS),
                str(sum(len(r.success) for r in own)),
                _rate(success),
                "" if method == "ppo" else f"{points(difference.value)} {bracket(difference, '+')}",
            )
        )
    return rows


HEAD_NUMBERS = ("recorded_frames", "real_steps", "imagined_steps", "gradient_steps", "cpu_seconds")


def task_rows(found: Sequence[Result]) -> list[tuple[str, ...]]:
    """A row for each method: success on each task, over all seeds."""
    tasks, rows = list(dict.fromkeys(result.task for result in found)), []
    for method in _methods(found):
        cells = []
        for task in tasks:
            own = [result for result in found if (result.method, result.task) == (method, task)]
            cells.append(_rate(_success(own)) if own else "-")
        rows.append((method, *cells))
    return [("success %", *tasks), *rows]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):,.0f}" if known and len(known) == len(values) else "-"


def _methods(found: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.method for result in found))


def _by_task(found: Sequence[Result]) -> list[list[Result]]:
    return [[r for r in found if r.task == task] for task in dict.fromkeys(r.task for r in found)]


def _success(own: Sequence[Result]) -> Estimate:
    """Average over the tasks of the success over all seeds."""
    return average([success_rate(np.concatenate([r.success for r in part])) for part in _by_task(own)])


def _difference(own: Sequence[Result], found: Sequence[Result]) -> Estimate:
    """By how much the run's PPO succeeds more often, start by start, on the average of the tasks."""
    tuned = {(r.task, r.seed): r.success for r in found if r.method == "ppo"}
    parts = []
    for part in _by_task(own):
        pairs = [(tuned[r.task, r.seed][: len(r.success)], r.success[: len(tuned[r.task, r.seed])]) for r in part]
        parts.append(paired_difference(*(np.concatenate(side) for side in zip(*pairs, strict=True))))
    return average(parts)


def _rate(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} {bracket(estimate)}"


# Forms ----------------------------------------------------------------------------------------------------------------


def console(found: Sequence[Result]) -> str:
    """Both tables for a terminal."""
    return "\n\n".join(_aligned(rows) for rows in ([HEAD, *cost_rows(found)], task_rows(found)))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown(found: Sequence[Result]) -> str:
    """Both tables for documents."""
    parts = []
    for head, *rows in ([HEAD, *cost_rows(found)], task_rows(found)):
        lines = [head, ["---"] * len(head), *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def write_csv(found: Sequence[Result], path: Path) -> None:
    """A line for every method, task and seed, with Wilson's interval."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["method", "task", "seed", "sees", "n", "successes", "rate", "low", "high", *HEAD_NUMBERS])
        for result in found:
            rate = success_rate(result.success)
            counts = [len(result.success), sum(result.success), rate.value, *rate.interval]
            own = [result.method, result.task, result.seed, result.sees]
            table.writerow([*own, *counts, *(getattr(result, name) for name in HEAD_NUMBERS)])

"""The verdict for machines: summary.json, from the artefacts of all tasks and seeds. Schema: run_page.py."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report.statistics import Estimate, average, paired_difference, success_rate
from experiments.report.verdict import estimate_of
from experiments.study.checks import learns
from experiments.study.machine import commit
from experiments.study.run import Run, settings_of
from worldaction.io.artefact import Artefact, read_json, write_json

Json = dict[str, Any]


def summarise(run: Run) -> Json:
    """Read the artefacts of a run, write summary.json and return it.

    Args:
        run: what is not finished of it is left out, and named under `unfinished`.
    """
    study, artefacts = run.study, run.artefacts()
    seeds = list(study.seeds)
    summary: Json = {
        "preset": study.preset,
        "seeds": seeds,
        "settings": settings_of(study),
        "improved": study.improved,
        **commits(run),
        "renderer": run.play().results["renderer"],
        "play": run.play().results,
        "seconds": since_start(run),
        "stage_seconds": {place: _seconds(artefact) for place, artefact in artefacts.items() if artefact.complete},
        "reused": run.reused(),
        "world_model": _world_model([m.results for m in map(run.fidelity, seeds) if m.complete], study.losses),
    }
    if unfinished := [place for place, artefact in artefacts.items() if not artefact.complete]:
        summary["unfinished"] = unfinished
    if learns(study):
        done = {task: [s for s in seeds if run.task(s, task, "evaluation").complete] for task in study.tasks}
        summary["tasks"] = {task: _task(run, task, of) for task, of in done.items() if of}
        summary["average"] = over_tasks(summary["tasks"]) if summary["tasks"] else {}
    write_json(run.folder / "summary.json", summary)
    return summary


def _task(run: Run, task: str, seeds: Sequence[int]) -> Json:
    """One task over some seeds."""
    improved = run.study.improved
    episodes = {seed: read_json(run.folder / "evaluation" / f"{task}-seed{seed}.json") for seed in seeds}
    per_seed = [_seed(run, task, seed, e) for seed, e in episodes.items()]
    return pooled({name: outcomes(episodes.values(), name) for name in ("bc", improved)}, per_seed)


def _seed(run: Run, task: str, seed: int, episodes: Json) -> Json:
    """One task and seed.

    Args:
        run: whose it is.
        task: the task.
        seed: the seed.
        episodes: what its evaluation says.
    """
    improved, update = run.study.improved, run.task(seed, task, "ppo").results
    return {
        "seed": seed,
        **{name: episodes[name]["successes"] / episodes[name]["n"] for name in ("bc", improved)},
        "difference": estimate(paired_difference(episodes[improved]["success"], episodes["bc"]["success"])),
        **{f"imagined_{name}": update["imagined"][name]["success"] for name in ("bc", improved)},
        "iterations": update["iterations"],
        "kept": update.get("kept"),
        "stop_reason": update["stop_reason"],
        "curve": update["curve"],
        "classifier": run.task(seed, task, "success").results["held_out"],
    }


def outcomes(episodes: Iterable[Mapping[str, Any]], policy: str) -> np.ndarray:
    """Outcomes of a policy's episodes over some seeds' evaluations, laid end to end, [n] bool."""
    return np.concatenate([np.array(e[policy]["success"], bool) for e in episodes])


def pooled(found: Mapping[str, np.ndarray], per_seed: Sequence[Json]) -> Json:
    """What is said of a task.

    Args:
        found: outcomes [n] of BC and of the improved policy, in this order, from the same start states.
        per_seed: what is said of each seed.
    """
    bc, improved = found
    return {
        "n": len(found[bc]),
        **{name: _rate(outcomes) for name, outcomes in found.items()},
        "difference": estimate(paired_difference(found[improved], found[bc])),
        "imagined": {name: float(np.mean([s[f"imagined_{name}"] for s in per_seed])) for name in found},
        "per_seed": list(per_seed),
    }


def _rate(outcomes: np.ndarray) -> Json:
    rate = success_rate(outcomes)
    return {"successes": int(outcomes.sum()), "rate": rate.value, "interval": list(rate.interval)}


def estimate(value: Estimate) -> Json:
    """An estimate as a summary has it; an interval that says nothing is null."""
    return {"value": value.value, "interval": list(value.interval) if value.interval.known else None}


def over_tasks(tasks: Mapping[str, Json]) -> Json:
    """Means over the tasks, with intervals from the tasks' intervals."""

    def mean(key: str, value: str) -> Json:
        return estimate(average([estimate_of(task[key], value) for task in tasks.values()]))

    policies = list(next(iter(tasks.values()))["imagined"])
    return {
        **{name: mean(name, "rate") for name in policies},
        "difference": mean("difference", "value"),
        "imagined": {name: float(np.mean([t["imagined"][name] for t in tasks.values()])) for name in policies},
    }


def _world_model(results: Sequence[Json], losses: Sequence[str]) -> Json:
    """Fidelity, averaged over the seeds."""
    found: Json = {"losses": list(losses), "per_seed": list(results)}
    for score in ("psnr", "ssim"):
        cameras = (results[0].get(score) or {}) if results else {}
        found[score] = {c: np.mean([r[score][c] for r in results], axis=0).tolist() for c in cameras}
    return found


def _seconds(artefact: Artefact) -> float:
    """Wall time of a stage, as its manifest has it, wherever it was made."""
    return float(read_json(artefact.path / "manifest.json")["seconds"])


def commits(run: Run) -> Json:
    """The commit that a run began with, and where it is another one, that of what summarises it."""
    made, here = read_json(run.folder / "env.json")["commit"], commit()
    return {"commit": made} | ({"summarised_by": here} if here != made else {})


def since_start(run: Run) -> int:
    """Wall time since the run began, pauses included."""
    started = time.mktime(time.strptime(read_json(run.folder / "env.json")["started"][:19], "%Y-%m-%dT%H:%M:%S"))
    return round(time.time() - started)

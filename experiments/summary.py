"""The verdict for machines: summary.json, from the artefacts of all tasks and seeds. Schema: experiments/report.py."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reuse import told
from experiments.run import Run, commit, learns, settings_of
from experiments.statistics import Estimate, average, paired_difference, success_rate
from worldaction.artefact import read_json, write_json

Json = dict[str, Any]


def summarise(run: Run) -> Json:
    """Read the artefacts of a run, write summary.json and return it."""
    study = run.study
    seeds = list(study.seeds)
    summary: Json = {
        "preset": study.preset,
        "seeds": seeds,
        "settings": settings_of(study),
        "commit": commit(),
        "renderer": run.play().results["renderer"],
        "play": run.play().results,
        "seconds": _since_start(run),
        "stage_seconds": _stage_seconds(run),
        "reused": told(run.folder, run.borrowed()),
        "world_model": _world_model([run.fidelity(seed).results for seed in seeds], study.losses),
    }
    if learns(study):
        summary["tasks"] = {task: _task(run, task) for task in study.tasks}
        summary["average"] = _average(summary["tasks"])
    write_json(run.folder / "summary.json", summary)
    return summary


def _task(run: Run, task: str) -> Json:
    """One task over all seeds."""
    episodes = {seed: read_json(run.folder / "evaluation" / f"{task}-seed{seed}.json") for seed in run.study.seeds}
    outcomes = {
        name: np.concatenate([np.array(e[name]["success"], bool) for e in episodes.values()]) for name in ("bc", "ppo")
    }
    tuned = {seed: run.task(seed, task, "ppo").results for seed in run.study.seeds}
    per_seed = [
        {
            "seed": seed,
            "bc": e["bc"]["successes"] / e["bc"]["n"],
            "ppo": e["ppo"]["successes"] / e["ppo"]["n"],
            "difference": _estimate(paired_difference(e["ppo"]["success"], e["bc"]["success"])),
            "imagined_bc": tuned[seed]["imagined"]["bc"]["success"],
            "imagined_ppo": tuned[seed]["imagined"]["ppo"]["success"],
            "iterations": tuned[seed]["iterations"],
            "stop_reason": tuned[seed]["stop_reason"],
            "curve": tuned[seed]["curve"],
            "classifier": run.task(seed, task, "success").results["held_out"],
        }
        for seed, e in episodes.items()
    ]
    return {
        "n": len(outcomes["bc"]),
        "bc": _rate(outcomes["bc"]),
        "ppo": _rate(outcomes["ppo"]),
        "difference": _estimate(paired_difference(outcomes["ppo"], outcomes["bc"])),
        "imagined": {name: float(np.mean([s[f"imagined_{name}"] for s in per_seed])) for name in ("bc", "ppo")},
        "per_seed": per_seed,
    }


def _rate(outcomes: np.ndarray) -> Json:
    estimate = success_rate(outcomes)
    return {"successes": int(outcomes.sum()), "rate": estimate.value, "interval": list(estimate.interval)}


def _estimate(estimate: Estimate) -> Json:
    return {"value": estimate.value, "interval": list(estimate.interval)}


def _average(tasks: Mapping[str, Json]) -> Json:
    """Means over the tasks, with intervals from the tasks' intervals."""

    def mean(key: str, value: str) -> Estimate:
        return average([Estimate(t[key][value], _interval(t[key])) for t in tasks.values()])

    return {
        "bc": _estimate(mean("bc", "rate")),
        "ppo": _estimate(mean("ppo", "rate")),
        "difference": _estimate(mean("difference", "value")),
        "imagined": {name: float(np.mean([t["imagined"][name] for t in tasks.values()])) for name in ("bc", "ppo")},
    }


def _interval(value: Json) -> Any:
    from experiments.statistics import Interval

    return Interval(*value["interval"])


def _world_model(results: Sequence[Json], losses: Sequence[str]) -> Json:
    """Fidelity, averaged over the seeds."""
    found: Json = {"losses": list(losses), "per_seed": list(results)}
    for score in ("psnr", "ssim"):
        cameras = results[0].get(score) or {}
        found[score] = {c: np.mean([r[score][c] for r in results], axis=0).tolist() for c in cameras}
    return found


def _stage_seconds(run: Run) -> Json:
    """Wall time of each stage, as its manifest has it."""
    root = run.folder / "artefacts"
    return {str(p.parent.relative_to(root)): read_json(p)["seconds"] for p in sorted(root.rglob("manifest.json"))}


def _since_start(run: Run) -> int:
    """Wall time since the run began, pauses included."""
    started = time.mktime(time.strptime(read_json(run.folder / "env.json")["started"][:19], "%Y-%m-%dT%H:%M:%S"))
    return round(time.time() - started)

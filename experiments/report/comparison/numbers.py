"""The arms of a study in numbers: summary.json of the study, from the summaries and outcomes in its arms' folders.

    {"arms": {name: {"folder", "losses": [specification],
                     "changes": {setting: value},                    those that differ between any two arms
                     "tasks": {task: as in a run's summary, over the seeds that all arms have finished},
                     "average": as in a run's summary,
                     "iqm"?: {policy: {"value", "interval"}},        over seeds x tasks; with two seeds or more
                     "world_model": {"psnr": {camera: [by horizon]}, "probes": {place: mean score},
                                     "tcp_error": {place: mm, median}},       means over the seeds
                     "seconds": {"world_model", "policies"},         of one seed; of one task of it
                     "against_first"?: {"tasks": {task: {policy: {"value", "interval"}}},   paired by start state
                                        "average": {policy: {"value", "interval"}},
                                        "over_seeds"?: {policy: {"value", "interval"}},     seeds drawn anew
                                        "improvement"?: {policy: {"value", "interval"}}}}},  P(better than the first)
     "improved", "seeds", "tasks_compared", "settings", "commit", "summarised_by"?: commit, "seconds", "preset",
     "unfinished"?: {arm: stages that are left}, "jurors"?: as in a run's summary}

Rates and intervals are as in a run's summary. The policies are bc and what `improved` says: the name of the update, or
"improved" where arms have different ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.report.outcomes import Outcomes
from experiments.report.statistics import average, probability_of_improvement, seed_bootstrap
from experiments.report.summary import commits, estimate, over_tasks, pooled, since_start
from experiments.report.table import ANY_UPDATE
from experiments.study.arms import differences
from experiments.study.checks import JUDGED
from experiments.study.run import Run, settings_of
from experiments.study.sessions import worked_seconds
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json

Json = dict[str, Any]
KEPT = ("seed", "difference", "iterations", "stop_reason")
"""What is said of a seed as a run's summary says it, beside success in the simulator and in dreams."""


@dataclass(frozen=True)
class Found:
    """What lies in the folder of an arm."""

    run: Run
    summary: Json
    episodes: Mapping[tuple[str, int], Json]
    """Evaluations by task and seed."""
    policies: Mapping[str, str]
    """What the comparison calls BC and the improved policy, and what the arm does."""

    @classmethod
    def read(cls, run: Run, improved: str) -> Found:
        """Nothing yet, if there is no summary.

        Args:
            run: the arm.
            improved: what the comparison calls its improved policy.
        """
        path = run.folder / "summary.json"
        summary: Json = read_json(path) if path.exists() else {}
        cells = [(name, s["seed"]) for name, task in (summary.get("tasks") or {}).items() for s in task["per_seed"]]
        where = run.folder / "evaluation"
        episodes = {(task, seed): read_json(where / f"{task}-seed{seed}.json") for task, seed in cells}
        return cls(run, summary, episodes, {"bc": "bc", improved: run.study.improved})

    @property
    def unfinished(self) -> int:
        """How many stages are still to be done."""
        return len(self.summary.get("unfinished") or ()) if self.summary else len(self.run.artefacts())

    def outcomes(self, task: str, seeds: Sequence[int]) -> Outcomes:
        """Of a task's episodes over some seeds."""
        return Outcomes.read([self.episodes[task, seed] for seed in seeds], self.policies)

    def task(self, task: str, seeds: Sequence[int]) -> Json:
        """A task over some seeds."""
        per_seed = [s for s in self.summary["tasks"][task]["per_seed"] if s["seed"] in seeds]
        within = self.run.study.evaluation.within
        return pooled(self.outcomes(task, seeds), within, [self._seed(s) for s in per_seed])

    def _seed(self, seed: Json) -> Json:
        rates = {policy: seed[own] for policy, own in self.policies.items()}
        imagined = {f"imagined_{policy}": seed[f"imagined_{own}"] for policy, own in self.policies.items()}
        return {**rates, **imagined, **{key: seed[key] for key in KEPT}}


def compare(run: Run) -> Json:
    """Compare the arms of a study as far as they are, write its summary.json and return it.

    Args:
        run: the study; what its arms have finished has been summarised in their folders.
    """
    summary: Json = {
        "preset": run.study.preset,
        "seeds": list(run.study.seeds),
        "settings": settings_of(run.study),
        **commits(run),
        "seconds": since_start(run),
        "worked_seconds": worked_seconds(run.folder),
        **side_by_side(run.arms(), tasks=run.study.tasks, seeds=run.study.seeds),
    }
    write_json(run.folder / "summary.json", summary)
    return summary


def side_by_side(runs: Mapping[str, Run], *, tasks: Sequence[str], seeds: Sequence[int]) -> Json:
    """The part of a comparison that is said of its arms, or of any runs that were tested alike.

    Args:
        runs: by name; what they have finished has been summarised in their folders.
        tasks: that they have in common.
        seeds: likewise.
    """
    updates = {run.study.improved for run in runs.values()}
    improved = updates.pop() if len(updates) == 1 else ANY_UPDATE
    found = {name: Found.read(run, improved) for name, run in runs.items()}
    cells = _common(list(found.values()), tasks, seeds)
    changes = differences({name: one.run.study for name, one in found.items()})
    first = next(iter(found.values()))
    arms = {name: _arm(one, cells, changes[name]) for name, one in found.items()}
    for name, one in found.items():
        if one is not first and cells:
            arms[name]["against_first"] = _against(arms[name], one, next(iter(arms.values())), first, cells)
    left = {name: count for name, one in found.items() if (count := one.unfinished)}
    return {
        "improved": improved,
        "tasks_compared": {task: list(some) for task, some in cells.items()},
        "renderer": first.summary.get("renderer"),
        "arms": arms,
        **({"jurors": first.summary["jurors"]} if "jurors" in first.summary else {}),
        **({"unfinished": left} if left else {}),
    }


def _common(found: Sequence[Found], tasks: Sequence[str], seeds: Sequence[int]) -> dict[str, list[int]]:
    """Tasks, and of each the seeds, that all arms have finished."""
    cells = {task: [seed for seed in seeds if all((task, seed) in one.episodes for one in found)] for task in tasks}
    return {task: some for task, some in cells.items() if some}


def _arm(found: Found, cells: Mapping[str, Sequence[int]], changes: Json) -> Json:
    study, summary = found.run.study, found.summary
    values: Json = {
        "folder": f"{found.run.folder.parent.name}/{found.run.folder.name}",
        "losses": list(study.losses),
        "changes": changes,
        "tasks": {task: found.task(task, seeds) for task, seeds in cells.items()},
        "world_model": _world_model(summary.get("world_model") or {}),
        "seconds": _seconds(summary.get("stage_seconds") or {}),
    }
    if cells:
        values["average"] = over_tasks(values["tasks"])
    if _rectangular(cells):
        values["iqm"] = {p: estimate(seed_bootstrap(scores(values, p))) for p in found.policies}
    return values


def _rectangular(cells: Mapping[str, Sequence[int]]) -> bool:
    """Whether all tasks have the same seeds, two at least."""
    return len({tuple(seeds) for seeds in cells.values()}) == 1 and len(next(iter(cells.values()))) > 1


def scores(arm: Mapping[str, Any], policy: str) -> np.ndarray:
    """Success rates of an arm, [seeds, tasks]."""
    return np.array([[seed[policy] for seed in task["per_seed"]] for task in arm["tasks"].values()]).T


def _against(arm: Json, one: Found, base: Json, first: Found, cells: Mapping[str, Sequence[int]]) -> Json:
    policies = list(one.policies)
    pairs = {}
    for task, seeds in cells.items():
        ours, theirs = (arm.outcomes(task, seeds).policies for arm in (one, first))
        pairs[task] = {p: ours[p].over(theirs[p]) for p in policies}
    found: Json = {
        "tasks": {task: {p: estimate(pair[p]) for p in policies} for task, pair in pairs.items()},
        "average": {p: estimate(average([pair[p] for pair in pairs.values()])) for p in policies},
    }
    if _rectangular(cells):
        tables = {p: (scores(arm, p), scores(base, p)) for p in policies}
        found["over_seeds"] = {p: estimate(seed_bootstrap(x - y, np.mean)) for p, (x, y) in tables.items()}
        found["improvement"] = {p: estimate(probability_of_improvement(x, y)) for p, (x, y) in tables.items()}
    return found


def _world_model(summary: Mapping[str, Any]) -> Json:
    """Fidelity in few numbers, means over the seeds; what was not measured is left out."""
    return {"psnr": summary.get("psnr") or {}, **fidelity(summary.get("per_seed") or [])}


def fidelity(seeds: Sequence[Json]) -> Json:
    """Probes of the latents and the error of the hand by place, means over the seeds; see this module's head."""
    errors = [(s.get("tcp_error") or {}).get("probe") or {} for s in seeds]
    return {
        "probes": _by_place([{place: _score(score) for place, score in s["probes"].items()} for s in seeds]),
        "tcp_error": _by_place([{place: error["median"] for place, error in e.items()} for e in errors if e]),
    }


def _score(probes: Mapping[str, float | None]) -> float | None:
    """Mean of probes; one that is worse than none at all counts as none."""
    return mean(None if value is None else max(value, 0.0) for value in probes.values())


def _by_place(seeds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    return {place: mean(seed.get(place) for seed in seeds) for place in (seeds[0] if seeds else ())}


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _seconds(stages: Mapping[str, float]) -> Json:
    """Wall time of a world model, and of all stages of a task, wherever they were made; means."""
    models = [value for place, value in stages.items() if place.endswith("/world_model")]
    tasks: dict[str, float] = {}
    for place, value in stages.items():
        if place.count("/") == 2 and not place.rpartition("/")[2].startswith(JUDGED):
            task = place.rpartition("/")[0]
            tasks[task] = tasks.get(task, 0.0) + value
    return {"world_model": mean(models), "policies": mean(tasks.values())}

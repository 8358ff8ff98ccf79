"""The verdict for machines: summary.json, from the artefacts of all tasks and seeds. Schema: run_page.py."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.report.outcomes import Episodes, Outcomes, recorded, same_episodes
from experiments.report.statistics import (
    Estimate,
    average,
    compare_times,
    estimate_of,
    independent_difference,
    paired_difference,
)
from experiments.report.trust import trust
from experiments.study.checks import learns
from experiments.study.machine import commit
from experiments.study.run import Run, settings_of
from experiments.study.sessions import worked_seconds
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json
from worldaction.play.readers.joined import SETS
from worldaction.play.store import PlayStore

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
        "env": study.env,
        **commits(run),
        "renderer": run.play().results["renderer"],
        "play": run.play().results,
        "seconds": since_start(run),
        "worked_seconds": worked_seconds(run.study_folder),
        "stage_seconds": {place: _seconds(artefact.path) for place, artefact in artefacts.items() if artefact.complete}
        | {place: _seconds(path) for place, path in run.judgements().items()},
        "reused": run.reused(),
        "world_model": _world_model([m.results for m in map(run.fidelity, seeds) if m.complete], study.losses),
    }
    if unfinished := [place for place, artefact in artefacts.items() if not artefact.complete]:
        summary["unfinished"] = unfinished
    if study.from_run is not None:
        summary["from"] = {"run": study.from_run, **_new(run)}
    if learns(study):
        done = {task: [s for s in seeds if run.task(s, task, "evaluation").complete] for task in study.tasks}
        summary["tasks"] = {task: _task(run, task, of) for task, of in done.items() if of}
        summary["average"] = over_tasks(summary["tasks"]) if summary["tasks"] else {}
    if run.jurors() and summary["tasks"]:
        summary["jurors"] = _jurors(run, list(summary["tasks"]))
    write_json(run.folder / "summary.json", summary)
    return summary


def _new(run: Run) -> Json:
    """What a run that goes on has got beside what the one before has learned from."""
    assert run.before is not None
    sets = PlayStore.open(run.play().path / "store").meta.config[SETS][len(run.before.study.plays) :]
    return {"episodes": sum(one["episodes"] for one in sets), "steps": sum(one["frames"] for one in sets)}


def _task(run: Run, task: str, seeds: Sequence[int]) -> Json:
    """One task over some seeds."""
    names, within = {name: name for name in ("bc", run.study.improved)}, run.study.evaluation.within
    found = recorded(run.folder, task, seeds, names)
    here = found.pop("")
    return {
        **pooled(here, within, [seed_of(run, task, seed) for seed in seeds]),
        "dreamed_time": dreamed_times(here, [run.task(seed, task, "ppo").results["imagined"] for seed in seeds]),
        "judged": {name: judged(here, there, within, replays=bool(run.jurors())) for name, there in found.items()},
        **({"real": rounds} if (rounds := _rounds(run, task, seeds, here)) else {}),
    }


def _rounds(run: Run, task: str, seeds: Sequence[int], here: Outcomes) -> list[Json]:
    """What became of a task's policies when they were recorded and gone on with, from the same start states.

    Args:
        run: the run.
        task: the task.
        seeds: that have been evaluated.
        here: of the policies without real episodes.

    Returns:
        of each round: "seeds" that have been evaluated; real "episodes", "successes" and "steps" that one policy has
        had so far, the mean of these seeds; success of "bc", given the same successes, and of the improved policy, and
        their "difference"; and the "gain" of the improved policy over that without real episodes, paired.
    """
    told, sides = [], run.rounds()
    for number, side in enumerate(sides, 1):
        done = [seed for seed in seeds if side.task(seed, task, "evaluation").complete]
        if not done:
            break
        # of the same seeds in every round: another one may not have come so far
        made = [[one.recorded(seed, task).results for seed in done] for one in sides[:number]]
        had = {key: sum(fmean(of[key] for of in one) for one in made) for key in ("episodes", "successes", "steps")}
        where = run.folder / "evaluation" / side.prefix
        evaluations = [read_json(where / f"{task}-seed{seed}.json") for seed in done]
        there = Outcomes.read(evaluations, {name: name for name in here.pair})
        again, before = there.improved.shared_with(here.improved)
        rates = {name: _rate(there.policies[name], None) for name in there.pair}
        difference = _known(there.difference())
        told.append({"seeds": done, **had, **rates, "difference": difference, "gain": estimate(again.over(before))})
    return told


def _jurors(run: Run, tasks: Sequence[str]) -> Json:
    """Who judges where no simulator does, and what each says of the attempts that the policies' models learned from."""
    sides = run.jurors()
    episodes = PlayStore.open(run.play().path / "store").episodes
    return {
        "models": len(sides),
        "held_out": sum(episode.split == "validation" for episode in episodes),
        "tasks": {
            task: _together([side.task(seed, task, "success").results["verdicts"] for seed, side in sides.items()])
            for task in tasks
        },
    }


def _together(verdicts: Sequence[Json]) -> Json:
    """Verdicts of several models on the same attempts."""
    found: Json = {}
    for outcome in ("succeeded", "failed"):
        parts = [one.get(outcome, {"attempts": 0, "dreams": 0, "called": 0}) for one in verdicts]
        dreams, called = (sum(part[key] for part in parts) for key in ("dreams", "called"))
        found[outcome] = {"attempts": parts[0]["attempts"], "rate": called / dreams if dreams else None}
    return found


def seed_of(run: Run, task: str, seed: int) -> Json:
    """One task and seed."""
    evaluation = read_json(run.folder / "evaluation" / f"{task}-seed{seed}.json")
    improved, update = run.study.improved, run.task(seed, task, "ppo").results
    dreamed = _dreams_of(evaluation["sampler"], improved)
    return {
        "seed": seed,
        "sampler": evaluation["sampler"],
        "choice": evaluation.get("choice"),
        **{name: evaluation[name]["successes"] / evaluation[name]["n"] for name in ("bc", improved)},
        "difference": estimate(
            paired_difference(evaluation[improved]["success"], evaluation["bc"]["success"], evaluation["bc"]["index"])
        ),
        **{f"imagined_{name}": update["imagined"][key]["success"] for name, key in dreamed.items()},
        "unchanged": same_episodes(evaluation, improved),
        "iterations": update["iterations"],
        "kept": update.get("kept"),
        "stop_reason": update["stop_reason"],
        "curve": update["curve"],
        "action_error": evaluation.get("action_error"),
        **_held_out(run, task, seed),
    }


def _held_out(run: Run, task: str, seed: int) -> Json:
    """What the classifier, and dreams under it, say of attempts on which nothing was trained."""
    results, options = run.task(seed, task, "success").results, run.study.success
    verdicts = results["verdicts"]
    word, why = trust(verdicts, options)
    return {"classifier": results["held_out"], "verdicts": verdicts | {"trust": word, "why": why}}


def _dreams_of(sampler: str, improved: str) -> dict[str, str]:
    """What a policy's dreams are called: the clone's are those under the sampler by which it was evaluated."""
    return {"bc": "bc_deterministic" if sampler == "deterministic" else "bc", improved: improved}


def dreamed_times(here: Outcomes, imagined: Sequence[Json]) -> Json:
    """Time to success in dreams against that in the simulator, of each policy, as distributions.

    Args:
        here: of the evaluation.
        imagined: of each of its seeds, by the names of `_dreams_of`, "success_step": of each dream, 0 without success.
    """
    found: Json = {}
    for name in here.pair:
        keys = [_dreams_of(sampler, here.pair[1])[name] for sampler in here.samplers.values()]
        steps = [np.array(dreams[key]["success_step"]) for key, dreams in zip(keys, imagined, strict=True)]
        # the seeds dream in the same scenes
        scenes = np.concatenate([_scenes(dreams[key]) for key, dreams in zip(keys, imagined, strict=True)])
        real = here.policies[name]
        compared = compare_times(
            (np.concatenate(steps), scenes), (np.where(real.success, real.steps, 0), real.start), here.limit
        )
        found[name] = {
            **dict(zip(("imagined", "real"), compared.means, strict=True)),
            "difference": estimate(compared.difference),
            "distance": estimate(compared.distance),
            "at": compared.at,
        }
    return found


def _scenes(dreams: Json) -> np.ndarray:
    """In which scene each dream began: of a recording, which has few, several in each."""
    return np.array(dreams.get("scene", range(len(dreams["success_step"]))))


def pooled(found: Outcomes, within: Iterable[int], per_seed: Sequence[Json]) -> Json:
    """What is said of a task.

    Args:
        found: of its evaluation.
        within: control steps within which success is told as well; those beyond the time limit are left out.
        per_seed: what is said of each seed.
    """
    return {
        **_success(found, within),
        "limit": found.limit,
        "time": {name: found.policies[name].time() for name in found.pair},
        "samplers": {str(seed): sampler for seed, sampler in found.samplers.items()},
        "imagined": {name: float(np.mean([s[f"imagined_{name}"] for s in per_seed])) for name in found.pair},
        "judged": {},
        **_by_juror(found),
        "per_seed": list(per_seed),
    }


def _by_juror(found: Outcomes) -> Json:
    """What each juror says, and from how many first frames; nothing where a simulator judges."""
    bc, improved = (found.policies[name].by_juror() for name in found.pair)
    if not bc:
        return {}
    told = [
        {
            "juror": juror,
            "n": len(improved[juror].start),
            **{name: _rate(by[juror], None) for name, by in zip(found.pair, (bc, improved), strict=True)},
            "difference": estimate(improved[juror].over(bc[juror])),
        }
        for juror in bc
    ]
    return {"starts": len(np.unique(found.improved.start)), "per_juror": told}


def judged(here: Outcomes, there: Outcomes, within: Iterable[int], *, replays: bool = False) -> Json:
    """What another simulator says of the same policies, and by how much less they succeed in it.

    Args:
        here: of the run's own simulator.
        there: of the other one.
        within: see `pooled`.
        replays: whether jurors judge in the place of the run's own simulator. Their first frames are recorded, and none
            of the other simulator's start states: a number that both have is no start in common.

    Returns:
        as for a task; and from the start states and seeds that both simulators have, success in the run's own one as
        "shared", and success there minus that as "gap". Of replays they are over all first frames, and not paired.
    """
    if replays:
        own = {name: (here.policies[name], there.policies[name]) for name in here.pair}
        apart = {name: estimate(independent_difference(b.rate(), a.rate())) for name, (a, b) in own.items()}
        return {**_success(there, within), "shared": _shared(here, own), "gap": apart}
    pairs = {name: here.policies[name].shared_with(there.policies[name]) for name in here.pair}
    both = all(len(ours.start) for ours, _ in pairs.values())
    gaps = {name: estimate(theirs.over(ours)) if both else None for name, (ours, theirs) in pairs.items()}
    return {**_success(there, within), "shared": _shared(here, pairs) if both else None, "gap": gaps}


def _shared(here: Outcomes, pairs: Mapping[str, tuple[Episodes, Episodes]]) -> Json:
    """Success in the run's own simulator, from the start states that another one has as well."""
    bc, improved = (pairs[name][0] for name in here.pair)
    rates = {name: _rate(ours, None) for name, (ours, _) in pairs.items()}
    return {**rates, "difference": estimate(improved.over(bc))}


def _success(found: Outcomes, within: Iterable[int]) -> Json:
    """Rates and differences in one simulator, within the time limit and sooner."""
    told = sorted({steps for steps in within if steps <= found.limit})
    return {
        "n": len(found.improved.start),
        **_rates(found),
        "difference_stochastic": _known(found.over_stochastic()),
        "fair": found.fair,
        "within": {str(steps): _rates(found, steps) for steps in told},
        "oracle": _oracle(found, told),
    }


def _oracle(found: Outcomes, within: Sequence[int]) -> Json:
    """By CALVIN's own oracle, sooner and within the time limit; empty where that is what judges."""
    lenient = found.by_oracle()
    if lenient is None:
        return {}
    return {str(steps): _rates(lenient, steps) for steps in sorted({*within[:1], found.limit})}


def _rates(found: Outcomes, steps: int | None = None) -> Json:
    """Of BC under both samplers and the improved policy, and the difference that improving made."""
    rates = {name: None if e is None else _rate(e, steps) for name, e in found.shown.items()}
    return {**rates, "difference": _known(found.difference(steps))}


def _rate(episodes: Episodes, steps: int | None) -> Json:
    rate = episodes.rate(steps)
    return {"successes": int(episodes.within(steps).sum()), "rate": rate.value, "interval": list(rate.interval)}


def _known(value: Estimate | None) -> Json | None:
    return None if value is None else estimate(value)


def estimate(value: Estimate) -> Json:
    """An estimate as a summary has it; an interval that says nothing is null."""
    return {"value": value.value, "interval": list(value.interval) if value.interval.known else None}


def over_tasks(tasks: Mapping[str, Json]) -> Json:
    """Means over the tasks, with intervals from the tasks' intervals; null where not all tasks have a number."""
    all_of = list(tasks.values())
    policies = list(all_of[0]["imagined"])
    simulators = set.intersection(*(set(task["judged"]) for task in all_of))
    return {
        **_means(all_of),
        "limit": max(task["limit"] for task in all_of),
        "time": {name: _mean([task["time"][name] for task in all_of]) for name in policies},
        "imagined": {name: float(np.mean([task["imagined"][name] for task in all_of])) for name in policies},
        "dreamed_time": {name: _dreamed_mean([t["dreamed_time"][name] for t in all_of]) for name in policies}
        if all("dreamed_time" in task for task in all_of)
        else {},
        "judged": {name: _means([task["judged"][name] for task in all_of]) for name in sorted(simulators)},
        **_jurors_means([task["per_juror"] for task in all_of if "per_juror" in task]),
        **({"real": _mean_rounds(all_of)} if all("real" in task for task in all_of) else {}),
    }


def _jurors_means(tasks: Sequence[Sequence[Json]]) -> Json:
    """What each juror says of the average of the tasks; nothing where a simulator judges."""
    return {"per_juror": [_means(of_tasks) for of_tasks in zip(*tasks, strict=True)]} if tasks else {}


def _mean_rounds(tasks: Sequence[Json]) -> list[Json]:
    """Means over the tasks of what `_rounds` says, of the rounds that all have; of episodes the sum."""
    rounds = list(zip(*(task["real"] for task in tasks), strict=False))
    sums = ("episodes", "successes", "steps")
    return [_means(of) | {key: sum(one[key] for one in of) for key in sums} for of in rounds]


def _dreamed_mean(parts: Sequence[Json]) -> Json:
    """Means over tasks of what `dreamed_times` says of a policy."""
    plain = {key: float(np.mean([part[key] for part in parts])) for key in ("imagined", "real")}
    return plain | {
        key: estimate(average([estimate_of(part[key]) for part in parts])) for key in ("difference", "distance")
    }


def _means(parts: Sequence[Json]) -> Json:
    """Means of estimates, and of what stands in mappings of them, by the names that all parts have."""
    found: Json = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        if name == "fair":
            found[name] = all(values)
        elif any(value is None for value in values):
            found[name] = None
        elif name in ("gap", "shared"):
            found[name] = _means(values)
        elif name in ("within", "oracle"):
            found[name] = _within(values)
        elif isinstance(first, dict) and "interval" in first:
            key = "rate" if "rate" in first else "value"
            found[name] = estimate(average([estimate_of(value, key) for value in values]))
    return found


def _within(parts: Sequence[Json]) -> Json:
    return {steps: _means([part[steps] for part in parts]) for steps in parts[0] if all(steps in p for p in parts)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _world_model(results: Sequence[Json], losses: Sequence[str]) -> Json:
    """Fidelity, averaged over the seeds."""
    found: Json = {"losses": list(losses), "per_seed": list(results)}
    for score in ("psnr", "ssim"):
        cameras = (results[0].get(score) or {}) if results else {}
        found[score] = {c: np.mean([r[score][c] for r in results], axis=0).tolist() for c in cameras}
    moving = [r["moving"] for r in results if r.get("moving")]
    found["moving"] = {c: _each([one[c] for one in moving]) for c in (moving[0] if moving else {})}
    return found


def _each(seeds: Sequence[Mapping[str, Sequence[float | None]]]) -> Json:
    """Lists by name, averaged over the seeds; null where nothing moved in one of them."""
    return {name: [_mean(at) for at in zip(*(seed[name] for seed in seeds), strict=True)] for name in seeds[0]}


def _seconds(stage: Path) -> float:
    """Wall time of a stage, as the manifest in its folder has it, wherever it was made."""
    return float(read_json(stage / "manifest.json")["seconds"])


def commits(run: Run) -> Json:
    """The commit that a run began with, and where it is another one, that of what summarises it."""
    made, here = read_json(run.folder / "env.json")["commit"], commit()
    return {"commit": made} | ({"summarised_by": here} if here != made else {})


def since_start(run: Run) -> int:
    """Wall time since the run began, pauses included."""
    started = time.mktime(time.strptime(read_json(run.folder / "env.json")["started"][:19], "%Y-%m-%dT%H:%M:%S"))
    # the wall's clock may have been set back meanwhile
    return max(round(time.time() - started), round(worked_seconds(run.folder) or 0))

"""What a summary says, in words: the sentence at the head of a report, and the warnings beside it.

The summary is that of `experiments/report/pages/run_page.py`, as plain JSON values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.report.recorded.jurors import asked, jurors_of, weight, where_of
from experiments.report.recorded.jurors import warnings as warnings_of_jurors
from experiments.report.statistics import Estimate, average, estimate_of
from experiments.report.table import label, percent, points, span, words
from experiments.report.trust import left_as_cloned, trust_of

FEW = 20
"""Episodes a task below which nothing can be concluded."""
WIDE_GAP = 0.15
"""Imagined minus real success, either way, from which dreams are not to be trusted."""
TIME_TO_SPARE = 1.5
"""How much longer than the first step limit a time limit has to be, so that success in it is not a matter of pace."""
CLOSE = 4
"""Control steps before the time limit, one decision of the presets, from which on success is the limit's."""
NEAR_ZERO = 0.05
"""Success in dreams up to which there is next to nothing to learn from."""
STOPS = {
    "max_imagined": "nearly all dreams succeed, nothing is left to learn from them",
    "max_divergence": "the policy had moved too far from the cloned one",
    "min_time": "dreams succeeded too fast to be believed",
    "fell": "the last iteration dreamed worse than the one before",
    "no_go": "dreams were a no-go",
}
"""What the rules that end an update say, in words."""
NOT_TRAINED = f"{STOPS['no_go']}, so its policy is the cloned one"

Summary = Mapping[str, Any]


def improved_of(summary: Summary) -> str:
    """What a summary calls the improved policy, by its update; "ppo" in those that do not say so."""
    name: str = summary.get("improved", "ppo")
    return name


class Comparison(NamedTuple):
    """BC beside the improved policy on a task, or on the average of the tasks."""

    episodes: int | None
    bc: Estimate
    improved: Estimate
    difference: Estimate
    imagined_bc: float | None
    imagined_improved: float | None

    @property
    def gap(self) -> float | None:
        """By how much dreams of the improved policy succeed more often than the simulator."""
        return None if self.imagined_improved is None else self.imagined_improved - self.improved.value


def comparisons(summary: Summary) -> dict[str, Comparison]:
    """The comparison on every task; none in a run of the world model alone."""
    improved = improved_of(summary)
    return {name: comparison_of(task, improved, "rate") for name, task in (summary.get("tasks") or {}).items()}


def comparison_of(values: Mapping[str, Any], improved: str, key: str) -> Comparison:
    """What a summary says of a task, or of the average of the tasks.

    Args:
        values: of the summary.
        improved: what it calls the improved policy.
        key: of its numbers: "rate" in a task, "value" in the average.
    """
    imagined = values.get("imagined") or {}
    bc, other = (estimate_of(values[policy], key) for policy in ("bc", improved))
    difference = estimate_of(values["difference"])
    return Comparison(values.get("n"), bc, other, difference, imagined.get("bc"), imagined.get(improved))


def overall(summary: Summary) -> Comparison:
    """The comparison on the average of the tasks, of which there is at least one.

    The stored difference comes first; everything else follows from the tasks, which are independent.
    """
    tasks = list(comparisons(summary).values())
    kept = (summary.get("average") or {}).get("difference")
    return Comparison(
        None,
        average([task.bc for task in tasks]),
        average([task.improved for task in tasks]),
        estimate_of(kept) if kept else average([task.difference for task in tasks]),
        _mean([task.imagined_bc for task in tasks]),
        _mean([task.imagined_improved for task in tasks]),
    )


def verdict(summary: Summary) -> str:
    """The result of a study in plain sentences: what changed, by how much, and whether it is skill, speed or noise."""
    if not summary.get("tasks"):
        return _world_model_verdict(summary)
    tasks, said = summary["tasks"], _SAY[effect(summary)](summary)
    of = f"{'the ' if len(tasks) > 1 else ''}{scope(tasks)}."
    if jurors_of(summary):
        return f"{asked(summary)} {said} {weight(summary, told_of(summary))} Seen on {of}"
    return f"{said} Measured on {of}"


def effect(summary: Summary) -> str:
    """What improving the policy changed, in a word.

    "skill": it succeeds more often than the better clone within a time limit that leaves time; "raised": so it does,
    but skill cannot be told from speed, for want of a step limit far enough before the time limit, or from less noise,
    for want of the clone's other sampler; "lowered"; "speed": more often within the first step limit only; "noise":
    more often only than the clone under its stochastic sampler, not than the clone under its better one; "nothing": no
    update changed the policy for the better; "unclear": none of them. What jurors saw is never called skill.

    Args:
        summary: with one evaluated task at least.
    """
    difference, told = overall(summary).difference, told_of(summary)
    if difference.interval.low > 0:
        skill = _leaves_time(told) and told.get("fair", True) and not jurors_of(summary)
        return "skill" if skill else "raised"
    if difference.interval.high < 0:
        return "lowered"
    if _learned_nothing(summary):
        return "nothing"
    if (steps := sooner(told)) and estimate_of(told["within"][steps]["difference"]).interval.low > 0:
        return "speed"
    noise = told.get("difference_stochastic")
    return "noise" if noise and estimate_of(noise).interval.low > 0 else "unclear"


def step_limits(told: Summary) -> list[str]:
    """Control steps of `within`, as a summary names them, without those so close to the time limit that they say it."""
    return [steps for steps in told.get("within") or {} if int(steps) <= told["limit"] - CLOSE]


def sooner(told: Summary) -> str:
    """The first step limit before the time limit, as a summary names it; empty if there is none."""
    return next(iter(step_limits(told)), "")


def _leaves_time(told: Summary) -> bool:
    """Whether the time limit is so far beyond the first step limit that who is merely late succeeds, too."""
    steps = sooner(told)
    return bool(steps) and told["limit"] >= TIME_TO_SPARE * int(steps)


def _changed(doing: str, *, mark: str = "", after: str = "") -> Callable[[Summary], str]:
    def say(summary: Summary) -> str:
        told = told_of(summary)
        limit = f" within {told['limit']} steps" if "limit" in told else ""
        who, result = label(improved_of(summary)), overall(summary)
        rates = f"{_from_to(result)}{limit} {_by(result.difference)}"
        return f"{who} in imagination {doing} {where_of(summary)}{mark} {rates}{after}."

    return say


def _speed(summary: Summary) -> str:
    told, improved = told_of(summary), improved_of(summary)
    steps, key = sooner(told), "value" if len(summary["tasks"]) > 1 else "rate"
    early = comparison_of(told["within"][steps], improved, key)
    whole = overall(summary)
    return (
        f"{label(improved)} in imagination made success {where_of(summary)} come sooner, not more often: speed"
        f"{'' if jurors_of(summary) else ', not skill'}."
        f" Within {steps} steps it rises {_from_to(early)} {_by(early.difference)}, within {told['limit']} there is no"
        f" clear effect: {_from_to(whole)} {_by(whole.difference)}."
    )


def _noise(summary: Summary) -> str:
    told, whole = told_of(summary), overall(summary)
    return (
        f"{label(improved_of(summary))} in imagination took noise out of the policy: less noise"
        f"{'' if jurors_of(summary) else ', not skill'}."
        f" {_capital(where_of(summary))} it succeeds more often than the clone under its stochastic sampler"
        f" {_by(estimate_of(told['difference_stochastic']))}, but not than the clone under its better one:"
        f" {_from_to(whole)} within {told['limit']} steps {_by(whole.difference)}."
    )


def _nothing(summary: Summary) -> str:
    reasons = _learned_nothing(summary)
    result = overall(summary)
    what = "was not trained" if reasons == [NOT_TRAINED] else "learned nothing"
    return (
        f"{label(improved_of(summary))} in imagination {what}: {'; '.join(reasons)}."
        f" {_capital(where_of(summary))} success goes"
        f" {_from_to(result)} {_by(result.difference)}."
    )


_SAY: Mapping[str, Callable[[Summary], str]] = {
    "skill": _changed("raised success", after=": skill, not only speed"),
    "raised": _changed("raised success", mark=":"),
    "lowered": _changed("lowered success", mark=":"),
    "unclear": _changed("shows no clear effect on success", mark=":"),
    "speed": _speed,
    "noise": _noise,
    "nothing": _nothing,
}
"""What is said of each effect."""


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _from_to(result: Comparison) -> str:
    return f"from {percent(result.bc.value)} to {percent(result.improved.value)}"


def _by(difference: Estimate) -> str:
    low, high = difference.interval
    return f"({points(difference.value)} points, 95 % interval {points(low)} to {points(high)})"


def told_of(summary: Summary) -> Summary:
    """What a summary says of the average of its tasks, or of the only one."""
    tasks = summary["tasks"]
    told: Summary = (summary.get("average") or {}) if len(tasks) > 1 else next(iter(tasks.values()))
    return told


# --- warnings ---------------------------------------------------------------------------------------------------------


def warnings(summary: Summary) -> list[str]:
    """What a careful reader would want to be told beside the verdict."""
    return [
        *_of_origin(summary),
        *_of_numbers(summary),
        *_of_held_out(summary),
        *warnings_of_jurors(summary),
        *_of_dreams(summary),
        *_of_transfer(summary),
        *_of_pictures(summary),
    ]


def _of_origin(summary: Summary) -> list[str]:
    """Of a run that goes on: from which one, and with how much that is new."""
    found = summary.get("from")
    if not found:
        return []
    return [
        f"World models, success classifiers and BC go on from those of {found['run']}, on what they have learned from"
        f" and {found['episodes']} new real episodes of {found['steps']} steps."
    ]


def _of_numbers(summary: Summary) -> list[str]:
    tasks, notes = comparisons(summary), []
    # of replays, first frames count, see `recorded/jurors.py`
    if tasks and not jurors_of(summary) and min(task.episodes or 0 for task in tasks.values()) < FEW:
        notes.append(f"Fewer than {FEW} episodes a task: this run shows that everything works, not how well.")
    worse = [words(name) for name, task in tasks.items() if task.difference.interval.high < 0]
    if worse:
        notes.append(f"{label(improved_of(summary))} made it worse on {', '.join(worse)}.")
    return notes


def _of_held_out(summary: Summary) -> list[str]:
    """Dreams that call held-out attempts what they were not, and dreams of which nobody knows."""
    notes, who = [], label(improved_of(summary))
    for name, task in (summary.get("tasks") or {}).items():
        for seed in task.get("per_seed", []):
            if "verdicts" not in seed:
                continue
            word, why = trust_of(seed["verdicts"])
            stopped = left_as_cloned(seed)
            if stopped and word != "no-go":
                # by the rule of an older version, which is told as it was
                word, why = "no-go", list(seed["verdicts"].get("no_go") or why)
            which = words(name) if len(task["per_seed"]) == 1 else f"{words(name)}, seed {seed['seed']}"
            trained = "not trained" if stopped else "trained all the same"
            said = {
                "no-go": f"No-go for dreams of {which}, in which {who} was {trained}",
                "with care": f"Dreams of {which} are to be taken with care",
                "not known": f"How true dreams of {which} are is not known",
            }
            if word in said:
                notes.append(f"{said[word]}: {'; '.join(why)}.")
    return notes


def _of_dreams(summary: Summary) -> list[str]:
    """Dreams that promise too much or too little, and updates that learned nothing from them."""
    gaps = {name: task.gap for name, task in comparisons(summary).items() if task.gap is not None}
    notes = []
    for sign, how in ((1, "more"), (-1, "less")):
        if wide := [f"{words(name)} ({points(gap)})" for name, gap in gaps.items() if sign * gap > WIDE_GAP]:
            notes.append(
                f"Dreams of the final policy succeed {how} often than"
                f" {'jurors see' if jurors_of(summary) else 'the simulator'}, in points: {', '.join(wide)}."
            )
    if idle := {} if _learned_nothing(summary) else _idle(summary):
        which = [f"{words(name)} ({'; '.join(why)})" for name, why in idle.items()]
        notes.append(f"{label(improved_of(summary))} learned nothing on {', '.join(which)}.")
    return notes


def _of_transfer(summary: Summary) -> list[str]:
    """Success that is clearly lower in another simulator."""
    lost: dict[str, list[str]] = {}
    for name, task in (summary.get("tasks") or {}).items():
        for env, found in (task.get("judged") or {}).items():
            gaps = {policy: estimate_of(gap) for policy, gap in found["gap"].items() if gap}
            if clear := [f"{label(p)} {points(gap.value)}" for p, gap in gaps.items() if gap.interval.high < 0]:
                lost.setdefault(env, []).append(f"{words(name)} ({', '.join(clear)})")
    loses = "Less success than jurors saw" if jurors_of(summary) else "Transfer loses success"
    return [f"{loses} in {env}, in points, on {', '.join(tasks)}." for env, tasks in lost.items()]


def _of_pictures(summary: Summary) -> list[str]:
    """World models that draw what moves no better than pictures that need no model; see docs/metrics.md."""
    seeds = [s["moving"] for s in (summary.get("world_model") or {}).get("per_seed") or [] if s.get("moving")]
    poor = []
    for camera in seeds[0] if seeds else ():
        scores = [{name: _mean_of_known(values) for name, values in seed[camera].items()} for seed in seeds]
        bad = [s for s in scores if not math.isnan(s["model"]) and s["model"] <= max(s["still"], s["average"])]
        if bad:
            some = f" in {len(bad)} of {len(seeds)} seeds" if len(seeds) > 1 else ""
            dB = ", ".join(f"{bad[0][key]:.1f} {name}" for key, name in _GUESSES.items())
            poor.append(f"{words(camera)}{some} ({bad[0]['model']:.1f} dB; {dB})")
    if not poor:
        return []
    return [f"Where something moves, the world model draws no better than a picture without one: {', '.join(poor)}."]


_GUESSES = {"still": "the last frame seen", "average": "the average frame"}


def _mean_of_known(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _learned_nothing(summary: Summary) -> list[str]:
    """Why the update taught nothing in any seed of any task; empty where it did in one."""
    seeds = [seed for task in (summary.get("tasks") or {}).values() for seed in task.get("per_seed", [])]
    reasons = [_idle_seed(seed, improved_of(summary)) for seed in seeds]
    return list(dict.fromkeys(reasons)) if all(reasons) else []


def _idle(summary: Summary) -> dict[str, list[str]]:
    """Tasks of which the update taught nothing in a seed, and why."""
    found: dict[str, list[str]] = {}
    for name, task in (summary.get("tasks") or {}).items():
        for seed in task.get("per_seed", []):
            # of a no-go its own note is told
            if (why := _idle_seed(seed, improved_of(summary))) and why != NOT_TRAINED:
                found.setdefault(name, []).append(why if len(task["per_seed"]) == 1 else f"seed {seed['seed']}: {why}")
    return found


def _idle_seed(seed: Mapping[str, Any], improved: str) -> str:
    """Why the update taught a seed's policy nothing; empty where it did."""
    if left_as_cloned(seed):
        return NOT_TRAINED
    before, after = seed.get("imagined_bc"), seed.get(f"imagined_{improved}")
    if before is not None and after is not None and max(before, after) <= NEAR_ZERO:
        return f"its dreams stayed near 0 % ({percent(before)}, then {percent(after)}), with no success to learn from"
    if kept_of(seed) == 0:
        return f"it ended before its first step ({STOPS.get(seed.get('stop_reason') or '', 'no iteration was kept')})"
    return "its episodes are those of the clone, step for step" if seed.get("unchanged") else ""


def kept_of(seed: Mapping[str, Any]) -> int | None:
    """Iterations of learning behind a seed's policy."""
    kept, iterations = seed.get("kept"), seed.get("iterations")
    if kept is not None or iterations is None:
        return kept
    # runs that do not say so learned in their last iteration, too, if no rule ended them
    not_in_it = {"max_imagined": 1, "max_divergence": 2, "min_time": 2, "fell": 2}
    return max(int(iterations) - not_in_it.get(seed.get("stop_reason") or "", 0), 0)


# --- parts ------------------------------------------------------------------------------------------------------------


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is unknown: an average over fewer tasks would be compared with one over all."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def scope(tasks: Mapping[str, Any]) -> str:
    """What a verdict speaks of: tasks, episodes of each, seeds."""
    # those that were evaluated: a run that was interrupted has others
    seeds = [len(task["per_seed"]) for task in tasks.values()]
    what = words(next(iter(tasks))) if len(tasks) == 1 else f"average of {len(tasks)} tasks"
    episodes = f"{span(task['n'] for task in tasks.values())} episodes each"
    if all("starts" in task for task in tasks.values()):
        starts = span(task["starts"] for task in tasks.values())
        episodes = f"{episodes.replace('episodes', 'replays')}, from {starts} first frames"
    return f"{what}, {episodes}, {span(seeds)} seed{'s' if max(seeds) > 1 else ''}"


def _world_model_verdict(summary: Summary) -> str:
    psnr = (summary.get("world_model") or {}).get("psnr") or {}
    said = [f"{camera} {v[0]:.1f} dB one frame ahead, {v[-1]:.1f} dB {len(v)} ahead" for camera, v in psnr.items() if v]
    if not said:
        return "World model only: no policy was evaluated in this run."
    return f"World model only, no policy was evaluated. Open loop: {'; '.join(said)}."

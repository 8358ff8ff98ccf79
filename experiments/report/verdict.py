"""What a summary says, in words: the sentence at the head of a report, the warnings beside it, the closing table.

The summary is that of `experiments/report/run_page.py`, as plain JSON values.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.report.statistics import UNKNOWN, Estimate, Interval, average
from experiments.report.table import Table, change, percent, points, rate, shares, words

FEW = 20
"""Episodes a task below which nothing can be concluded."""
WIDE_GAP = 0.15
"""Imagined minus real success from which a policy may have learned to please the model."""

ANY_UPDATE = "improved"
"""What the improved policies of a comparison are called, where its arms have different updates."""

Summary = Mapping[str, Any]


def improved_of(summary: Summary) -> str:
    """What a summary calls the improved policy, by its update; "ppo" in those that do not say so."""
    name: str = summary.get("improved", "ppo")
    return name


def label(policy: str) -> str:
    """A policy's name as it is read, such as BC or PPO; "improved" where arms were improved by different updates."""
    return policy if policy == ANY_UPDATE else words(policy).upper()


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
    """The result of a study in one sentence."""
    if not summary.get("tasks"):
        return _world_model_verdict(summary)
    result = overall(summary)
    low, high = result.difference.interval
    by = f"{points(result.difference.value)} points, 95 % interval {points(low)} to {points(high)}"
    effect = "raised success" if low > 0 else "lowered success" if high < 0 else "shows no clear effect on success"
    rates = f"from {percent(result.bc.value)} to {percent(result.improved.value)}"
    who = label(improved_of(summary))
    return f"{who} in imagination {effect} in the simulator: {rates} ({by}), {scope(summary['tasks'])}."


def warnings(summary: Summary) -> list[str]:
    """What a careful reader would want to be told beside the verdict."""
    tasks = comparisons(summary)
    notes = []
    if tasks and min(task.episodes or 0 for task in tasks.values()) < FEW:
        notes.append(f"Fewer than {FEW} episodes a task: this run shows that everything works, not how well.")
    worse = [words(name) for name, task in tasks.items() if task.difference.interval.high < 0]
    if worse:
        notes.append(f"{label(improved_of(summary))} made it worse on {', '.join(worse)}.")
    wide = [f"{words(name)} ({points(t.gap)})" for name, t in tasks.items() if t.gap is not None and t.gap > WIDE_GAP]
    if wide:
        notes.append(f"Dreams of the final policy succeed more often than the simulator, in points: {', '.join(wide)}.")
    return notes


def console_table(summary: Summary) -> str:
    """The closing table of a run and its verdict, for a terminal."""
    if not summary.get("tasks"):
        return verdict(summary)
    lines = result_table(summary, unit=" %").text().splitlines()
    wrapped = [line for note in (verdict(summary), *warnings(summary)) for line in textwrap.wrap(note, len(lines[1]))]
    return "\n".join([*lines, lines[1], *wrapped])


def result_table(summary: Summary, *, unit: str = "", spell: Callable[[str], str] = str) -> Table:
    """BC beside the improved policy: a row a task, and their average where there are several.

    Args:
        summary: with one evaluated task at least.
        unit: after each rate; without one it stands in the head.
        spell: how a task's name is written.
    """
    tasks = comparisons(summary)
    who, head = label(improved_of(summary)), "" if unit else " %"
    columns = ("task", "n", f"BC{head}", f"{who}{head}", f"{who} - BC, points", f"imagined BC, {who}{head}")
    total = ("average", *result_cells(overall(summary), unit)) if len(tasks) > 1 else ()
    rows = [(spell(name), *result_cells(task, unit)) for name, task in tasks.items()]
    return Table((*columns, f"imagined - real {who}"), rows, total)


def result_cells(task: Comparison, unit: str = "") -> tuple[str, ...]:
    """Episodes, both rates, their difference, rates in dreams and the gap between dreams and the simulator."""
    return (
        "" if task.episodes is None else str(task.episodes),
        rate(task.bc, unit),
        rate(task.improved, unit),
        change(task.difference),
        shares(task.imagined_bc, task.imagined_improved, unit=unit),
        points(task.gap),
    )


# --- parts ------------------------------------------------------------------------------------------------------------


def estimate_of(value: Mapping[str, Any], key: str = "value") -> Estimate:
    """An estimate of a summary.

    Args:
        value: with its interval.
        key: "rate" for the success of a task, else "value".
    """
    return Estimate(value[key], UNKNOWN if value["interval"] is None else Interval(*value["interval"]))


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is unknown: an average over fewer tasks would be compared with one over all."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def scope(tasks: Mapping[str, Any]) -> str:
    """What a verdict speaks of: tasks, episodes of each, seeds."""
    # those that were evaluated: a run that was interrupted has others
    seeds = [len(task["per_seed"]) for task in tasks.values()]
    what = words(next(iter(tasks))) if len(tasks) == 1 else f"average of {len(tasks)} tasks"
    episodes = _range(task["n"] for task in tasks.values())
    return f"{what}, {episodes} episodes each, {_range(seeds)} seed{'s' if max(seeds) > 1 else ''}"


def _range(counts: Iterable[int]) -> str:
    """One number where all are equal."""
    found = sorted(counts)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def _world_model_verdict(summary: Summary) -> str:
    psnr = (summary.get("world_model") or {}).get("psnr") or {}
    said = [f"{camera} {v[0]:.1f} dB one frame ahead, {v[-1]:.1f} dB {len(v)} ahead" for camera, v in psnr.items() if v]
    if not said:
        return "World model only: no policy was evaluated in this run."
    return f"World model only, no policy was evaluated. Open loop: {'; '.join(said)}."

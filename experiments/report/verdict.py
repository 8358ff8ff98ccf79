"""What a summary says, in words: the sentence at the head of a report, the warnings beside it, the closing table.

The summary is that of `experiments/report/run_page.py`, as plain JSON values.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.report.statistics import Estimate, Interval, average

FEW = 20
"""Episodes a task below which nothing can be concluded."""
WIDE_GAP = 0.15
"""Imagined minus real success from which a policy may have learned to please the model."""

Summary = Mapping[str, Any]


class Comparison(NamedTuple):
    """BC beside PPO on a task, or on the average of the tasks."""

    episodes: int | None
    bc: Estimate
    ppo: Estimate
    difference: Estimate
    imagined_bc: float | None
    imagined_ppo: float | None

    @property
    def gap(self) -> float | None:
        """By how much dreams of the final policy succeed more often than the simulator."""
        return None if self.imagined_ppo is None else self.imagined_ppo - self.ppo.value


def comparisons(summary: Summary) -> dict[str, Comparison]:
    """The comparison on every task; none in a run of the world model alone."""
    return {name: _comparison(task) for name, task in (summary.get("tasks") or {}).items()}


def overall(summary: Summary) -> Comparison:
    """The comparison on the average of the tasks, of which there is at least one.

    The stored difference comes first; everything else follows from the tasks, which are independent.
    """
    tasks = list(comparisons(summary).values())
    kept = (summary.get("average") or {}).get("difference")
    return Comparison(
        None,
        average([task.bc for task in tasks]),
        average([task.ppo for task in tasks]),
        _estimate(kept, "value") if kept else average([task.difference for task in tasks]),
        _mean([task.imagined_bc for task in tasks]),
        _mean([task.imagined_ppo for task in tasks]),
    )


def verdict(summary: Summary) -> str:
    """The result of a study in one sentence."""
    if not summary.get("tasks"):
        return _world_model_verdict(summary)
    result = overall(summary)
    low, high = result.difference.interval
    change = f"{100 * result.difference.value:+.0f} points, 95 % interval {100 * low:+.0f} to {100 * high:+.0f}"
    effect = "raised success" if low > 0 else "lowered success" if high < 0 else "shows no clear effect on success"
    rates = f"from {percent(result.bc.value)} to {percent(result.ppo.value)}"
    return f"PPO in imagination {effect} in the simulator: {rates} ({change}), {scope(summary['tasks'])}."


def warnings(summary: Summary) -> list[str]:
    """What a careful reader would want to be told beside the verdict."""
    tasks = comparisons(summary)
    notes = []
    if tasks and min(task.episodes or 0 for task in tasks.values()) < FEW:
        notes.append(f"Fewer than {FEW} episodes a task: this run shows that everything works, not how well.")
    worse = [words(name) for name, task in tasks.items() if task.difference.interval.high < 0]
    if worse:
        notes.append(f"PPO made it worse on {', '.join(worse)}.")
    wide = [
        f"{words(name)} ({100 * t.gap:+.0f})" for name, t in tasks.items() if t.gap is not None and t.gap > WIDE_GAP
    ]
    if wide:
        notes.append(f"Dreams of the final policy succeed more often than the simulator, in points: {', '.join(wide)}.")
    return notes


def console_table(summary: Summary) -> str:
    """The closing table of a run and its verdict, for a terminal."""
    tasks = comparisons(summary)
    if not tasks:
        return verdict(summary)
    if len(tasks) > 1:
        tasks["average"] = overall(summary)
    head = ("task", "n", "BC", "PPO", "PPO - BC", "imagined BC, PPO", "imagined - real")
    rows = [head, *(_console_row(name, task) for name, task in tasks.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "-" * max(map(len, lines))
    notes = [verdict(summary), *warnings(summary)]
    wrapped = [line for note in notes for line in textwrap.wrap(note, max(len(rule), 60))]
    return "\n".join([lines[0], rule, *lines[1:], rule, *wrapped])


# --- words ------------------------------------------------------------------------------------------------------------


def percent(value: float | None, unit: str = " %") -> str:
    """A share as whole per cent, or a dash."""
    return "-" if value is None else f"{100 * value:.0f}{unit}"


def points(value: float | None) -> str:
    """A difference of shares as whole percentage points, or a dash."""
    return "-" if value is None else f"{100 * value:+.0f}"


def bracket(estimate: Estimate, sign: str = "") -> str:
    """An interval of shares in per cent; sign "+" for differences."""
    return "[" + ", ".join(f"{100 * end:{sign}.0f}" for end in estimate.interval) + "]"


def words(name: str) -> str:
    """A task's or metric's name as it is read."""
    return name.replace("_", " ")


# --- parts ------------------------------------------------------------------------------------------------------------


def _comparison(task: Mapping[str, Any]) -> Comparison:
    imagined = task.get("imagined") or {}
    return Comparison(
        task["n"],
        _estimate(task["bc"], "rate"),
        _estimate(task["ppo"], "rate"),
        _estimate(task["difference"], "value"),
        imagined.get("bc"),
        imagined.get("ppo"),
    )


def _estimate(value: Mapping[str, Any], key: str) -> Estimate:
    return Estimate(value[key], Interval(*value["interval"]))


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is unknown: an average over fewer tasks would be compared with one over all."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _console_row(name: str, task: Comparison) -> tuple[str, ...]:
    return (
        name,
        "" if task.episodes is None else str(task.episodes),
        f"{percent(task.bc.value)} {bracket(task.bc)}",
        f"{percent(task.ppo.value)} {bracket(task.ppo)}",
        f"{points(task.difference.value)} {bracket(task.difference, '+')}",
        f"{percent(task.imagined_bc)}, {percent(task.imagined_ppo)}",
        points(task.gap),
    )


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

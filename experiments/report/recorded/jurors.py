"""Who says what succeeds where no simulator does: jurors, the words for them, and what their word is worth.

The summary is that of `experiments/report/pages/run_page.py`, as plain JSON values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments.report.statistics import Estimate, estimate_of
from experiments.report.table import Table, change, label, percent, points, rate, span, words

Summary = Mapping[str, Any]

FEW = 20
"""First frames a task below which what jurors see hangs on the luck of these."""
TELL_APART = 0.5
"""By how much more often jurors have to see success in recorded successes than in failures."""
FAR_APART = 0.15
"""Difference between two jurors' rates of a policy, or of a gain, from which on they do not agree."""


# Words ----------------------------------------------------------------------------------------------------------------


def jurors_of(summary: Summary) -> str:
    """Who says what succeeds where no simulator does; empty where one does."""
    jury = summary.get("jurors")
    if not jury:
        return ""
    models = "1 world model" if jury["models"] == 1 else f"{jury['models']} world models"
    return f"{models} that learned from the {jury['held_out']} held-out episodes alone"


def where_of(summary: Summary) -> str:
    """Where success is measured, as it is read after "success"."""
    jurors = jurors_of(summary)
    return f"in replays by {jurors}" if jurors else "in the simulator"


def judge_of(summary: Summary) -> str:
    """Where success is measured, in a word or two."""
    return "jurors' replays" if jurors_of(summary) else "the simulator"


def truth_of(summary: Summary) -> str:
    """What dreams are compared with."""
    return "jurors" if jurors_of(summary) else "real"


def asked(summary: Summary) -> str:
    """Who has not been asked, or which simulator has been, in a sentence; of a study of recorded data."""
    simulators = dict.fromkeys(
        env for task in (summary.get("tasks") or {}).values() for env in task.get("judged") or {}
    )
    if simulators:
        return f"No robot was asked; what {' and '.join(simulators)} says of the same policies has a table of its own."
    return "No robot and no simulator was asked."


# What their word is worth ---------------------------------------------------------------------------------------------


def few_starts(summary: Summary) -> dict[str, int]:
    """Tasks that are judged from few first frames, and from how many; replays of one frame are no new evidence."""
    found = {name: task["starts"] for name, task in _tasks(summary).items() if "starts" in task}
    return {name: count for name, count in found.items() if count < FEW}


def blind(summary: Summary) -> dict[str, str]:
    """Tasks at which jurors hardly tell recorded successes from failures, or see none, and what they see."""
    found = {}
    for name, told in ((summary.get("jurors") or {}).get("tasks") or {}).items():
        right, wrong = told["succeeded"]["rate"], told["failed"]["rate"]
        if right is not None and right - (wrong or 0.0) < TELL_APART:
            found[name] = f"{percent(right)}, {percent(wrong)} of failures"
    return found


def never_tried(summary: Summary) -> list[str]:
    """Tasks of which no failure was recorded on which jurors could be tried."""
    tasks = (summary.get("jurors") or {}).get("tasks") or {}
    return [name for name, told in tasks.items() if told["failed"]["rate"] is None]


def apart(told: Sequence[Summary], key: str) -> float:
    """The largest difference between two jurors' numbers, in [0, 2]; 0 of one juror.

    Args:
        told: what each says of a task, or of their average.
        key: a policy, or "difference".
    """
    values = [_estimate(one[key]).value for one in told]
    return max(values) - min(values) if values else 0.0


def weight(summary: Summary, told: Summary) -> str:
    """What a verdict by jurors is worth, in a sentence; empty where a simulator judges.

    Args:
        summary: with an evaluated task at least.
        told: what it says of the average of the tasks, or of the only one.
    """
    if not jurors_of(summary):
        return ""
    unable = blind(summary)
    if unable and set(unable) >= set(summary["tasks"]):
        return "Nothing follows from it: jurors hardly tell recorded successes from failures."
    doubts = list(_doubts(summary, told, unable))
    if doubts:
        return f"It is a hint at best: {'; '.join(doubts)}."
    return "Jurors agree, and tell recorded successes from failures; what they see is imagined all the same."


def _doubts(summary: Summary, told: Summary, unable: Iterable[str]) -> Iterator[str]:
    if named := [words(name) for name in unable]:
        yield f"jurors hardly tell recorded successes from failures at {', '.join(named)}"
    jurors = told.get("per_juror") or []
    if len(jurors) == 1:
        yield "there is one juror, and another one may see it otherwise"
    if apart(jurors, "difference") > FAR_APART:
        low, high = (points(end([_estimate(one["difference"]).value for one in jurors])) for end in (min, max))
        yield f"jurors do not agree on the gain, of which one sees {low} points and one {high}"
    if untried := never_tried(summary):
        yield f"no failure at {', '.join(map(words, untried))} was recorded, on which jurors could be tried"
    if few := few_starts(summary):
        yield f"it rests on {span(few.values())} first frames a task"


def warnings(summary: Summary) -> list[str]:
    """What a careful reader would want to be told beside the verdict; nothing where a simulator judges."""
    notes = []
    if few := few_starts(summary):
        told = ", ".join(f"{words(name)} ({count})" for name, count in few.items())
        notes.append(
            f"Fewer than {FEW} first frames a task: {told}. What jurors see hangs on the luck of these, however many"
            " replays there are."
        )
    if unable := blind(summary):
        told = ", ".join(f"{words(name)} ({seen})" for name, seen in unable.items())
        notes.append(f"Jurors hardly tell recorded successes from failures, and nothing follows from them: {told}.")
    if split := {name: told for name, told in _split(summary).items() if told}:
        told = ", ".join(f"{words(name)} ({seen})" for name, seen in split.items())
        notes.append(f"Jurors do not agree, in points between two of them: {told}.")
    return notes


def _split(summary: Summary) -> dict[str, str]:
    """Of each task by how much jurors differ on each policy, where that is much."""
    found = {}
    for name, task in _tasks(summary).items():
        told = task.get("per_juror") or []
        far = {policy: gap for policy in _policies(told) if (gap := apart(told, policy)) > FAR_APART}
        found[name] = ", ".join(f"{label(policy)} {percent(gap, '')}" for policy, gap in far.items())
    return found


# Their table ----------------------------------------------------------------------------------------------------------


def jurors_table(summary: Summary, *, spell: Callable[[str], str] = str) -> Table:
    """What each juror says of each policy, and how far they are apart; no rows where no juror judges.

    Args:
        summary: with one evaluated task at least.
        spell: how a task's name is written.
    """
    found = {name: task for name, task in _tasks(summary).items() if task.get("per_juror")}
    if not found:
        return Table((), ())
    bc, improved = _policies(next(iter(found.values()))["per_juror"])
    columns = ("task", "juror", "first frames", "replays", f"{label(bc)} %", f"{label(improved)} %")
    rows = [row for name, task in found.items() for row in _rows(spell(name), task)]
    mean = (summary.get("average") or {}).get("per_juror") if len(found) > 1 else None
    rows += _rows("average", {"per_juror": mean}) if mean else []
    gain = f"{label(improved)} - {label(bc)}, points"
    return Table((*columns, gain), rows, title="Juror by juror", about=_ABOUT_JURORS)


_ABOUT_JURORS = (
    "The replays of the first table by the juror that saw them: all jurors are asked about the same dreams, and a first"
    " frame is a cluster of its replays. Apart: the largest difference between two jurors, in points. What all jurors"
    " get wrong alike does not show here."
)


def _rows(name: str, task: Summary) -> list[Sequence[str]]:
    """A row a juror, and one of how far they are apart."""
    told = task["per_juror"]
    policies = _policies(told)
    rows: list[Sequence[str]] = [
        (
            name,
            str(one["juror"]) if "juror" in one else str(number),
            str(task.get("starts", "")),
            str(one.get("n", "")),
            *(rate(_estimate(one[policy])) for policy in policies),
            change(_estimate(one["difference"])),
        )
        for number, one in enumerate(told)
    ]
    gaps = (percent(apart(told, key), "") for key in (*policies, "difference"))
    return [*rows, (name, "apart", "", "", *gaps)] if len(told) > 1 else rows


# Parts ----------------------------------------------------------------------------------------------------------------


def _tasks(summary: Summary) -> Mapping[str, Summary]:
    """Those that jurors have judged."""
    return (summary.get("tasks") or {}) if summary.get("jurors") else {}


def _policies(told: Sequence[Summary]) -> tuple[str, ...]:
    """BC and the improved policy, as a summary calls them."""
    return tuple(key for key in (told[0] if told else ()) if key not in ("juror", "n", "difference"))


def _estimate(value: Summary) -> Estimate:
    """Of a task, which has rates, or of an average."""
    return estimate_of(value, "rate" if "rate" in value else "value")

"""What a study of recorded data knows of its policies, what it does not, and what a robot should test first."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from experiments.report.recorded.jurors import FEW, jurors_of
from experiments.report.table import label, percent, points, span, words
from experiments.report.trust import left_as_cloned
from experiments.report.verdict import Summary, comparisons, improved_of, overall

Json = Mapping[str, Any]


def about_recorded(summary: Summary) -> list[str]:
    """Sentences for the reader of a page on which every rate is imagined; none for other studies."""
    jury = summary.get("jurors")
    if not jury or not summary.get("tasks"):
        return []
    return [
        f"Each policy dreamed in the world model that it acts on, from the first "
        f"frames of held-out attempts, and {jurors_of(summary)} were given the same first frames and actions: rates "
        f"are shares of these replays that end in success.",
        *_starts(summary),
        _jurors_worth(jury),
        *_tasks(summary),
        "Not known: what the robot does where recording and dreams have not been; whether what looks like success is "
        "one; how long it takes to act. Replays do not answer to what a juror imagines, so they may see fewer "
        "successes than there are: compare policies by them, and do not read them as a rate.",
        _first_test(summary),
    ]


def section_html(summary: Summary) -> str:
    """The sentences as a list; empty for other studies."""
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in about_recorded(summary))
    return f"<ul>{told}</ul>" if told else ""


def _starts(summary: Summary) -> list[str]:
    """How much of what is told is evidence: first frames, and not replays."""
    starts = [task["starts"] for task in summary["tasks"].values() if "starts" in task]
    if not starts:
        return []
    few = f"; fewer than {FEW} are few" if min(starts) < FEW else ""
    return [f"All of it rests on {span(starts)} first frames a task, of which replays are no new evidence{few}."]


def _jurors_worth(jury: Json) -> str:
    """How often jurors are wrong about recorded attempts whose end is known and which they have not learned from."""
    parts = []
    for name, told in jury["tasks"].items():
        right, wrong = (told[outcome] for outcome in ("succeeded", "failed"))
        said = [f"{percent(right['rate'])} of {right['attempts']} that succeeded"] if right["attempts"] else []
        said += [f"{percent(wrong['rate'])} of {wrong['attempts']} that failed"] if wrong["attempts"] else []
        unknown = "" if wrong["attempts"] else "; none that failed was recorded: how easily they are fooled is unknown"
        parts.append(f"{words(name)}: {' and '.join(said) or 'no attempt'}{unknown}")
    return (
        "How far jurors can be trusted: replaying recorded attempts from which they have not learned, they see success "
        f"in: {', '.join(parts)}. A juror that knows nothing would see it in as many of both. The first frames of the"
        " evaluation are of attempts from which jurors have learned."
    )


def _tasks(summary: Summary) -> list[str]:
    """Of each task what its own world model's dreams are worth, and how near the clone is to who demonstrated."""
    found = []
    for name, task in summary["tasks"].items():
        seeds = task["per_seed"]
        errors = [seed["action_error"]["bc"] for seed in seeds if seed.get("action_error")]
        if errors:
            of_seeds = " to ".join(dict.fromkeys(percent(error) for error in (min(errors), max(errors))))
            found.append(
                f"{words(name)}: on held-out demonstrations an action of BC is as far from the demonstrated one as "
                f"{of_seeds} of what the average action is."
            )
    return found


def _first_test(summary: Summary) -> str:
    """What an hour on the robot should test."""
    who = label(improved_of(summary))
    trained = {name for name, told in summary["tasks"].items() if not all(map(left_as_cloned, told["per_seed"]))}
    tasks = {name: task for name, task in comparisons(summary).items() if name in trained}
    if not tasks:
        named = ", ".join(map(words, summary["tasks"]))
        return f"With one hour on the robot, test BC alone ({named}): {who} was not trained, and its policies are BC's."
    gaps = {name: abs(task.gap) for name, task in tasks.items() if task.gap is not None}
    doubtful = max(gaps, key=lambda name: gaps[name]) if gaps else next(iter(tasks))
    gap = tasks[doubtful].gap
    told = f" (own dreams and jurors are {points(gap)} points apart there)" if gap is not None else ""
    seeds = summary["tasks"][doubtful]["per_seed"]
    which = [str(seed["seed"]) for seed in seeds if not left_as_cloned(seed)]
    of = f" of seed {' or '.join(which)}, the others were not trained," if len(which) < len(seeds) else ""
    first = (
        f"With one hour on the robot, test {words(doubtful)} first{told}: BC and {who}{of} in turn from the same starts"
    )
    if overall(summary).difference.interval.low > 0:
        return f"{first}. Ten trials of each show a gain only if it is very large: plan for more."
    return f"{first}; no gain of {who} over BC is promised, so BC alone may be as good."

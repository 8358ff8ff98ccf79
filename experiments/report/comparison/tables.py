"""The comparison of arms in words and tables, the same ones for terminals, pages and papers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.recorded.jurors import asked, jurors_of, truth_of, where_of
from experiments.report.recorded.jurors import warnings as warnings_of_jurors
from experiments.report.results import result_cells
from experiments.report.statistics import FEWEST_SEEDS, Estimate, Interval, estimate_of
from experiments.report.table import ANY_UPDATE, DASH, Table, change, label, number, percent, rate, shares, words
from experiments.report.trust import left_as_cloned
from experiments.report.verdict import (
    FEW,
    WIDE_GAP,
    comparison_of,
    improved_of,
    scope,
    sooner,
)

Json = Mapping[str, Any]
_ABOUT_SEEDS = (
    " Over seeds: the same difference, with an interval from drawing seeds anew, each with all its tasks. P(better):"
    " how likely a training of the arm beats one of {first} on a task. A dash: of fewer than three seeds no interval"
    " over seeds is known."
)
_ABOUT_MODELS = (
    "Open loop on play that no model was trained on, means over the seeds: likeness of imagined frames{cameras}; what"
    " linear probes read off latents that were seen, and imagined (mean of their R2, where it is positive, and AUROC);"
    " how far the hand is from where a probe believes it (median). Seconds: of a world model, and of the policies of a"
    " task."
)


def policies_of(summary: Json) -> tuple[str, str]:
    """What a comparison calls BC and the improved policy."""
    return "bc", improved_of(summary)


# Sentences ------------------------------------------------------------------------------------------------------------


def headline(summary: Json) -> str:
    """The result of the comparison in one sentence."""
    arms: dict[str, Json] = summary["arms"]
    compared = {name: arm for name, arm in arms.items() if arm.get("average")}
    if not compared:
        return "No task has been evaluated in all arms: what there is, is a comparison of their world models."
    (first, *others), improved = compared, improved_of(summary)
    best = max(others, key=lambda name: float(compared[name]["average"][improved]["value"]))
    effect = _effect(estimate_of(compared[best]["against_first"]["average"][improved]))
    of = f"Of {len(compared)} arms: with " if len(others) > 1 else "With "
    who = "improved policies" if improved == ANY_UPDATE else label(improved)
    nobody = f"{asked(summary)} " if jurors_of(summary) else ""
    said = f"{nobody}{of}{who}, {best} is {effect} {first}: {_against(compared, best, improved)}"
    cloned = _effect(estimate_of(compared[best]["against_first"]["average"]["bc"]))
    of_what = scope(compared[first]["tasks"])
    of_what = of_what[0].upper() + of_what[1:]
    return f"{said}; cloned (BC), it is {cloned} it: {_against(compared, best, 'bc')}. {of_what}, 95 % intervals."


def _effect(difference: Estimate) -> str:
    low, high = difference.interval
    return "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"


def _against(arms: Mapping[str, Json], name: str, policy: str) -> str:
    first = next(iter(arms.values()))
    here, there = (percent(arm["average"][policy]["value"]) for arm in (arms[name], first))
    difference = estimate_of(arms[name]["against_first"]["average"][policy])
    return f"{here} against {there} ({change(difference).replace(' ', ' points ', 1)})"


def cautions(summary: Json) -> list[str]:
    """What a careful reader would want to be told beside it."""
    arms: dict[str, Json] = summary["arms"]
    notes = []
    if left := summary.get("unfinished"):
        notes.append(f"Not finished, stages left: {', '.join(f'{name} {count}' for name, count in left.items())}.")
    compared = [task for arm in arms.values() for task in arm["tasks"].values()]
    # who judges is the same for all arms, and so are the first frames
    notes += warnings_of_jurors({**summary, "tasks": next(iter(arms.values()))["tasks"]})
    if compared and not jurors_of(summary) and min(task["n"] for task in compared) < FEW:
        notes.append(f"Fewer than {FEW} episodes a task: this study shows that everything works, not how well.")
    if (seeds := len(summary["seeds"])) < FEWEST_SEEDS:
        known = "One seed: nothing is" if seeds == 1 else "Two seeds: next to nothing is"
        notes.append(f"{known} known of how trainings vary; give --seeds 0 1 2.")
    for name, arm in arms.items():
        doubtful = [label(p) for p in policies_of(summary) if _only_by_starts(arm.get("against_first") or {}, p)]
        if doubtful:
            notes.append(f"{name} differs in {' and '.join(doubtful)} as trained; other seeds could turn it around.")
        if stopped := _stopped(arm):
            who = label(improved_of(summary))
            notes.append(f"{name}: dreams of {', '.join(stopped)} were a no-go, so {who} is the clone there.")
        gap = comparison_of(arm["average"], improved_of(summary), "value").gap if arm.get("average") else None
        if gap is not None and abs(gap) > WIDE_GAP:
            how = "more" if gap > 0 else "less"
            notes.append(
                f"{name}: dreams of the final policies succeed {percent(abs(gap), '')} points {how} than"
                f" {_others(summary)}."
            )
    return notes


def _stopped(arm: Json) -> list[str]:
    """Tasks, and seeds if they have several, whose policy was left as it was cloned."""
    return [
        words(task) if len(told["per_seed"]) == 1 else f"{words(task)} (seed {seed['seed']})"
        for task, told in arm["tasks"].items()
        for seed in told["per_seed"]
        if left_as_cloned(seed)
    ]


def _others(summary: Json) -> str:
    return "jurors see" if jurors_of(summary) else "real ones"


def _only_by_starts(against: Json, policy: str) -> bool:
    """Whether the difference is clear for these policies and not for newly trained ones."""
    if not against.get("over_seeds"):
        return False
    by_start, by_seed = (estimate_of(against[key][policy]).interval for key in ("average", "over_seeds"))
    return by_seed.known and not _covers(by_start) and _covers(by_seed)


def _covers(interval: Interval) -> bool:
    return interval.low <= 0 <= interval.high


# Tables ---------------------------------------------------------------------------------------------------------------


def tables(summary: Json) -> list[Table]:
    """All tables; those of which nothing is known are left out."""
    arms: dict[str, Json] = summary["arms"]
    policies = policies_of(summary)
    made = [
        _settings(arms),
        _averages(arms, policies, summary),
        _differences(arms, policies),
        _by_task(arms, policies, truth_of(summary)),
        _world_models(arms),
    ]
    return [table for table in made if table.rows]


def _averages(arms: Mapping[str, Json], policies: Sequence[str], summary: Json) -> Table:
    seeded = any(arm.get("iqm") for arm in arms.values())
    bc, who = map(label, policies)
    columns = ["arm", f"{bc} %", f"{who} %", f"{who} - {bc}, points", f"imagined {bc}, {who} %"]
    steps = sooner(next((arm["average"] for arm in arms.values() if arm.get("average")), {}))
    columns += [
        f"imagined minus {truth_of(summary)}, {who}",
        *([f"in {steps}: {bc}, {who}"] if steps else []),
        *([f"IQM {bc} %", f"IQM {who} %"] if seeded else []),
    ]
    rows = []
    for name, arm in arms.items():
        if average := arm.get("average"):
            _, *cells = result_cells(comparison_of(average, policies[1], "value"))
            cells += [_sooner(average, steps, policies)] if steps else []
            rows.append((name, *cells, *(_rate(arm["iqm"][policy]) for policy in (policies if seeded else ()))))
    about = f"Success {where_of(summary)}, averaged over the tasks, and in dreams of the same policies."
    about += f" In {steps}: success (%) within so many control steps, which measures speed as well." if steps else ""
    about += " IQM: the mean of the middle half of all seeds and tasks." if seeded else ""
    return Table(columns, rows, title="Arms", about=about, key="averages")


def _sooner(average: Json, steps: str, policies: Sequence[str]) -> str:
    """Success within so many control steps; a dash for an arm whose limit or settings are others."""
    found = (average.get("within") or {}).get(steps)
    return shares(*(found[policy]["value"] for policy in policies)) if found else DASH


def _differences(arms: Mapping[str, Json], policies: Sequence[str]) -> Table:
    first, *_ = arms
    compared = {name: against for name, arm in arms.items() if (against := arm.get("against_first"))}
    seeded = any(against.get("improvement") for against in compared.values())
    names = [label(policy) for policy in policies]
    columns = ["arm", *(f"{name}, points" for name in names)]
    columns += [f"{name} over seeds" for name in names] if seeded else []
    columns += [f"P(better) {name} %" for name in names] if seeded else []
    rows = [
        (
            name,
            *(_change(against["average"][policy]) for policy in policies),
            *(_change(against["over_seeds"][policy]) for policy in (policies if seeded else ())),
            *(_rate(against["improvement"][policy]) for policy in (policies if seeded else ())),
        )
        for name, against in compared.items()
    ]
    about = f"Success minus that of {first}, paired by task, seed and start state."
    about += _ABOUT_SEEDS.format(first=first) if seeded else ""
    return Table(columns, rows, title=f"Against {first}", about=about, key="differences")


def _by_task(arms: Mapping[str, Json], policies: Sequence[str], truth: str) -> Table:
    first, *_ = arms
    bc, who = map(label, policies)
    columns = ("task", "arm", "n", f"{bc} %", f"{who} %", f"imagined {bc}, {who} %", f"imagined minus {truth}, {who}")
    rows = []
    for task in arms[first]["tasks"]:
        for name, arm in arms.items():
            episodes, ours, theirs, _, *dreams = result_cells(comparison_of(arm["tasks"][task], policies[1], "rate"))
            against = ((arm.get("against_first") or {}).get("tasks") or {}).get(task)
            differences = [_change(against[policy]) if against else DASH for policy in policies]
            rows.append((words(task), name, episodes, ours, theirs, *dreams, *differences))
    return Table((*columns, f"{bc} against {first}", f"{who} against {first}"), rows, title="By task", key="tasks")


def _world_models(arms: Mapping[str, Json]) -> Table:
    cameras = list(next(iter(arms.values()))["world_model"]["psnr"])
    columns = ["arm", "PSNR next frame, dB", "PSNR last, dB", "probes seen", "probes 1-8 ahead", "probes later"]
    columns += ["hand off 1-8 ahead, mm", "hand off later, mm", "seconds"]
    rows = []
    for name, arm in arms.items():
        model, seconds = arm["world_model"], arm["seconds"]
        psnr = [model["psnr"].get(camera) or [None] for camera in cameras]
        places, errors = model["probes"], model["tcp_error"]
        rows.append(
            (
                name,
                *(", ".join(number(values[end], 1) for values in psnr) or DASH for end in (0, -1)),
                *(number(places.get(place), 2) for place in ("seen", "imagined_8", "imagined_late")),
                *(number(errors.get(place), 1) for place in ("imagined_8", "imagined_late")),
                f"{number(seconds['world_model'], 0)} + {number(seconds['policies'], 0)}",
            )
        )
    about = _ABOUT_MODELS.format(cameras=f" ({', '.join(map(words, cameras))})" if len(cameras) > 1 else "")
    return Table(columns, rows, title="World models", about=about, key="models")


def _settings(arms: Mapping[str, Json]) -> Table:
    names = list(next(iter(arms.values()))["changes"])
    rows = [(name, *(_setting(arm["changes"][setting]) for setting in names)) for name, arm in arms.items()]
    return Table(("arm", *names), rows, title="What is compared", key="settings")


def _setting(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _rate(value: Json) -> str:
    return rate(estimate_of(value))


def _change(value: Json) -> str:
    return change(estimate_of(value))


# Forms ----------------------------------------------------------------------------------------------------------------


def console_tables(summary: Json) -> str:
    """The closing tables of a study and its verdict, for a terminal."""
    made = [table.text() for table in tables(summary) if table.key not in ("tasks", "settings")]
    widest = max((len(line) for text in made for line in text.splitlines()), default=80)
    notes = [headline(summary), *cautions(summary)]
    wrapped = [line for note in notes for line in textwrap.wrap(note, min(max(widest, 60), 100))]
    return "\n\n".join([*made, "\n".join(wrapped)])


def markdown_tables(summary: Json) -> str:
    """All tables in Markdown, each with what it says."""
    made = [f"{table.title}. {table.about}".strip() + f"\n\n{table.markdown()}" for table in tables(summary)]
    return "\n\n".join([headline(summary), *cautions(summary), *made])

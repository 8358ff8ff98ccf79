"""The comparison of arms in words and tables, the same ones for terminals, pages and papers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.report.statistics import Estimate, Interval
from experiments.report.verdict import FEW, WIDE_GAP, bracket, percent, points, scope, words

Json = Mapping[str, Any]
NAMES = {"bc": "BC", "ppo": "PPO"}
DASH = "-"
_ABOUT_SEEDS = (
    " Over seeds: the same difference, with an interval from drawing seeds anew, each with all its tasks. P(better):"
    " how likely a training of the arm beats one of {first} on a task."
)
_ABOUT_MODELS = (
    "Open loop on play that no model was trained on, means over the seeds: likeness of imagined frames{cameras}; what"
    " linear probes read off latents that were seen, and imagined (mean of their R2, where it is positive, and AUROC);"
    " how far the hand is from where a probe believes it (median). Seconds: of a world model, and of the policies of a"
    " task."
)


class Table(NamedTuple):
    """Cells as text; the first row is the head."""

    key: str
    """Of what: settings, averages, differences, tasks or models."""
    title: str
    about: str
    rows: list[tuple[str, ...]]


# Sentences ------------------------------------------------------------------------------------------------------------


def headline(summary: Json) -> str:
    """The result of the comparison in one sentence."""
    arms: dict[str, Json] = summary["arms"]
    compared = {name: arm for name, arm in arms.items() if arm.get("average")}
    if not compared:
        return "No task has been evaluated in all arms: what there is, is a comparison of their world models."
    first, *others = compared
    best = max(others, key=lambda name: float(compared[name]["average"]["ppo"]["value"]))
    effect = _effect(_estimate(compared[best]["against_first"]["average"]["ppo"]))
    of = f"Of {len(compared)} arms: with PPO, " if len(others) > 1 else "With PPO, "
    said = f"{of}{best} is {effect} {first}: {_against(compared, best, 'ppo')}"
    cloned = _effect(_estimate(compared[best]["against_first"]["average"]["bc"]))
    of_what = scope(compared[first]["tasks"])
    of_what = of_what[0].upper() + of_what[1:]
    return f"{said}; cloned (BC), it is {cloned} it: {_against(compared, best, 'bc')}. {of_what}, 95 % intervals."


def _effect(difference: Estimate) -> str:
    low, high = difference.interval
    return "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"


def _against(arms: Mapping[str, Json], name: str, policy: str) -> str:
    first = next(iter(arms.values()))
    here, there = (percent(arm["average"][policy]["value"]) for arm in (arms[name], first))
    difference = _estimate(arms[name]["against_first"]["average"][policy])
    return f"{here} against {there} ({points(difference.value)} points {bracket(difference, '+')})"


def cautions(summary: Json) -> list[str]:
    """What a careful reader would want to be told beside it."""
    arms: dict[str, Json] = summary["arms"]
    notes = []
    if left := summary.get("unfinished"):
        notes.append(f"Not finished, stages left: {', '.join(f'{name} {count}' for name, count in left.items())}.")
    compared = [task for arm in arms.values() for task in arm["tasks"].values()]
    if compared and min(task["n"] for task in compared) < FEW:
        notes.append(f"Fewer than {FEW} episodes a task: this study shows that everything works, not how well.")
    if len(summary["seeds"]) == 1:
        notes.append("One seed: nothing is known of how trainings vary; give --seeds 0 1 2.")
    for name, arm in arms.items():
        doubtful = [NAMES[p] for p in NAMES if _only_by_starts(arm.get("against_first") or {}, p)]
        if doubtful:
            notes.append(f"{name} differs in {' and '.join(doubtful)} as trained; other seeds could turn it around.")
        if arm.get("average") and (gap := _gap(arm["average"], "value")) > WIDE_GAP:
            notes.append(f"{name}: dreams of the final policies succeed {100 * gap:.0f} points more than real ones.")
    return notes


def _only_by_starts(against: Json, policy: str) -> bool:
    """Whether the difference is clear for these policies and not for newly trained ones."""
    if not against.get("over_seeds"):
        return False
    by_start, by_seed = (_estimate(against[key][policy]).interval for key in ("average", "over_seeds"))
    return not _covers(by_start) and _covers(by_seed)


def _covers(interval: Interval) -> bool:
    return interval.low <= 0 <= interval.high


# Tables ---------------------------------------------------------------------------------------------------------------


def tables(summary: Json) -> list[Table]:
    """All tables; those of which nothing is known are left out."""
    arms: dict[str, Json] = summary["arms"]
    made = [_settings(arms), _averages(arms), _differences(arms), _by_task(arms), _world_models(arms)]
    return [table for table in made if len(table.rows) > 1]


def _averages(arms: Mapping[str, Json]) -> Table:
    seeded = any(arm.get("iqm") for arm in arms.values())
    head = ["arm", "BC %", "PPO %", "PPO - BC, points", "imagined BC, PPO %", "imagined - real PPO"]
    head += ["IQM BC %", "IQM PPO %"] if seeded else []
    rows = [
        (
            name,
            _rate(mean["bc"]),
            _rate(mean["ppo"]),
            _change(mean["difference"]),
            _imagined(mean),
            points(_gap(mean, "value")),
            *(_rate(arm["iqm"][policy]) for policy in (NAMES if seeded else ())),
        )
        for name, arm in arms.items()
        if (mean := arm.get("average"))
    ]
    about = "Success in the simulator, averaged over the tasks, and in dreams of the same policies."
    about += " IQM: the mean of the middle half of all seeds and tasks." if seeded else ""
    return Table("averages", "Arms", about, [tuple(head), *rows])


def _differences(arms: Mapping[str, Json]) -> Table:
    first, *_ = arms
    compared = {name: against for name, arm in arms.items() if (against := arm.get("against_first"))}
    seeded = any(against.get("improvement") for against in compared.values())
    head = ["arm", "BC, points", "PPO, points"]
    head += ["BC over seeds", "PPO over seeds", "P(better) BC %", "P(better) PPO %"] if seeded else []
    rows = [
        (
            name,
            *(_change(against["average"][policy]) for policy in NAMES),
            *(_change(against["over_seeds"][policy]) for policy in (NAMES if seeded else ())),
            *(_rate(against["improvement"][policy]) for policy in (NAMES if seeded else ())),
        )
        for name, against in compared.items()
    ]
    about = f"Success minus that of {first}, paired by task, seed and start state."
    about += _ABOUT_SEEDS.format(first=first) if seeded else ""
    return Table("differences", f"Against {first}", about, [tuple(head), *rows])


def _by_task(arms: Mapping[str, Json]) -> Table:
    first, *_ = arms
    head = ["task", "arm", "n", "BC %", "PPO %", "imagined BC, PPO %", "imagined - real PPO"]
    head += [f"BC against {first}", f"PPO against {first}"]
    rows = []
    for task in arms[first]["tasks"]:
        for name, arm in arms.items():
            found = arm["tasks"][task]
            against = ((arm.get("against_first") or {}).get("tasks") or {}).get(task)
            rows.append(
                (
                    words(task),
                    name,
                    str(found["n"]),
                    _rate(found["bc"], "rate"),
                    _rate(found["ppo"], "rate"),
                    _imagined(found),
                    points(_gap(found, "rate")),
                    *(_change(against[p]) if against else DASH for p in NAMES),
                )
            )
    return Table("tasks", "By task", "", [tuple(head), *rows])


def _world_models(arms: Mapping[str, Json]) -> Table:
    cameras = list(next(iter(arms.values()))["world_model"]["psnr"])
    head = ["arm", "PSNR next frame, dB", "PSNR last, dB", "probes seen", "probes 1-8 ahead", "probes later"]
    head += ["hand off 1-8 ahead, mm", "hand off later, mm", "seconds"]
    rows = []
    for name, arm in arms.items():
        model, seconds = arm["world_model"], arm["seconds"]
        psnr = [model["psnr"].get(camera) or [None] for camera in cameras]
        places, errors = model["probes"], model["tcp_error"]
        rows.append(
            (
                name,
                *(", ".join(_number(values[end], 1) for values in psnr) or DASH for end in (0, -1)),
                *(_number(places.get(place), 2) for place in ("seen", "imagined_8", "imagined_late")),
                *(_number(errors.get(place), 1) for place in ("imagined_8", "imagined_late")),
                f"{_number(seconds['world_model'], 0)} + {_number(seconds['policies'], 0)}",
            )
        )
    shown = f" ({', '.join(map(words, cameras))})" if len(cameras) > 1 else ""
    about = _ABOUT_MODELS.format(cameras=shown)
    return Table("models", "World models", about, [tuple(head), *rows])


def _settings(arms: Mapping[str, Json]) -> Table:
    names = list(next(iter(arms.values()))["changes"])
    rows = [(name, *(_setting(arm["changes"][setting]) for setting in names)) for name, arm in arms.items()]
    return Table("settings", "What is compared", "", [("arm", *names), *rows])


def _setting(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# Cells ----------------------------------------------------------------------------------------------------------------


def _estimate(value: Json, key: str = "value") -> Estimate:
    return Estimate(value[key], Interval(*value["interval"]))


def _rate(value: Json, key: str = "value") -> str:
    return f"{percent(value[key], '')} {bracket(_estimate(value, key))}"


def _change(value: Json) -> str:
    return f"{points(value['value'])} {bracket(_estimate(value), '+')}"


def _imagined(value: Json) -> str:
    return ", ".join(percent(value["imagined"][policy], "") for policy in NAMES)


def _gap(value: Json, key: str) -> float:
    return float(value["imagined"]["ppo"] - value["ppo"][key])


def _number(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


# Forms ----------------------------------------------------------------------------------------------------------------


def console_tables(summary: Json) -> str:
    """The closing tables of a study and its verdict, for a terminal."""
    made = [table for table in tables(summary) if table.key not in ("tasks", "settings")]
    lines = [line for table in made for line in ("", *_aligned(table.rows))]
    width = max(map(len, lines), default=80)
    notes = [headline(summary), *cautions(summary)]
    return "\n".join(
        [*lines[1:], "", *(line for note in notes for line in textwrap.wrap(note, min(max(width, 60), 100)))]
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def markdown_tables(summary: Json) -> str:
    """All tables in Markdown, each with what it says."""
    parts = [headline(summary), *cautions(summary)]
    for table in tables(summary):
        head, *rows = [_pipes(row) for row in table.rows]
        rule = "|" + "---|" * len(table.rows[0])
        parts.append("\n".join([*([f"{table.title}. {table.about}".strip(), ""]), head, rule, *rows]))
    return "\n\n".join(parts)


def _pipes(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

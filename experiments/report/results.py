"""The tables of a run that evaluated policies: success within the time limit, sooner, by CALVIN's oracle, elsewhere.

The summary is that of `experiments/report/run_page.py`, as plain JSON values.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable

from experiments.report.outcomes import OTHER
from experiments.report.table import DASH, Table, change, estimate, number, points, rate, shares
from experiments.report.verdict import (
    Comparison,
    Summary,
    comparisons,
    estimate_of,
    improved_of,
    label,
    overall,
    verdict,
    warnings,
)


def console_table(summary: Summary) -> str:
    """The closing table of a run and its verdict, for a terminal."""
    if not summary.get("tasks"):
        return verdict(summary)
    first, *more = (table.text().splitlines() for table in result_tables(summary, unit=" %", brief=True))
    wrapped = [line for note in (verdict(summary), *warnings(summary)) for line in textwrap.wrap(note, len(first[1]))]
    return "\n".join([*first, *(line for lines in more for line in ("", *lines)), first[1], *wrapped])


def result_tables(
    summary: Summary, *, unit: str = "", spell: Callable[[str], str] = str, brief: bool = False
) -> list[Table]:
    """All tables of a run that evaluated policies: within the time limit, sooner, and in other simulators.

    Args:
        summary: with one evaluated task at least.
        unit: after the rates of the first table; without one it stands in the head.
        spell: how a task's name is written.
        brief: for a terminal, without what nearly repeats the first table.
    """
    judges = dict.fromkeys(env for task in summary["tasks"].values() for env in task.get("judged") or {})
    tables = [
        result_table(summary, unit=unit, spell=spell),
        within_table(summary, spell=spell, brief=brief),
        dreams_table(summary, spell=spell),
        oracle_table(summary, spell=spell),
    ]
    return [*(t for t in tables if t.rows), *(judged_table(summary, env, spell=spell, brief=brief) for env in judges)]


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


def within_table(summary: Summary, *, spell: Callable[[str], str] = str, brief: bool = False) -> Table:
    """Success sooner than the time limit, under the other sampler, and time to success; no rows if nothing is told.

    Args:
        summary: with one evaluated task at least.
        spell: how a task's name is written.
        brief: without horizons close to the time limit.
    """
    tasks = {name: task for name, task in summary["tasks"].items() if "time" in task}
    first: Summary = next(iter(tasks.values()), {"within": ()})
    horizons = [steps for steps in first["within"] if not brief or int(steps) <= 0.9 * first["limit"]]
    improved = improved_of(summary)
    pair = f"BC, {label(improved)}"
    columns = ["task", "other sampler"]
    columns += [head for steps in horizons for head in (f"in {steps}: {pair}", "points")]
    rows = [(spell(name), *_within_cells(task, horizons, improved, "rate")) for name, task in tasks.items()]
    total = ("average", *_within_cells(summary["average"], horizons, improved, "value")) if len(tasks) > 1 else ()
    return Table([*columns, f"steps: {pair}"], rows, total, title="Sooner", about=_ABOUT_WITHIN)


_ABOUT_WITHIN = (
    "Success of the same episodes (%) within fewer control steps; 72 is the limit of papers on CALVIN, which measures"
    " speed too. BC acts under that of its two samplers which did better on start states apart from these; beside it"
    " stands the other sampler within the whole time limit. Steps: the median until success over all episodes, those"
    " without it counted as longer than any; a dash where no more than half succeed."
)


def _within_cells(told: Summary, horizons: Iterable[str], improved: str, key: str) -> tuple[str, ...]:
    other = told.get(OTHER)
    cells = [DASH if other is None else rate(estimate_of(other, key))]
    for steps in horizons:
        found = told["within"].get(steps)
        cells.append(shares(*(found[name][key] for name in ("bc", improved)), unit="") if found else DASH)
        cells.append(change(estimate_of(found["difference"])) if found else DASH)
    return (*cells, ", ".join(number(told["time"][name], 0) for name in ("bc", improved)))


def dreams_table(summary: Summary, *, spell: Callable[[str], str] = str) -> Table:
    """Time to success in dreams against that in the simulator; no rows where nothing is known of it.

    Args:
        summary: with one evaluated task at least.
        spell: how a task's name is written.
    """
    improved = improved_of(summary)
    tasks = {name: task["dreamed_time"] for name, task in summary["tasks"].items() if task.get("dreamed_time")}
    rows = [(spell(name), *_dreams_cells(told, improved)) for name, told in tasks.items()]
    mean = (summary.get("average") or {}).get("dreamed_time")
    total = ("average", *_dreams_cells(mean, improved)) if mean and len(tasks) > 1 else ()
    columns = ["task"]
    for who in ("BC", label(improved)):
        columns += [f"{who}: imagined, real", "steps", "apart, points"]
    return Table(columns, rows, total, title="When dreams succeed", about=_ABOUT_DREAMS)


_ABOUT_DREAMS = (
    "Control steps to success in dreams and in the simulator, an episode without success counted as the time limit, and"
    " their difference; and the largest distance between the two curves of success against control steps, which is 0"
    " only where dreams succeed as often as the simulator within any number of steps. Its interval holds 0 where they"
    " may. Dreams begin in other scenes than those that were learned from."
)


def _dreams_cells(told: Summary, improved: str) -> list[str]:
    cells: list[str] = []
    for name in ("bc", improved):
        found = told[name]
        cells.append(f"{found['imagined']:.0f}, {found['real']:.0f}")
        cells.append(estimate(estimate_of(found["difference"]), "+.0f"))
        cells.append(rate(estimate_of(found["distance"])))
    return cells


def oracle_table(summary: Summary, *, spell: Callable[[str], str] = str) -> Table:
    """The same episodes by CALVIN's own oracle, where a run's success asks for more; else no rows.

    Args:
        summary: with one evaluated task at least.
        spell: how a task's name is written.
    """
    tasks = {name: task for name, task in summary["tasks"].items() if task.get("oracle")}
    improved = improved_of(summary)
    first: Summary = next(iter(tasks.values()), {"oracle": {}})
    horizons = list(first["oracle"])
    rows = [(spell(name), *_oracle_cells(task["oracle"], horizons, improved, "rate")) for name, task in tasks.items()]
    mean = (summary.get("average") or {}).get("oracle")
    total = ("average", *_oracle_cells(mean, horizons, improved, "value")) if mean and len(tasks) > 1 else ()
    pair = f"BC, {label(improved)}"
    columns = ["task", *(head for h in horizons for head in (f"by CALVIN, in {h}: {pair}", "points"))]
    return Table(columns, rows, total, title="By CALVIN's own oracle", about=_ABOUT_ORACLE)


_ABOUT_ORACLE = (
    "Success (%) of the same episodes as CALVIN's oracle judges them, which asks for less than this run does, within so"
    " many control steps; 72 is the papers' protocol. An episode does not end there, and a policy that goes on to what"
    " the run asks for has lost nothing."
)


def _oracle_cells(told: Summary, horizons: Iterable[str], improved: str, key: str) -> list[str]:
    cells: list[str] = []
    for steps in horizons:
        found = told[steps]
        cells.append(shares(*(found[name][key] for name in ("bc", improved)), unit=""))
        cells.append(change(estimate_of(found["difference"])))
    return cells


def judged_table(summary: Summary, env: str, *, spell: Callable[[str], str] = str, brief: bool = False) -> Table:
    """The same policies in the run's own simulator and in another one, side by side.

    Args:
        summary: with a task that was judged there.
        env: the other simulator's id.
        spell: how a task's name is written.
        brief: without the difference in the run's own simulator, which the first table has.
    """
    improved, there = improved_of(summary), env.rpartition("/")[2]
    who = label(improved)
    tasks = {name: task for name, task in summary["tasks"].items() if env in task.get("judged", {})}
    rows = [(spell(n), *_judged_cells(task, task["judged"][env], improved, "rate")) for n, task in tasks.items()]
    mean = (summary.get("average") or {}).get("judged", {}).get(env)
    total = ("average", *_judged_cells(summary["average"], mean, improved, "value")) if mean and len(tasks) > 1 else ()
    columns = ["task", f"here: BC, {who}", "points", "n", f"BC {there}", f"{who} {there}", "points"]
    columns += ["BC gap", f"{who} gap"]
    kept = [i for i in range(len(columns)) if i != 2 or not brief]
    return Table(
        [columns[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        [total[i] for i in kept] if total else (),
        title=f"In the simulator of training, and in {env}",
        about=_ABOUT_JUDGED.format(env=env),
        key="judged",
    )


_ABOUT_JUDGED = (
    "Success (%) in the run's own simulator, here, and of the same policies in {env}, of which they have seen nothing."
    " Gap: success there minus success here, in points, from the start states and seeds that both have."
)


def _judged_cells(here: Summary, there: Summary, improved: str, key: str) -> tuple[str, ...]:
    names = ("bc", improved)
    gaps = [there["gap"][name] for name in names]
    return (
        shares(*(here[name][key] for name in names)),
        change(estimate_of(here["difference"])),
        str(there.get("n", "")),
        *(rate(estimate_of(there[name], key)) for name in names),
        change(estimate_of(there["difference"])),
        *(DASH if gap is None else change(estimate_of(gap)) for gap in gaps),
    )

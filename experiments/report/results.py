"""The tables of a run that evaluated policies: within the time limit, fewer steps, by CALVIN's criterion, elsewhere.

The summary is that of `experiments/report/pages/run_page.py`, as plain JSON values.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from experiments.report.outcomes import OTHER
from experiments.report.recorded.jurors import jurors_of, jurors_table, truth_of
from experiments.report.statistics import average, estimate_of
from experiments.report.table import DASH, Table, change, estimate, label, number, percent, points, rate, shares
from experiments.report.trust import trust_of
from experiments.report.verdict import (
    Comparison,
    Summary,
    comparisons,
    improved_of,
    overall,
    sooner,
    step_limits,
    verdict,
    warnings,
)


def console_table(summary: Summary) -> str:
    """The closing table of a run and its verdict, for a terminal."""
    if not summary.get("tasks"):
        return verdict(summary)
    table, *others = result_tables(summary, unit=" %", brief=True)
    first, more = table.text().splitlines(), [f"\n{other.title}\n{other.text()}" for other in others]
    wrapped = [line for note in (verdict(summary), *warnings(summary)) for line in textwrap.wrap(note, len(first[1]))]
    return "\n".join([*first, *more, first[1], *wrapped])


def home_of(summary: Summary) -> str:
    """What the run's own simulator is called, in which its policies learned; those from before do not say."""
    return "jurors" if jurors_of(summary) else summary.get("env", "").rpartition("/")[2] or "own simulator"


def result_tables(
    summary: Summary, *, unit: str = "", spell: Callable[[str], str] = str, brief: bool = False
) -> list[Table]:
    """All tables of a run that evaluated policies: within the time limit, fewer steps, and in other simulators.

    Args:
        summary: with one evaluated task at least.
        unit: after the rates of the first table; without one it stands in the head.
        spell: how a task's name is written.
        brief: for a terminal, without what nearly repeats the first table.
    """
    judges = dict.fromkeys(env for task in summary["tasks"].values() for env in task.get("judged") or {})
    tables = [
        result_table(summary, unit=unit, spell=spell),
        real_table(summary, spell=spell),
        jurors_table(summary, spell=spell),
        seeds_table(summary),
        within_table(summary, spell=spell, brief=brief),
        dreams_table(summary, spell=spell),
        oracle_table(summary, spell=spell),
        held_out_table(summary, spell=spell),
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
    return Table((*columns, f"imagined minus {truth_of(summary)}, {who}"), rows, total)


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


def seeds_table(summary: Summary) -> Table:
    """The average of the tasks by seed, where there are several; no rows else.

    Args:
        summary: with one evaluated task at least.
    """
    improved, tasks = improved_of(summary), summary["tasks"].values()
    found: dict[int, list[Summary]] = {}
    for task in tasks:
        for told in task["per_seed"]:
            # reports of before say no difference by seed
            if told.get("difference"):
                found.setdefault(told["seed"], []).append(told)
    # of a run that is not finished, some seeds have not been evaluated on all tasks
    whole = {seed: told for seed, told in sorted(found.items()) if len(told) == len(tasks)}
    if len(whole) < 2:
        return Table((), ())
    changes = {seed: average([estimate_of(one["difference"]) for one in told]) for seed, told in whole.items()}

    def cells(name: str, told: Sequence[Summary], difference: str) -> tuple[str, ...]:
        bc, real, dreamed = (fmean(one[key] for one in told) for key in ("bc", improved, f"imagined_{improved}"))
        return name, percent(bc, ""), percent(real, ""), difference, points(dreamed - real)

    rows = [cells(str(seed), told, change(changes[seed])) for seed, told in whole.items()]
    clear = sum(one.interval.low > 0 for one in changes.values())
    everything = [one for told in whole.values() for one in told]
    total = cells("all", everything, f"above 0 in {clear} of {len(whole)}")
    who = label(improved)
    columns = ("seed", "BC %", f"{who} %", f"{who} - BC, points", f"imagined minus {truth_of(summary)}, {who}")
    about = (
        "Average of the tasks, by seed of world model and policies. Above 0: seeds in which the interval of the"
        " difference lies above it."
    )
    return Table(columns, rows, total, title="By seed", about=about)


def real_table(summary: Summary, *, spell: Callable[[str], str] = str) -> Table:
    """Success against the real episodes and steps that a policy has had; no rows where none were recorded.

    Args:
        summary: with one evaluated task at least.
        spell: how a task's name is written.
    """
    tasks, improved = {name: task for name, task in summary["tasks"].items() if task.get("real")}, improved_of(summary)
    who, mean = label(improved), (summary.get("average") or {}).get("real")
    rows = [row for name, task in tasks.items() for row in _real_rows(spell(name), task, improved, "rate")]
    if mean and len(tasks) > 1:
        rows += _real_rows("average, sum of episodes", summary["average"], improved, "value")
    columns = (
        "task",
        "real episodes",
        "real steps",
        "BC %",
        f"{who} %",
        f"{who} - BC, points",
        f"{who} gained, points",
    )
    return Table(columns, rows, title="After real episodes", about=_ABOUT_REAL.format(who=who))


_ABOUT_REAL = (
    "Episodes of {who} were recorded where it acts, world model, success classifier and BC went on training with them,"
    " and {who} was done again in what the world model then imagined. Beside it stands BC that was given the same"
    " episodes, of which it clones the successes. Real episodes and steps are those of the task so far, of one policy,"
    " the mean of the seeds; the world model of a seed has those of all tasks. Demonstrations and play are not counted."
    " Gained: points over {who} without real episodes, from the same start states."
)


def _real_rows(name: str, task: Summary, improved: str, key: str) -> list[Sequence[str]]:
    first = {"episodes": 0, "steps": 0, "bc": task["bc"], improved: task[improved], "difference": task["difference"]}
    return [
        (
            name,
            number(told["episodes"], 0),
            number(told["steps"], 0),
            *(rate(estimate_of(told[policy], key)) for policy in ("bc", improved)),
            change(estimate_of(told["difference"])),
            change(estimate_of(told["gain"])) if "gain" in told else "",
        )
        for told in (first, *task["real"])
    ]


def within_table(summary: Summary, *, spell: Callable[[str], str] = str, brief: bool = False) -> Table:
    """Success within fewer steps, under the other sampler, and time to success; no rows if nothing is told.

    Args:
        summary: with one evaluated task at least.
        spell: how a task's name is written.
        brief: without step limits that nearly reach the time limit.
    """
    tasks = {name: task for name, task in summary["tasks"].items() if "time" in task}
    first: Summary = next(iter(tasks.values()), {})
    limits = [steps for steps in step_limits(first) if not brief or int(steps) <= 0.9 * first["limit"]]
    improved = improved_of(summary)
    pair = f"BC, {label(improved)}"
    choice = any(task.get(OTHER) is not None for task in tasks.values())
    columns = ["task", *(["other sampler"] if choice else [])]
    columns += [head for steps in limits for head in (f"in {steps}: {pair}", "points")]
    columns.append("median steps" if brief else f"median steps to success: {pair}")

    def cells(told: Summary, key: str) -> tuple[str, ...]:
        return (*([_other_cell(told, key)] if choice else []), *_within_cells(told, limits, improved, key))

    rows = [(spell(name), *cells(task, "rate")) for name, task in tasks.items()]
    total = ("average", *cells(summary["average"], "value")) if len(tasks) > 1 else ()
    told_of = _ABOUT_REPLAYS_WITHIN if jurors_of(summary) else _ABOUT_WITHIN
    about = told_of.format(samplers=_ABOUT_SAMPLERS if choice else "")
    return Table(columns, rows, total, title="Success within fewer steps", about=about)


_ABOUT_WITHIN = (
    "Success of the same episodes (%) within fewer control steps; 72 is the limit of papers on CALVIN, which measures"
    " speed too.{samplers} Median steps to success: over all episodes, those without success counted as longer than"
    " any; a dash where no more than half succeed."
)
_ABOUT_REPLAYS_WITHIN = (
    "The same replays (%), of which jurors see success within fewer control steps.{samplers} Median steps to success:"
    " over all replays, those without success counted as longer than any; a dash where no more than half succeed."
)
_ABOUT_SAMPLERS = (
    " BC acts under the better of its two samplers; beside it stands the other sampler within the whole time limit."
)


def _other_cell(told: Summary, key: str) -> str:
    other = told.get(OTHER)
    return DASH if other is None else rate(estimate_of(other, key))


def _within_cells(told: Summary, limits: Iterable[str], improved: str, key: str) -> tuple[str, ...]:
    cells = []
    for steps in limits:
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
    truth = truth_of(summary)
    for who in ("BC", label(improved)):
        columns += [f"{who}: imagined, {truth}", "steps", "apart, points"]
    about = _ABOUT_DREAMS.replace("the simulator", "jurors' replays") if truth != "real" else _ABOUT_DREAMS
    return Table(columns, rows, total, title="When dreams succeed", about=about)


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
    """The same episodes by CALVIN's own criterion, where a run's success asks for more; else no rows.

    Args:
        summary: with one evaluated task at least.
        spell: how a task's name is written.
    """
    tasks = {name: task for name, task in summary["tasks"].items() if task.get("oracle")}
    improved = improved_of(summary)
    first: Summary = next(iter(tasks.values()), {"oracle": {}})
    limits = list(first["oracle"])
    rows = [(spell(name), *_oracle_cells(task["oracle"], limits, improved, "rate")) for name, task in tasks.items()]
    mean = (summary.get("average") or {}).get("oracle")
    total = ("average", *_oracle_cells(mean, limits, improved, "value")) if mean and len(tasks) > 1 else ()
    pair = f"BC, {label(improved)}"
    columns = ["task", *(head for steps in limits for head in (f"in {steps}: {pair}", "points"))]
    title = f"{_CRITERION}, in the run's own simulator"
    return Table(columns, rows, total, title=title, about=_ABOUT_ORACLE)


_CRITERION = "By CALVIN's criterion (tolerance 0)"
_ABOUT_ORACLE = (
    "The episodes of the first table once more (%), in the same simulator, judged as CALVIN's oracle does: it asks for"
    " less than this run (--stress.tolerance). 72 steps and this criterion are the papers' protocol. An episode goes on"
    " until the run's own criterion is met or time is up; when CALVIN's was first met was noted on the way."
)


def _oracle_cells(told: Summary, limits: Iterable[str], improved: str, key: str) -> list[str]:
    cells: list[str] = []
    for steps in limits:
        found = told[steps]
        cells.append(shares(*(found[name][key] for name in ("bc", improved)), unit=""))
        cells.append(change(estimate_of(found["difference"])))
    return cells


def held_out_table(summary: Summary, *, spell: Callable[[str], str] = str) -> Table:
    """What dreams say of attempts on which nothing was trained, a row a task and seed; no rows if nothing is told.

    Args:
        summary: with one evaluated task at least.
        spell: how a task's name is written.
    """
    seeds = [(name, seed) for name, task in summary["tasks"].items() for seed in task["per_seed"]]
    rows = [(spell(name), str(s["seed"]), *_held_out_cells(s["verdicts"])) for name, s in seeds if "verdicts" in s]
    columns = ("task", "seed", "attempts done", "done in dreams", "not done", "done in dreams", "dreams")
    return Table(columns, rows, title="Dreams of attempts that nothing was trained on", about=_ABOUT_HELD_OUT)


_ABOUT_HELD_OUT = (
    "Attempts that were held out, dreamed from their first frame on under the actions that were recorded: how many of"
    " those in which the task was done, and of those in which it was not, end in success in dreams (%), several dreams"
    " of each. A no-go: failures succeed about as often as successes, so a rewarded dream may well be a failure. With"
    " care: successes succeed clearly more often, but less well than was asked for. Not known: too few attempts."
)


def _held_out_cells(verdicts: Summary) -> list[str]:
    if "skipped" in verdicts:
        return [DASH, DASH, DASH, DASH, "not known"]
    cells = []
    for outcome in ("succeeded", "failed"):
        found = verdicts[outcome]
        cells += [str(found["attempts"]), DASH if found["rate"] is None else rate(estimate_of(found, "rate"))]
    return [*cells, trust_of(verdicts).word]


def judged_table(summary: Summary, env: str, *, spell: Callable[[str], str] = str, brief: bool = False) -> Table:
    """The same policies in the run's own simulator and in another one, from the start states that both have.

    Args:
        summary: with a task that was judged there.
        env: the other simulator's id.
        spell: how a task's name is written.
        brief: for a terminal, without intervals of rates, fewer steps and CALVIN's criterion.
    """
    improved, there = improved_of(summary), env.rpartition("/")[2]
    tasks = {name: task["judged"][env] for name, task in summary["tasks"].items() if env in task.get("judged", {})}
    first = next(iter(tasks.values()))
    early = sooner(next(iter(summary["tasks"].values())))
    limits, oracle = [early] if early and not brief else [], [] if brief else list(first.get("oracle") or {})
    columns = ["task", "n", *_judged_heads(home_of(summary), there, label(improved), brief=brief)]
    columns += [f"{how}in {steps}: BC, {label(improved)}" for how, steps in _ways(limits, oracle)]

    def row(found: Summary, key: str) -> list[str]:
        return [*_judged_cells(found, improved, key, brief=brief), *_early_cells(found, limits, oracle, improved, key)]

    mean = (summary.get("average") or {}).get("judged", {}).get(env)
    told_of = _ABOUT_FORETOLD if jurors_of(summary) else _ABOUT_JUDGED
    return Table(
        columns,
        [[spell(name), str(found["n"]), *row(found, "rate")] for name, found in tasks.items()],
        ["average", "", *row(mean, "value")] if mean and len(tasks) > 1 else (),
        title=f"The same policies in {env}",
        about=(told_of + (_ABOUT_JUDGED_ORACLE if oracle else "")).format(env=env, home=home_of(summary)),
        key="judged",
    )


_ABOUT_JUDGED = (
    "Success (%) in {env}, of which the policies have seen nothing, beside that in the run's own simulator ({home})"
    " from the same n start states and seeds: where fewer were judged there, not the numbers of the first table. An"
    " episode is judged there by the run's own criterion and time limit. Gap: success there minus success in the run's"
    " own simulator, in points."
)
_ABOUT_FORETOLD = (
    "Success (%) in {env}, which the study has not seen, in n episodes, beside what jurors saw in all their replays"
    " ({home}). They begin elsewhere, so nothing is paired. Gap: success there minus what jurors saw, in points."
)
_ABOUT_JUDGED_ORACLE = (
    " The last columns are of {env} by CALVIN's criterion (tolerance 0), which asks for less than the run's; within 72"
    " steps it is the papers' protocol."
)


def _judged_heads(home: str, there: str, who: str, *, brief: bool) -> list[str]:
    rates = [f"{there}: BC, {who}"] if brief else [f"{there}: BC", f"{there}: {who}"]
    return [f"{home}: BC, {who}", *rates, "points", "BC gap", f"{who} gap"]


def _judged_cells(there: Summary, improved: str, key: str, *, brief: bool) -> list[str]:
    names, shared = ("bc", improved), there.get("shared")
    rates = [rate(estimate_of(there[name], key)) for name in names]
    gaps = [there["gap"][name] for name in names]
    return [
        # summaries from before do not say it of the shared starts alone
        shares(*(shared[name][key] for name in names)) if shared else DASH,
        *([shares(*(there[name][key] for name in names))] if brief else rates),
        change(estimate_of(there["difference"])),
        *(DASH if gap is None else change(estimate_of(gap)) for gap in gaps),
    ]


def _ways(limits: Sequence[str], oracle: Sequence[str]) -> list[tuple[str, str]]:
    """Ways to look at the same episodes: by which criterion, within how many steps."""
    return [*(("", steps) for steps in limits), *(("tolerance 0, ", steps) for steps in oracle)]


def _early_cells(there: Summary, limits: Sequence[str], oracle: Sequence[str], improved: str, key: str) -> list[str]:
    found = [*(there["within"].get(s) for s in limits), *((there.get("oracle") or {}).get(s) for s in oracle)]
    return [shares(*(one[name][key] for name in ("bc", improved))) if one else DASH for one in found]

"""Success against control steps: who succeeds at all, and who is merely faster.

A policy of more skill ends higher; one that is only faster rises earlier and ends where the other does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from experiments.report.figures import BC_COLOUR, REAL_COLOUR, STYLE, WIDTH, Plot, Row, legend
from experiments.report.outcomes import OTHER, Outcomes
from experiments.report.statistics import Estimate, average
from experiments.report.table import label, span, words

ROW = 3
"""Panels that fit into one row as large ones."""
EVERY = 2
"""Control steps between two points of a curve."""
AVERAGE = "average"
OTHER_COLOUR = "#B0B0B0"

Curve = Sequence[Estimate]
Curves = Mapping[str, Curve]
"""By policy, an estimate at each of `places`."""


def places(limit: int) -> list[int]:
    """Control steps at which success is told, up to the time limit."""
    return [*range(EVERY, limit, EVERY), limit]


def curves(outcomes: Outcomes) -> dict[str, list[Estimate]]:
    """Success of each policy within as many control steps as there are in `places`."""
    shown = {name: episodes for name, episodes in outcomes.shown.items() if episodes is not None}
    return {name: [e.rate(steps) for steps in places(outcomes.limit)] for name, e in shown.items()}


def mean_curves(tasks: Sequence[Curves]) -> dict[str, list[Estimate]]:
    """Mean over tasks of those policies that all of them have."""
    names = [name for name in tasks[0] if all(name in task for task in tasks)]
    return {name: [average(at) for at in zip(*(task[name] for task in tasks), strict=True)] for name in names}


def over_time(
    tasks: Mapping[str, Mapping[str, Outcomes]], marks: Sequence[int], *, home: str = "own simulator"
) -> Plot:
    """Success within so many control steps, with pointwise 95 % bands: the average above, a small panel a task below.

    Args:
        tasks: task -> simulator -> outcomes, the run's own simulator first and called ""; all with one time limit.
        marks: control steps to mark.
        home: what the run's own simulator is called.
    """
    simulators = list(dict.fromkeys(simulator for task in tasks.values() for simulator in task))
    limit = next(iter(next(iter(tasks.values())).values())).limit
    found = {name: {s: curves(o) for s, o in task.items()} for name, task in tasks.items()}
    rows = {AVERAGE: _mean_of_tasks(found, simulators)} | found if len(found) > 1 else found
    figure, axes = _axes(list(rows), len(simulators))
    data: list[Row] = []
    large = set(axes if len(axes) <= ROW else [key for key in axes if key[0] == next(iter(rows))])
    for (name, simulator), axis in axes.items():
        drawn = rows[name].get(simulators[simulator], {})
        where = home if not simulators[simulator] else simulators[simulator].rpartition("/")[2]
        _panel(axis, drawn, limit, marks, large=(name, simulator) in large)
        counts = [len(o.improved.start) for o in _counted(tasks, name, simulators[simulator])]
        axis.set_title(_title(name, where if len(simulators) > 1 else "", counts), **_TITLE)
        data += _rows(name, where, drawn, limit)
    shown = list(dict.fromkeys(policy for parts in rows.values() for drawn in parts.values() for policy in drawn))
    legend(figure, [Line2D([], [], label=_name(policy), **_style(policy)) for policy in shown])
    return Plot(figure, data)


_TITLE: Any = {"loc": "left", "fontsize": 9.0, "fontweight": "bold"}


def _counted(tasks: Mapping[str, Mapping[str, Outcomes]], name: str, simulator: str) -> list[Outcomes]:
    """What a panel shows: of a task, or of all tasks where it is their average."""
    chosen = [tasks[name]] if name in tasks else list(tasks.values())
    return [task[simulator] for task in chosen if simulator in task]


def _title(name: str, where: str, counts: Sequence[int]) -> str:
    """What a panel shows, in how many episodes of each policy; the simulator on a line of its own."""
    shown = words(name) + (f"\n{where}" if where else "")
    return shown + (f", n = {span(counts)}{' a task' if len(counts) > 1 else ''}" if counts else "")


def _mean_of_tasks(found: Mapping[str, Mapping[str, Curves]], simulators: Sequence[str]) -> dict[str, Curves]:
    """Of those simulators in which all tasks were evaluated."""
    whole = [s for s in simulators if all(s in task for task in found.values())]
    return {s: mean_curves([task[s] for task in found.values()]) for s in whole}


def _axes(names: Sequence[str], simulators: int) -> tuple[Figure, dict[tuple[str, int], Axes]]:
    """A panel for each name and simulator: larger ones in the first row, of the first name or of all."""
    every = [(name, simulator) for name in names for simulator in range(simulators)]
    top = every if len(every) <= ROW else every[:simulators]
    below = every[len(top) :]
    columns = len(top) * (4 // len(top)) if below and len(top) <= 4 else len(top)
    lines = -(-len(below) // columns)
    heights = [2.7] + [1.75] * lines
    with matplotlib.rc_context(STYLE):
        size = (WIDTH, sum(heights) + 0.4)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
        grid = GridSpec(1 + lines, columns, figure=figure, height_ratios=heights)
        wide = columns // len(top)
        axes = {key: figure.add_subplot(grid[0, i * wide : (i + 1) * wide]) for i, key in enumerate(top)}
        axes |= {key: figure.add_subplot(grid[1 + i // columns, i % columns]) for i, key in enumerate(below)}
    for i, key in enumerate(below):
        axes[key].tick_params(labelleft=i % columns == 0)
    for key in [top[0], *below[::columns]]:
        axes[key].set_ylabel("success (%)")
    for key in [*top, *below[-columns:]]:
        axes[key].set_xlabel("control steps")
    return figure, axes


def _panel(axis: Axes, drawn: Curves, limit: int, marks: Sequence[int], *, large: bool) -> None:
    x = [0, *places(limit)]
    for steps in marks:
        axis.axvline(steps, color="#777777", linewidth=0.9, linestyle=":")
        if large:
            axis.annotate(str(steps), (steps, 0), xytext=(2, 1), **_AT_FOOT)
    for policy, curve in drawn.items():
        rates, low, high = ([0.0, *(100 * end for end in ends)] for ends in zip(*_ends(curve), strict=True))
        style = _style(policy)
        # success comes at a step and not between two; a third band would hide the two that are compared
        if policy != OTHER:
            axis.fill_between(x, low, high, step="post", color=style["color"], alpha=0.18, linewidth=0)
        axis.plot(x, rates, drawstyle="steps-post", **style)
    ends = {policy: 100 * curve[-1].value for policy, curve in drawn.items() if policy != OTHER} if large else {}
    for (policy, end), place in zip(ends.items(), _apart(list(ends.values())), strict=True):
        axis.annotate(f"{end:.0f}", (limit, place), xytext=(3, -3), **_AT_END, color=_style(policy)["color"])
    axis.grid(axis="x", visible=False)
    axis.set_xlim(0, limit)
    axis.set_ylim(-2, 102)
    axis.set_yticks(range(0, 101, 25))
    axis.set_xticks(range(0, limit + 1, 25 if large else 50))


def _apart(ends: Sequence[float], *, gap: float = 8.0) -> list[float]:
    """Places of the labels of two lines: where they end, or around the middle if that is too close; equal ones, too."""
    if len(ends) != 2 or abs(ends[0] - ends[1]) >= gap:
        return list(ends)
    middle, up = sum(ends) / 2, 1 if ends[0] > ends[1] else -1
    return [middle + up * gap / 2, middle - up * gap / 2]


_AT_FOOT: Any = {"textcoords": "offset points", "fontsize": 7.5, "color": "#777777"}
_AT_END: Any = {"textcoords": "offset points", "fontsize": 8.5, "fontweight": "bold", "annotation_clip": False}


def _ends(curve: Curve) -> list[tuple[float, float, float]]:
    return [(estimate.value, *estimate.interval) for estimate in curve]


def _name(policy: str) -> str:
    if policy == OTHER:
        return "BC, other sampler"
    return "BC" if policy == "bc" else f"{label(policy)} in imagination"


def _style(policy: str) -> dict[str, Any]:
    if policy == OTHER:
        return {"color": OTHER_COLOUR, "linewidth": 1.0, "linestyle": "--"}
    return {"color": BC_COLOUR if policy == "bc" else REAL_COLOUR, "linewidth": 1.8, "linestyle": "-"}


def _rows(task: str, where: str, drawn: Curves, limit: int) -> list[Row]:
    return [
        {"task": task, "simulator": where, "policy": policy, "steps": steps, "rate": rate, "low": low, "high": high}
        for policy, curve in drawn.items()
        for steps, (rate, low, high) in zip(places(limit), _ends(curve), strict=True)
    ]

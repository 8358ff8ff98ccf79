"""Figures of the benchmark: who does how much in a CPU second, and how the cost of imagination grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from experiments.bench.growth import Cost
from experiments.bench.results import Comparison
from experiments.report.figures import (
    BC_COLOUR,
    CYCLE,
    IMAGINED_COLOUR,
    REAL_COLOUR,
    STYLE,
    WIDTH,
    Plot,
    Row,
    legend,
    mark,
)

COLOURS = {"fp32": REAL_COLOUR, "bf16": IMAGINED_COLOUR, "-": REAL_COLOUR}
AXES = {"batch": "batch B", "horizon": "horizon H", "width": "width (deter = hidden)", "memory": "batch B"}


def speeds(comparisons: Sequence[Comparison]) -> Plot:
    """One panel a comparison, a row a library, logarithmic; ours are filled, others hollow.

    Args:
        comparisons: with one entry at least.
    """
    counts = [len(comparison.entries) for comparison in comparisons]
    with matplotlib.rc_context(STYLE):
        engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
        figure = Figure(figsize=(WIDTH, 0.5 + 0.62 * len(comparisons) + 0.24 * sum(counts)), layout=engine)
        axes = figure.subplots(
            len(comparisons), 1, squeeze=False, gridspec_kw={"height_ratios": [n + 1 for n in counts]}
        )
    data: list[Row] = []
    for axis, comparison in zip(axes[:, 0], comparisons, strict=True):
        data += _speeds(axis, comparison)
    shown = {entry.precision for comparison in comparisons for entry in comparison.entries if entry.ours}
    handles = [mark("o", COLOURS[p], f"ours, {p}", line=False) for p in ("fp32", "bf16") if p in shown]
    if any(not entry.ours for comparison in comparisons for entry in comparison.entries):
        handles.append(mark("o", BC_COLOUR, "others", hollow=True, line=False))
    legend(figure, handles)
    return Plot(figure, data)


def _speeds(axis: Axes, comparison: Comparison) -> list[Row]:
    data: list[Row] = []
    for place, entry in enumerate(comparison.entries):
        value, (low, high) = comparison.speed(entry, comparison.clock)
        colour = COLOURS[entry.precision] if entry.ours else BC_COLOUR
        axis.plot([low, high], [place, place], color=colour, linewidth=2.0)
        axis.plot(value, place, "o", color=colour, markerfacecolor=colour if entry.ours else "white", markersize=6)
        row: Row = {"comparison": comparison.name, "name": entry.name, "median": value, "low": low, "high": high}
        data.append(row)
    axis.set_yticks(range(len(comparison.entries)), [entry.name for entry in comparison.entries])
    axis.set_ylim(len(comparison.entries) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    second = "CPU second" if comparison.clock == "cpu" else "second"
    unit = (
        f"{second.removesuffix(' second')} ms, less is better" if comparison.slow else f"{comparison.unit} a {second}"
    )
    axis.set_title(f"{comparison.name}: {unit}", loc="left", fontsize=9.5, fontweight="bold")
    _logarithmic(axis, "x")
    return data


def growth(costs: Sequence[Cost], *, clock: str) -> Plot:
    """Microseconds of a latent step over batch, horizon and width, and memory over the batch, on logarithmic axes.

    Args:
        costs: of one or more implementations.
        clock: "cpu" or "wall".
    """
    panels = [*dict.fromkeys(cost.axis for cost in costs), "memory"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9), layout=ConstrainedLayoutEngine(w_pad=0.08))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
    names = list(dict.fromkeys(cost.name for cost in costs))
    data: list[Row] = []
    for axis, panel in zip(axes, panels, strict=True):
        for colour, name in zip(CYCLE * len(names), names, strict=False):
            points = [(c.value, _height(c, panel, clock)) for c in costs if c.name == name and _on(c, panel)]
            axis.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, linewidth=1.4)
            data += [{"panel": panel, "name": name, "x": x, "y": y} for x, y in points]
        title = "memory (MB)" if panel == "memory" else f"{'CPU ' * (clock == 'cpu')}us a latent step"
        axis.set_title(title, loc="left", fontsize=9, fontweight="bold")
        axis.set_xlabel(AXES[panel])
        _logarithmic(axis, "x")
        _logarithmic(axis, "y")
        measured = sorted({cost.value for cost in costs if _on(cost, panel)})
        axis.xaxis.set_major_locator(FixedLocator(measured))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.6g}"))
        axis.tick_params(axis="x", labelsize=7)
        axis.xaxis.set_minor_locator(NullLocator())
    legend(figure, [mark("o", colour, name) for colour, name in zip(CYCLE, names, strict=False)])
    return Plot(figure, data)


def _on(cost: Cost, panel: str) -> bool:
    return cost.memory is not None if panel == "memory" else cost.axis == panel


def _height(cost: Cost, panel: str, clock: str) -> float:
    return (cost.memory or 0.0) / 1e6 if panel == "memory" else 1e6 * float(getattr(cost, clock))


def _logarithmic(axis: Axes, which: str) -> None:
    """Over a decade at least, so that what is flat looks flat, with numbers as people write them: 1, 2, 5, 10."""
    line = axis.xaxis if which == "x" else axis.yaxis
    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    low, high = axis.get_xlim() if which == "x" else axis.get_ylim()
    wider = max(1.0, math.sqrt(10 * low / high))
    (axis.set_xlim if which == "x" else axis.set_ylim)(low / wider, high * wider)
    line.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    line.set_major_formatter(StrMethodFormatter("{x:,.7g}"))
    line.set_minor_formatter(NullFormatter())

"""Figures of a study, drawn from plain numbers: success while it learns, losses, open-loop error, BC and improved.

Every function returns a `Plot`: the figure and the rows behind it, so that no picture exists without its CSV. Nothing
here reads files, keeps global state or opens a window. Colours: Okabe and Ito 2008, told apart by colour-blind readers;
marks and line styles differ too, for black-and-white prints.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from experiments.report.statistics import Estimate, Interval
from experiments.report.table import label, words
from worldaction.io.atomic import replacing

BC_COLOUR = "#767676"
REAL_COLOUR = "#0072B2"
IMAGINED_COLOUR = "#D55E00"
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

WIDTH = 9.6  # inches: at 100 dots an inch the width of the report's page
DOTS_PER_INCH = 160
_UNDATED: Any = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
MOST_POINTS = 300  # drawn per line; longer series are averaged in bins

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "figure.facecolor": "white",
}

Row = dict[str, str | float | int | None]


class Plot(NamedTuple):
    """A figure and the numbers in it."""

    figure: Figure
    data: list[Row]


class Point(NamedTuple):
    """A value at an iteration, a training step or a horizon; the interval where one is known."""

    x: float
    y: float
    interval: Interval | None = None


@dataclass(frozen=True)
class SeedCurve:
    """One seed's update on one task: success in imagination and, where it was measured, in the simulator.

    x is the number of iterations of learning behind the policy.
    """

    seed: int
    imagined: Sequence[Point] = ()
    real: Sequence[Point] = ()
    stop: int | None = None
    """Iterations of learning behind the policy that was kept."""
    reason: str = ""
    """Why training ended."""


@dataclass(frozen=True)
class TaskCurve:
    """All seeds of one task, with the two numbers of the verdict."""

    task: str
    seeds: Sequence[SeedCurve]
    bc: Estimate | None = None
    improved: Estimate | None = None


# --- figures ----------------------------------------------------------------------------------------------------------


def success_curves(curves: Sequence[TaskCurve], *, policy: str = "ppo", truth: str = "real") -> Plot:
    """Imagined and real success over the iterations of learning, one panel a task.

    Solid line: success in imagination (thin, one a seed; thick, their mean where all seeds have a value). Dots:
    success in the simulator. Grey line and band: the cloned policy in the simulator. Diamond: the final policy there.

    Args:
        curves: one entry a task, rates in [0, 1].
        policy: what the improved policy is called.
        truth: what success outside of its own dreams is called.
    """
    figure, axes = _grid(len(curves), height=2.6)
    data: list[Row] = []
    for axis, curve in zip(axes, curves, strict=True):
        _success_panel(axis, curve, policy)
        data += _success_rows(curve, policy)
    for axis in axes[:: _columns(len(curves))]:
        axis.set_ylabel("success (%)")
    legend(figure, _success_legend(curves, policy, truth))
    return Plot(figure, data)


def panels(
    series: Mapping[str, Mapping[str, Sequence[Point]]], *, x_label: str, family: Callable[[str], str] = lambda line: ""
) -> Plot:
    """Small panels, one a metric: losses, or PPO's diagnostics.

    Args:
        series: metric -> line (a seed) -> points. Positive values that span two decades get a logarithmic axis.
        x_label: what the points are counted in.
        family: of a line's name, what it shares a colour and a mean with; named in a legend where there are several.
    """
    figure, axes = _grid(len(series), height=1.9)
    families = dict.fromkeys(family(name) for lines in series.values() for name in lines)
    colours = dict(zip(families, cycle(CYCLE)))
    data: list[Row] = []
    for axis, (metric, lines) in zip(axes, series.items(), strict=True):
        _label(axis, metric, x_label)
        for one, colour in colours.items():
            _lines(axis, [line for name, line in lines.items() if family(name) == one], colour)
        _logarithmic(axis, [p for line in lines.values() for p in line])
        data += [{"metric": metric, "line": n, "x": p.x, "y": p.y} for n, line in lines.items() for p in line]
    if len(colours) > 1:
        legend(figure, [Line2D([], [], color=colour, label=one) for one, colour in colours.items()])
    return Plot(figure, data)


def open_loop_curves(psnr: Mapping[str, Sequence[float]], ssim: Mapping[str, Sequence[float]] | None = None) -> Plot:
    """Likeness of imagined to true frames over the horizon, one line a camera.

    Args:
        psnr: camera -> dB for 1, 2, ... frames imagined; higher is better.
        ssim: camera -> structural similarity in [-1, 1], likewise.
    """
    metrics = {"PSNR (dB)": psnr} | ({"SSIM": ssim} if ssim else {})
    figure, axes = _grid(len(metrics), height=2.8)
    data: list[Row] = []
    for axis, (metric, cameras) in zip(axes, metrics.items(), strict=True):
        _label(axis, metric, "frames imagined without seeing one")
        for colour, style, (camera, values) in zip(CYCLE, ("-", "--", "-.", ":") * 2, cameras.items(), strict=False):
            horizon = range(1, len(values) + 1)
            axis.plot(horizon, [_number(v) for v in values], style, color=colour, linewidth=1.8, label=words(camera))
            data += [{"metric": metric, "camera": camera, "horizon": h, "value": v} for h, v in zip(horizon, values)]
        axis.legend(loc="best", frameon=False)
    return Plot(figure, data)


def comparison(
    tasks: Mapping[str, tuple[Estimate, Estimate]],
    average: tuple[Estimate, Estimate] | None = None,
    *,
    policy: str = "ppo",
    judge: str = "the simulator",
) -> Plot:
    """Success of BC and the improved policy, a row a task and one for their average, with intervals.

    Args:
        tasks: task -> (BC, improved), rates in [0, 1].
        average: (BC, improved) over the tasks.
        policy: what the improved policy is called.
        judge: where success was measured.
    """
    rows = dict(tasks) | ({"average": average} if average is not None else {})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(rows)), layout=ConstrainedLayoutEngine(w_pad=0.1))
        axis = figure.add_subplot()
    for place, (name, (bc, improved)) in enumerate(rows.items()):
        dumbbell(axis, place, bc, improved)
        if name == "average" and average is not None and place:
            axis.axhline(place - 0.5, color="#999999", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [words(name) for name in rows])
    rows_of_rates(axis, len(rows))
    axis.set_xlabel(f"success in {judge} (%), 95 % interval")
    legend(figure, policy_marks(policy))
    data: list[Row] = [
        {"task": name, "policy": each, **_estimate(estimate)}
        for name, pair in rows.items()
        for each, estimate in zip(("bc", policy), pair, strict=True)
    ]
    return Plot(figure, data)


# --- files ------------------------------------------------------------------------------------------------------------


def picture_of(figure: Figure, kind: str = "png") -> bytes:
    """The bytes of the figure's file: png, pdf or svg."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "worldaction"}):
        # without the time, so that the same numbers give the same file
        figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=_UNDATED.get(kind))
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path, data: Sequence[Row], *, kind: str = "png") -> bytes:
    """Write the figure and, beside it under the same name, the rows as CSV.

    Args:
        figure: what to draw.
        path: where, without a suffix.
        data: the numbers in the figure; all rows have the same columns.
        kind: png, pdf or svg.

    Returns:
        The picture's bytes, for pages that hold it inside.
    """
    picture = picture_of(figure, kind)
    with replacing(path.with_suffix(f".{kind}")) as temporary:
        temporary.write_bytes(picture)
    with (
        replacing(path.with_suffix(".csv")) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(data[0]) if data else [])
        writer.writeheader()
        writer.writerows(data)
    return picture


# --- parts of figures -------------------------------------------------------------------------------------------------


def _columns(count: int) -> int:
    return min(count, 2 if count == 4 else 3)


def _grid(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """As many panels as asked for, in rows of up to three, one page wide."""
    columns = max(_columns(count), 1)
    rows = max(math.ceil(count / columns), 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height * rows + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
        return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _label(axis: Axes, title: str, x: str) -> None:
    axis.set_title(fill(words(title), 38), loc="left", fontsize=9.5, fontweight="bold")
    axis.set_xlabel(x)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def _success_panel(axis: Axes, curve: TaskCurve, policy: str) -> None:
    places = [p.x for s in curve.seeds for p in (*s.imagined, *s.real)]
    last = max([*places, *(s.stop for s in curve.seeds if s.stop is not None)], default=1.0) or 1.0
    several = len(curve.seeds) > 1
    if curve.bc is not None:
        low, high = curve.bc.interval
        axis.axhspan(100 * low, 100 * high, color=BC_COLOUR, alpha=0.16, linewidth=0)
        axis.axhline(100 * curve.bc.value, color=BC_COLOUR, linewidth=1.4, linestyle="--")
    for seed in curve.seeds if several else ():
        axis.plot(*_percent(seed.imagined), color=IMAGINED_COLOUR, linewidth=0.8, alpha=0.45)
        axis.plot(*_percent(seed.real), "o-", color=REAL_COLOUR, markersize=2.5, linewidth=0.8, alpha=0.45)
    for stop in (seed.stop for seed in curve.seeds if seed.stop is not None):
        axis.axvline(stop, color="#333333", linewidth=0.9, linestyle=":", alpha=0.5 if several else 1.0)
    axis.plot(*_percent(_mean([seed.imagined for seed in curve.seeds])), color=IMAGINED_COLOUR, linewidth=2.2)
    real = _mean([seed.real for seed in curve.seeds]) if several else [p for seed in curve.seeds for p in seed.real]
    axis.plot(*_percent(real), "o-", color=REAL_COLOUR, markersize=4.5, linewidth=0.8)
    for x, _, interval in real:
        if interval is not None:
            axis.plot([x] * 2, [100 * end for end in interval], color=REAL_COLOUR, linewidth=1.0, alpha=0.7)
    if curve.improved is not None:
        x, ends = last * 1.05, [100 * end for end in curve.improved.interval]
        axis.plot([x] * 2, ends, color=REAL_COLOUR, linewidth=2.0, clip_on=False)
        axis.plot(x, 100 * curve.improved.value, "D", color=REAL_COLOUR, markersize=7, clip_on=False)
    _label(axis, curve.task, f"{label(policy)} iterations of learning")
    axis.set_xlim(-0.02 * last, 1.1 * last)
    axis.set_ylim(-3, 103)
    axis.set_yticks(range(0, 101, 25))
    _stops(axis, curve.seeds)


def _stops(axis: Axes, seeds: Sequence[SeedCurve]) -> None:
    """Say at the foot of the dotted line why the only seed stopped; several lines would hide each other."""
    stop = seeds[0].stop if len(seeds) == 1 else None
    if stop is None:
        return
    right = stop > sum(axis.get_xlim()) / 2
    reason = seeds[0].reason.partition(": ")[2] or seeds[0].reason
    axis.annotate(
        fill(f"kept: {stop}" + (f" ({reason})" if reason else ""), 40),
        (stop, 0),
        xytext=(-4 if right else 4, 2),
        textcoords="offset points",
        ha="right" if right else "left",
        fontsize=7.5,
        color="#333333",
    )


def _lines(axis: Axes, lines: Sequence[Sequence[Point]], colour: str) -> None:
    """Thin lines, and a thick one for their mean."""
    several = len(lines) > 1
    thinned = [_thin(line) for line in lines]
    for line in thinned:
        thin: dict[str, Any] = {"linewidth": 0.7, "alpha": 0.5} if several else {"linewidth": 1.4}
        axis.plot([p.x for p in line], [_number(p.y) for p in line], color=colour, **thin)
    if several:
        mean = _mean(thinned)
        axis.plot([p.x for p in mean], [p.y for p in mean], color=colour, linewidth=1.8)


def _logarithmic(axis: Axes, points: Sequence[Point]) -> None:
    values = [p.y for p in points if math.isfinite(_number(p.y))]
    if values and min(values) > 0 and max(values) > 100 * min(values):
        axis.set_yscale("log")


def dumbbell(axis: Axes, place: int, bc: Estimate, improved: Estimate) -> None:
    """Two estimates of one row, one a little above the other so that their intervals can be told apart."""
    axis.plot([100 * bc.value, 100 * improved.value], [place, place], **_CHANGE)
    for shift, estimate, mark, colour in ((-0.11, bc, "o", BC_COLOUR), (0.11, improved, "D", REAL_COLOUR)):
        low, high = estimate.interval
        axis.plot([100 * low, 100 * high], [place + shift] * 2, color=colour, linewidth=1.6)
        face = "white" if mark == "o" else colour
        axis.plot(100 * estimate.value, place + shift, mark, color=colour, markerfacecolor=face, markersize=7)


_CHANGE: Any = {"color": "#cccccc", "linewidth": 5, "solid_capstyle": "round"}
"""The bar from one policy's rate to the other's."""


def _success_legend(curves: Sequence[TaskCurve], policy: str, truth: str) -> list[Line2D | Patch]:
    """Only what is in the picture."""
    who = label(policy)
    seeds = [seed for curve in curves for seed in curve.seeds]
    entries: list[tuple[bool, Line2D | Patch]] = [
        (any(s.imagined for s in seeds), Line2D([], [], color=IMAGINED_COLOUR, linewidth=2, label=f"{who}, imagined")),
        (any(s.real for s in seeds), mark("o", REAL_COLOUR, f"{who}, {truth}")),
        (any(c.improved for c in curves), mark("D", REAL_COLOUR, f"{who}, {truth}, final policy")),
        (
            any(c.bc for c in curves),
            Patch(facecolor="#e3e3e3", edgecolor=BC_COLOUR, linestyle="--", label=f"BC, {truth}"),
        ),
        (
            any(s.stop is not None for s in seeds),
            Line2D([], [], color="#333333", linewidth=0.9, linestyle=":", label="policy kept"),
        ),
    ]
    return [entry for shown, entry in entries if shown]


def rows_of_rates(axis: Axes, count: int) -> None:
    """Per cent along x, and so many rows from the top along y."""
    axis.set_ylim(count - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlim(-3, 103)
    axis.set_xticks(range(0, 101, 25))


def mark(kind: str, colour: str, label: str, *, hollow: bool = False, line: bool = True) -> Line2D:
    """An entry of a legend: a mark on a piece of line, or alone."""
    face = "white" if hollow else colour
    return Line2D([], [], color=colour, marker=kind, markerfacecolor=face, linewidth=1.5 * line, label=label)


def policy_marks(policy: str) -> list[Line2D]:
    """Entries of a legend for BC, the improved policy, which is called so, and what lies between them."""
    who = label(policy)
    return [
        mark("o", BC_COLOUR, "BC", hollow=True),
        mark("D", REAL_COLOUR, f"{who} in imagination"),
        Line2D([], [], label=f"from BC to {who}", **_CHANGE),
    ]


def legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    """What the marks mean, above the panels; nothing where there are none."""
    if handles:
        figure.legend(handles=list(handles), loc="outside upper left", ncols=len(handles), frameon=False, fontsize=9)


# --- numbers ----------------------------------------------------------------------------------------------------------


def _success_rows(curve: TaskCurve, policy: str) -> list[Row]:
    rows: list[Row] = []
    for seed in curve.seeds:
        for kind, points in (("imagined", seed.imagined), ("real", seed.real)):
            rows += [_row(curve.task, seed.seed, kind, p.x, p.y, p.interval) for p in points]
        if seed.stop is not None:
            rows.append(_row(curve.task, seed.seed, "kept", seed.stop, None, None))
    for kind, estimate in (("bc", curve.bc), (policy, curve.improved)):
        if estimate is not None:
            rows.append(_row(curve.task, None, kind, None, estimate.value, estimate.interval))
    return rows


def _row(task: str, seed: int | None, kind: str, x: float | None, rate: float | None, interval: Interval | None) -> Row:
    low, high = interval if interval is not None else (None, None)
    return {"task": task, "seed": seed, "kind": kind, "iteration": x, "rate": rate, "low": low, "high": high}


def _estimate(estimate: Estimate) -> Row:
    return {"rate": estimate.value, "low": estimate.interval.low, "high": estimate.interval.high}


def _percent(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p.x for p in points], [100 * _number(p.y) for p in points]


def _number(value: float | None) -> float:
    """JSON has no NaN: files hold null, figures leave a gap."""
    return math.nan if value is None else float(value)


def _mean(lines: Sequence[Sequence[Point]]) -> list[Point]:
    """Mean over lines, at the places that every line has: a mean over survivors would rise when a bad seed stops."""
    by_x = [{p.x: _number(p.y) for p in line} for line in lines]
    common = sorted(set.intersection(*(set(values) for values in by_x))) if by_x else []
    return [Point(x, sum(values[x] for values in by_x) / len(by_x)) for x in common]


def _thin(line: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS points: means of neighbours, so that lines of all lengths look alike."""
    size = math.ceil(len(line) / MOST_POINTS)
    bins = [line[i : i + size] for i in range(0, len(line), size)] if size > 1 else [[p] for p in line]
    return [Point(sum(p.x for p in b) / len(b), sum(_number(p.y) for p in b) / len(b)) for b in bins]

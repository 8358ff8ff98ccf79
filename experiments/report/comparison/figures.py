"""Pictures of a comparison: the arms side by side, and their dreams against what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from experiments.report.figures import (
    BC_COLOUR,
    CYCLE,
    REAL_COLOUR,
    STYLE,
    WIDTH,
    Plot,
    Row,
    dumbbell,
    legend,
    mark,
    policy_marks,
    rows_of_rates,
)
from experiments.report.statistics import estimate_of
from experiments.report.table import label, words

Json = Mapping[str, Any]
COLUMNS = 3
MARKS = "osD^vPX"
LONGEST = 26
"""Letters of an arm's name in a line of a picture."""


def side_by_side(arms: Mapping[str, Json], policies: Sequence[str] = ("bc", "ppo")) -> Plot:
    """Success of BC and the improved policy, with intervals: a row an arm, a panel a task and for their mean.

    Args:
        arms: of a study's summary; all have the same tasks, one at least.
        policies: what BC and the improved policy are called there.
    """
    tasks = list(next(iter(arms.values()))["tasks"])
    panels = (["average"] if len(tasks) > 1 else []) + tasks
    rows = -(-len(panels) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        height = 0.55 + rows * (0.75 + 0.42 * len(arms))
        figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.05))
        axes = [figure.add_subplot(rows, COLUMNS, i + 1) for i in range(len(panels))]
    data: list[Row] = []
    for i, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        data += _panel(axis, panel, arms, policies)
        axis.set_yticks(range(len(arms)) if i % COLUMNS == 0 else [])
        if i % COLUMNS == 0:
            axis.set_yticklabels([folded(name) for name in arms])
        axis.set_title(words(panel), loc="left", fontsize=9.5, fontweight="bold")
        if i >= len(panels) - COLUMNS:
            axis.set_xlabel("success (%), 95 % interval")
    dot = Line2D([], [], color="#333333", marker=".", linestyle="", label="a seed")
    legend(figure, [*policy_marks(policies[1]), dot])
    return Plot(figure, data)


def _panel(axis: Axes, panel: str, arms: Mapping[str, Json], policies: Sequence[str]) -> list[Row]:
    data: list[Row] = []
    for place, (name, arm) in enumerate(arms.items()):
        whole = panel == "average"
        values = arm["average"] if whole else arm["tasks"][panel]
        pair = {policy: estimate_of(values[policy], "value" if whole else "rate") for policy in policies}
        dumbbell(axis, place, *pair.values())
        for shift, colour, (policy, estimate) in zip(
            (-0.32, 0.32), (BC_COLOUR, REAL_COLOUR), pair.items(), strict=True
        ):
            rates = _seeds(arm, policy)[panel]
            x = [100 * rate for rate in rates.values()]
            axis.plot(x, [place + shift] * len(x), ".", color=colour, alpha=0.7, markeredgewidth=0)
            low, high = estimate.interval
            data.append(_row(panel, name, policy, "", estimate.value, low, high))
            data += [_row(panel, name, policy, seed, rate) for seed, rate in rates.items()]
    rows_of_rates(axis, len(arms))
    return data


def _seeds(arm: Json, policy: str) -> dict[str, dict[int, float]]:
    """Success by panel and seed; in the average those seeds that all tasks have."""
    found = {name: {s["seed"]: s[policy] for s in task["per_seed"]} for name, task in arm["tasks"].items()}
    common = set.intersection(*(set(seeds) for seeds in found.values()))
    means = {seed: sum(seeds[seed] for seeds in found.values()) / len(found) for seed in sorted(common)}
    return found | {"average": means}


def _row(panel: str, arm: str, policy: str, seed: int | str, rate: float, low: Any = None, high: Any = None) -> Row:
    return {"task": panel, "arm": arm, "policy": policy, "seed": seed, "rate": rate, "low": low, "high": high}


def calibration(
    arms: Mapping[str, Json], policies: Sequence[str] = ("bc", "ppo"), *, judge: str = "the simulator"
) -> Plot:
    """Success in dreams against success outside of them, a mark for every arm, task, seed and policy.

    Args:
        arms: of a study's summary.
        policies: what BC and the improved policy are called there.
        judge: where success is measured.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.9), layout=ConstrainedLayoutEngine(w_pad=0.1))
        axes = figure.subplots(1, 2)
    data: list[Row] = []
    titles = (label(policies[0]), f"{label(policies[1])} in imagination")
    for axis, policy, title in zip(axes, policies, titles, strict=True):
        axis.plot([-3, 103], [-3, 103], color="#999999", linewidth=0.9, linestyle="--")
        for i, (name, arm) in enumerate(arms.items()):
            points = [
                (task, s["seed"], s[f"imagined_{policy}"], s[policy])
                for task, found in arm["tasks"].items()
                for s in found["per_seed"]
            ]
            x, y = ([100 * point[k] for point in points] for k in (2, 3))
            style = {"color": CYCLE[i % len(CYCLE)], "marker": MARKS[i % len(MARKS)]}
            axis.plot(x, y, linestyle="", markersize=6, alpha=0.75, markeredgecolor="white", clip_on=False, **style)
            data += [
                {"arm": name, "policy": policy, "task": task, "seed": seed, "imagined": imagined, "real": real}
                for task, seed, imagined, real in points
            ]
        axis.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
        axis.set_xlabel("success in dreams (%)")
        axis.set_xlim(-3, 103)
        axis.set_ylim(-3, 103)
        axis.set_aspect("equal")
        axis.text(101, 4, "dreams promise too much", ha="right", fontsize=8, color="#777777")
        axis.text(1, 97, "too little", fontsize=8, color="#777777")
    axes[0].set_ylabel(f"success in {judge} (%)")
    marks = [
        mark(MARKS[i % len(MARKS)], CYCLE[i % len(CYCLE)], folded(name), line=False) for i, name in enumerate(arms)
    ]
    figure.legend(handles=marks, loc="outside right upper", frameon=False, fontsize=9)
    return Plot(figure, data)


def folded(name: str) -> str:
    """A long name in several lines, broken after its parts."""
    lines = [""]
    for part in name.replace("+", "+\n").replace(",", ",\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > LONGEST:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)

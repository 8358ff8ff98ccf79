"""One page about a study with arms, written from its summary.json; each arm has a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from experiments.report.comparison.figures import calibration, side_by_side
from experiments.report.comparison.tables import cautions, headline, policies_of, tables
from experiments.report.figures import Plot
from experiments.report.pages.page import figure, heading, made_by, section, write_page
from experiments.report.recorded.jurors import judge_of
from experiments.report.table import Table
from worldaction.io.sealed_json import read_json

Json = dict[str, Any]
_ABOUT_INTERVALS = """Brackets are 95 % intervals: Wilson's for rates, Newcombe's for paired differences, their
square-and-add for averages, a start state being a cluster of the seeds' episodes. They speak for these trained
policies on other start states; those over seeds, the IQM and P(better) are bootstrapped over the seeds, three at least,
and speak for other trainings."""
_ABOUT_CALIBRATION = """Below the line, dreams promise more than there is in {judge}: the policy has learned to please
the model."""


def write_comparison(folder: Path) -> Path:
    """Write `report.html` of a study with arms.

    Args:
        folder: the study's; its summary.json is there.
    """
    summary, config, env = (read_json(folder / f"{name}.json") for name in ("summary", "config", "env"))
    made = {one.key: _html(one) for one in tables(summary)}
    return write_page(
        folder / "report.html",
        f"worldaction: {folder.name}",
        [
            heading("comparison", headline(summary), cautions(summary), folder, summary, config, env),
            section("What is compared", made.get("settings", ""), _links(summary)),
            section("Success", made.get("averages", ""), _figures(folder, summary)),
            section("Differences", made.get("differences", ""), f"<p>{_ABOUT_INTERVALS}</p>"),
            section("Every task", made.get("tasks", "")),
            section("World models", made.get("models", "")),
            made_by(config, env),
        ],
    )


def _links(summary: Json) -> str:
    links = (f'<a href="{escape(a["folder"])}/report.html">{escape(n)}</a>' for n, a in summary["arms"].items())
    return f"<p>Every arm is a run with a page of its own: {', '.join(links)}.</p>"


def plots(summary: Json) -> dict[str, Plot]:
    """Every figure of a comparison, by the name of its files."""
    arms: Mapping[str, Json] = summary["arms"]
    if not summary["tasks_compared"]:
        return {}
    policies = policies_of(summary)
    return {"arms": side_by_side(arms, policies), "calibration": calibration(arms, policies, judge=judge_of(summary))}


def _figures(folder: Path, summary: Json) -> str:
    drawn = plots(summary)
    if not drawn:
        return ""
    beside = figure(folder, "arms", drawn["arms"], "success by arm, with intervals")
    dreams = drawn["calibration"]
    about = _ABOUT_CALIBRATION.format(judge=judge_of(summary))
    return f"{beside}\n{figure(folder, 'calibration', dreams, 'success in dreams against success outside', about)}"


_KINDS = {"settings": "text settings", "tasks": "folded second"}


def _html(made: Table) -> str:
    about = f"<p>{escape(made.about)}</p>" if made.about else ""
    return about + made.html(_KINDS.get(made.key, "folded"))

"""One page about a study with arms, written from its summary.json; each arm has a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from experiments.report.comparison.figures import calibration, side_by_side
from experiments.report.comparison.tables import cautions, headline, policies_of, tables
from experiments.report.page import details, figure, heading, listing, section, write_page
from experiments.report.table import Table, duration
from worldaction.io.artefact import read_json

Json = dict[str, Any]
_ABOUT_INTERVALS = """Brackets are 95 % intervals: Wilson's for rates, Newcombe's for paired differences, their
square-and-add for averages. They speak for these trained policies on other start states; those over seeds, the IQM and
P(better) are bootstrapped over the seeds and speak for other trainings."""
_ABOUT_CALIBRATION = """Below the line, dreams promise more than the simulator holds: the policy has learned to please
the model."""


def write_comparison(folder: Path) -> Path:
    """Write `report.html` of a study with arms.

    Args:
        folder: the study's; its summary.json is there.
    """
    summary: Json = read_json(folder / "summary.json")
    made = {one.key: _html(one) for one in tables(summary)}
    return write_page(
        folder / "report.html",
        f"worldaction: {folder.name}",
        [
            _head(folder, summary),
            section("What is compared", made.get("settings", ""), _links(summary)),
            section("Success", made.get("averages", ""), _figures(folder, summary)),
            section("Differences", made.get("differences", ""), f"<p>{_ABOUT_INTERVALS}</p>"),
            section("Every task", made.get("tasks", "")),
            section("World models", made.get("models", "")),
            _made_by(folder),
        ],
    )


def _head(folder: Path, summary: Json) -> str:
    facts = {
        "run": folder.resolve().name,
        "preset": summary.get("preset"),
        "seeds": ", ".join(map(str, summary["seeds"])),
        "time": duration(summary.get("seconds")),
        "renderer": summary.get("renderer"),
        "commit": summary.get("commit"),
        "settings": summary.get("settings"),
    }
    return heading("comparison", headline(summary), cautions(summary), facts)


def _links(summary: Json) -> str:
    links = (f'<a href="{escape(a["folder"])}/report.html">{escape(n)}</a>' for n, a in summary["arms"].items())
    return f"<p>Every arm is a run with a page of its own: {', '.join(links)}.</p>"


def _figures(folder: Path, summary: Json) -> str:
    arms: Mapping[str, Json] = summary["arms"]
    if not summary["tasks_compared"]:
        return ""
    policies = policies_of(summary)
    beside = figure(folder, "arms", side_by_side(arms, policies), "success by arm, with intervals")
    dreams = calibration(arms, policies)
    return f"{beside}\n{figure(folder, 'calibration', dreams, 'imagined against real success', _ABOUT_CALIBRATION)}"


_KINDS = {"settings": "text settings", "tasks": "folded second"}


def _html(made: Table) -> str:
    about = f"<p>{escape(made.about)}</p>" if made.about else ""
    return about + made.html(_KINDS.get(made.key, "folded"))


def _made_by(folder: Path) -> str:
    names = {"Settings of the study": "config.json", "Versions and machine": "env.json"}
    parts = [details(title, listing(read_json(folder / name))) for title, name in names.items()]
    return section("What made it", *parts)

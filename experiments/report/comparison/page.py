"""One page about a study with arms, written from its summary.json; each arm has a page of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from experiments.report.comparison.figures import calibration, side_by_side
from experiments.report.comparison.tables import Table, cautions, headline, tables
from experiments.report.figures import Plot, save_figure
from experiments.report.page import details, duration, listing, page, picture, section, table
from worldaction.io.artefact import read_json, replacing

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
    html = page(
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
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(html, encoding="utf-8")
    return folder / "report.html"


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
    line = " &nbsp; ".join(f"{name} <b>{escape(str(value))}</b>" for name, value in facts.items() if value)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in cautions(summary))
    said = escape(headline(summary))
    return f'<p class="facts">worldaction comparison</p>\n<h1>{said}</h1>\n{notes}\n<p class="facts">{line}</p>'


def _links(summary: Json) -> str:
    links = (f'<a href="{escape(a["folder"])}/report.html">{escape(n)}</a>' for n, a in summary["arms"].items())
    return f"<p>Every arm is a run with a page of its own: {', '.join(links)}.</p>"


def _figures(folder: Path, summary: Json) -> str:
    arms: Mapping[str, Json] = summary["arms"]
    if not summary["tasks_compared"]:
        return ""
    made: list[tuple[str, Plot, str, str]] = [
        ("arms", side_by_side(arms), "BC and PPO by arm, with intervals", ""),
        ("calibration", calibration(arms), "imagined against real success", _ABOUT_CALIBRATION),
    ]
    pictures = []
    for name, plot, description, caption in made:
        png = save_figure(plot.figure, folder / "curves" / name, plot.data)
        pictures.append(picture(png, description, csv=f"curves/{name}.csv", caption=caption))
    return "\n".join(pictures)


_KINDS = {"settings": "text settings", "tasks": "folded second"}


def _html(made: Table) -> str:
    head, *rows = ([_cell(cell) for cell in row] for row in made.rows)
    about = f"<p>{escape(made.about)}</p>" if made.about else ""
    return about + table(head, rows, kind=_KINDS.get(made.key, "folded"))


def _cell(text: str) -> str:
    """An interval is in small print, and a long name may be broken after its parts."""
    small = re.sub(r"(\[[^]]*\])", r"<small>\1</small>", escape(text))
    return re.sub(r"([+,])(?=[a-z])", r"\1<wbr>", small)


def _made_by(folder: Path) -> str:
    names = {"Settings of the study": "config.json", "Versions and machine": "env.json"}
    parts = [details(title, listing(read_json(folder / name))) for title, name in names.items()]
    return section("What made it", *parts)

"""The few pieces of HTML that a report is made of: one file that holds its pictures and needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.report.figures import Plot, save_figure
from experiments.report.table import Table, duration
from worldaction.io.artefact import flatten
from worldaction.io.atomic import replacing

Json = dict[str, Any]
LARGEST_INSIDE = 2_000_000
"""Bytes up to which a film is stored inside the page; larger ones stay beside it."""

_CSS = """
:root { --page: #fff; --ink: #1c1e21; --soft: #5f6670; --line: #e3e6ea; --rule: #b9bfc7; --shade: rgba(0, 0, 0, .22);
        --good: #00795a; --bad: #b54a00; --real: #0072b2; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --ink: #e6e8ea; --soft: #a3abb4; --line: #2c3036; --rule: #4c535b;
          --shade: rgba(255, 255, 255, .28); --good: #3fc9a0; --bad: #f2955a; --real: #5fb2e6; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
       background: var(--page); max-width: 1000px; margin: 0 auto; padding: 32px 20px 80px; }
h1 { font-size: 26px; line-height: 1.3; margin: 4px 0 12px; font-weight: 650; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 44px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 24px 0 4px; }
p, figcaption, .facts { color: var(--soft); margin: 6px 0; max-width: 78ch; }
.facts { font-size: 13px; max-width: none; }
.note { color: var(--ink); border-left: 3px solid #e69f00; padding: 2px 12px; margin: 10px 0; }
/* a shadow at the edge behind which there is more: covers of the page's colour scroll with the content, it does not */
.scroll { overflow-x: auto; background:
    linear-gradient(to right, var(--page) 30%, transparent) left / 48px 100% no-repeat local,
    linear-gradient(to left, var(--page) 30%, transparent) right / 48px 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / 16px 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / 16px 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 12px 0; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--rule);
     vertical-align: bottom; }
th, td { padding: 5px 18px 5px 0; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
tr.total td { font-weight: 650; border-top: 2px solid var(--rule); border-bottom: 0; }
small { color: var(--soft); font-size: 12px; font-weight: 400; }
.good { color: var(--good); font-weight: 650; } .bad { color: var(--bad); font-weight: 650; }
figure { margin: 12px 0 24px; } figure img { max-width: 100%; display: block; background: #fff; }
figure video { max-width: 100%; display: block; background: var(--line); margin-bottom: 8px; }
figcaption { font-size: 13px; } a { color: var(--real); }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--real); }
.text td, .text th { text-align: left !important; }
.folded th, .folded td:first-child { white-space: normal; } .folded th { min-width: 5em; padding-right: 14px; }
.second td:nth-child(2), .second th:nth-child(2) { text-align: left; white-space: normal; }
.second td:first-child { white-space: nowrap; }
.settings td { white-space: normal; word-break: break-word; padding-top: 2px; padding-bottom: 2px; font-size: 13px; }
@media (max-width: 700px) { figure .scroll img { max-width: none; width: 760px; } }
@media print { details { display: none; } body { max-width: none; } figure { break-inside: avoid; } }
"""


def write_page(path: Path, title: str, sections: Iterable[str]) -> Path:
    """Write a whole document and return its path; empty sections are left out."""
    body = "\n".join(section for section in sections if section)
    html = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def heading(
    kind: str, said: str, notes: Iterable[str], folder: Path, summary: Mapping[str, Any], config: Json, env: Json
) -> str:
    """The head of a run's page: its result in a sentence, what to beware of, and what made it.

    Args:
        kind: of the page, in a word.
        said: the result.
        notes: a sentence each.
        folder: of the run.
        summary, config, env: the content of the files of these names; what they lack is left out.
    """
    worked = summary.get("worked_seconds")
    facts = {
        "run": folder.resolve().name,
        "preset": summary.get("preset", config.get("preset")),
        "seeds": ", ".join(map(str, summary.get("seeds") or config.get("seeds") or [])),
        # what a run from before did in its pauses nobody knows
        "working time" if worked is not None else "time since it began": duration(
            summary.get("seconds") if worked is None else worked
        ),
        "CPU time": duration(summary.get("cpu_seconds")),
        "device": env.get("device"),
        "renderer": summary.get("renderer"),
        "commit": summary.get("commit", env.get("commit")),
        "settings": summary.get("settings"),
    }
    line = " &nbsp; ".join(f"{name} <b>{escape(str(value))}</b>" for name, value in facts.items() if value)
    shown = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<p class="facts">worldaction {kind}</p>\n<h1>{escape(said)}</h1>\n{shown}\n<p class="facts">{line}</p>'


def made_by(config: Json, env: Json) -> str:
    """The section on the settings, the versions and the machine."""
    return section("What made it", details("Settings", listing(config)), details("Versions and machine", listing(env)))


def figure(folder: Path, name: str, plot: Plot, description: str, caption: str = "") -> str:
    """Write a figure and its numbers into the folder `curves`, and show it with a caption and a link to the numbers.

    Args:
        folder: of the page.
        name: of the figure's files.
        plot: the figure and its numbers.
        description: what is to be seen, for readers who cannot.
        caption: HTML.
    """
    image = _inside(save_figure(plot.figure, folder / "curves" / name, plot.data), "image/png")
    link = f'{caption} <a href="curves/{escape(name)}.csv">numbers (CSV)</a>'.strip()
    return (
        f'<figure><div class="scroll"><img alt="{escape(description)}" src="{image}"></div>'
        f"<figcaption>{link}</figcaption></figure>"
    )


def film(path: Path, folder: Path) -> str:
    """A film and the stills beside it: inside the page if it is small, linked by its relative path if not.

    Args:
        path: the MP4.
        folder: of the page.
    """
    name = path.relative_to(folder).as_posix()
    small = path.stat().st_size <= LARGEST_INSIDE
    source = _inside(path.read_bytes(), "video/mp4") if small else escape(name)
    title = " / ".join(path.relative_to(folder).with_suffix("").parts[1:]).replace("_", " ").replace("-", ", ")
    stills = path.with_suffix(".png")
    poster = f' poster="{_inside(_small(stills), "image/jpeg")}"' if stills.exists() else ""
    video = f'<video controls loop muted playsinline preload="metadata"{poster} src="{source}"></video>'
    if stills.exists():
        video += f'<img alt="stills of {escape(title)}" src="{_inside(stills.read_bytes(), "image/png")}">'
    link = f'<a href="{escape(name)}">{escape(name)}</a>'
    return f"<figure><h3>{escape(title)}</h3>{video}<figcaption>{link}</figcaption></figure>"


def details(summary: str, content: str) -> str:
    """Something that opens on a click; empty where there is no content."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>" if content else ""


def section(title: str, *parts: str) -> str:
    """A headed section; empty where all parts are."""
    content = "\n".join(part for part in parts if part)
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def squares(outcomes: Sequence[bool], *, side: int = 10, columns: int = 80) -> str:
    """Outcomes as small squares in reading order: filled for success, hollow for failure."""
    step = side + 2
    rows = -(-len(outcomes) // columns)
    width = min(len(outcomes), columns) * step
    marks = []
    for i, success in enumerate(outcomes):
        x, y = i % columns * step + 1, i // columns * step + 1
        fill = "#0072b2" if success else "none"
        marks.append(
            f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{fill}" stroke="#9aa3ad" stroke-width="1"/>'
        )
    size = f'width="{width + 1}" height="{rows * step + 1}"'
    return f'<svg {size} role="img" aria-label="{sum(outcomes)} of {len(outcomes)}">{"".join(marks)}</svg>'


def listing(values: Mapping[str, Any]) -> str:
    """Nested settings as a table of dotted names; empty where there are none."""
    rows = [(name, str(value)) for name, value in flatten(dict(values)).items() if name]
    return Table(("name", "value"), rows).html("text settings") if rows else ""


def _small(picture: Path, width: int = 640) -> bytes:
    """A picture as a JPEG of at most so many pixels, which is shown in full elsewhere."""
    buffer = io.BytesIO()
    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((width, width))
        small.save(buffer, format="JPEG", quality=70)
    return buffer.getvalue()


def _inside(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"

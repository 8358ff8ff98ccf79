"""The few pieces of HTML that a report is made of: one file that holds its pictures and needs no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

LARGEST_INSIDE = 2_000_000
"""Bytes up to which a film is stored inside the page; larger ones stay beside it."""

_CSS = """
:root { --ink: #1c1e21; --soft: #5f6670; --line: #e3e6ea; --good: #00795a; --bad: #b54a00; --real: #0072b2; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink); background: #fff;
       max-width: 1000px; margin: 0 auto; padding: 32px 20px 80px; }
h1 { font-size: 26px; line-height: 1.3; margin: 4px 0 12px; font-weight: 650; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 44px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 24px 0 4px; }
p, figcaption, .facts { color: var(--soft); margin: 6px 0; max-width: 78ch; }
.facts { font-size: 13px; max-width: none; }
.note { color: var(--ink); border-left: 3px solid #e69f00; padding: 2px 12px; margin: 10px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 12px 0; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid #b9bfc7; vertical-align: bottom; }
th, td { padding: 5px 18px 5px 0; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
tr.total td { font-weight: 650; border-top: 2px solid #b9bfc7; border-bottom: 0; }
small { color: var(--soft); font-size: 12px; font-weight: 400; }
.good { color: var(--good); font-weight: 650; } .bad { color: var(--bad); font-weight: 650; }
figure { margin: 12px 0 24px; } figure img { max-width: 100%; display: block; }
figure video { max-width: 100%; display: block; background: #f4f5f7; margin-bottom: 8px; }
figcaption { font-size: 13px; } a { color: var(--real); }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--real); }
.text td, .text th { text-align: left !important; }
.folded th, .folded td:first-child { white-space: normal; } .folded th { min-width: 5em; padding-right: 14px; }
.second td:nth-child(2), .second th:nth-child(2) { text-align: left; white-space: normal; }
.second td:first-child { white-space: nowrap; }
.settings td { white-space: normal; word-break: break-word; padding-top: 2px; padding-bottom: 2px; font-size: 13px; }
@media print { details { display: none; } body { max-width: none; } figure { break-inside: avoid; } }
"""


def page(title: str, sections: Iterable[str]) -> str:
    """A whole document; empty sections are left out."""
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, total: Sequence[str] = (), kind: str = "") -> str:
    """A table; the first column is text, the others are numbers. Cells are HTML, so that they can be marked up.

    Args:
        head: names of the columns.
        rows: as many cells each.
        total: a last row that stands out.
        kind: "text" where the other columns are text too, "text settings" for long lists; "folded" where names and
            heads may take several lines, "folded second" where the second column is text.
    """
    lines = [_row("th", head)] + [_row("td", row) for row in rows]
    if total:
        lines.append(_row("td", total, kind="total"))
    return f'<div class="scroll"><table class="{kind or "numbers"}">\n' + "\n".join(lines) + "\n</table></div>"


def picture(png: bytes, description: str, *, csv: str = "", caption: str = "") -> str:
    """A picture inside the page, with a caption and a link to its numbers.

    Args:
        png: the file's bytes.
        description: what is to be seen, for readers who cannot.
        csv: relative path of the numbers.
        caption: HTML.
    """
    link = f'<a href="{escape(csv)}">numbers (CSV)</a>' if csv else ""
    text = f"<figcaption>{' '.join(part for part in (caption, link) if part)}</figcaption>" if caption or link else ""
    return f'<figure><img alt="{escape(description)}" src="{_inside(png, "image/png")}">{text}</figure>'


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
    video = f'<video controls loop muted playsinline preload="metadata" src="{source}"></video>'
    stills = path.with_suffix(".png")
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
    rows = [(escape(name), escape(str(value))) for name, value in _flat(values)]
    return table(("name", "value"), rows, kind="text settings") if rows else ""


def duration(seconds: float | None) -> str:
    """A time in words; empty where it is not known."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted names."""
    result: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        result += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return result


def _row(tag: str, cells: Sequence[str], kind: str = "") -> str:
    content = "".join(f"<{tag}{' class=number' if i else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
    return f'<tr class="{kind}">{content}</tr>' if kind else f"<tr>{content}</tr>"


def _inside(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"

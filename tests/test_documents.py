"""The documents are true of the tree: files and folders that they name exist, and links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from paths import PENDING, ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "tests/data/README.md",
]
TOP = "worldaction|envs|agents|experiments|tests|docs"
EXAMPLES = re.compile(r"[<*]|my_|\.\.\.|-v\d$|cubins")
"""A path with one of these stands for many, is a user's own, an environment's id, or made by a build."""


def paths(text: str) -> Iterator[str]:
    """What looks like a path from the top of the tree."""
    yield from re.findall(rf"(?<![\w./-])(?:{TOP})/[\w./<>*-]*", text)


def links(text: str) -> Iterator[str]:
    """Targets of links and pictures."""
    yield from re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@cache
def anchors(document: Path) -> set[str]:
    """What a link can name in a document: its headings, as GitHub writes them."""
    found = re.findall(r"^#+ +(.*)$", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_folder_that_a_document_names_exists(document: Path) -> None:
    named = {path.rstrip(".") for path in paths(document.read_text()) if not EXAMPLES.search(path)}
    assert sorted(path for path in named if not (ROOT / path).exists() and path not in PENDING) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_or_a_heading_that_is_there(document: Path) -> None:
    broken = []
    for link in links(document.read_text()):
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", link) or target in PENDING:
            continue
        file = (document.parent / target).resolve() if target else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def test_nothing_is_pending_that_is_here() -> None:
    assert [path for path in sorted(PENDING) if (ROOT / path).exists()] == [], "take them out of PENDING in paths.py"

"""What the package says of itself: one address, and a README that a package index can show."""

from __future__ import annotations

import ast
import re
import runpy
from functools import cache
from typing import Any

import pytest
import setuptools
from paths import PENDING, ROOT

REPOSITORY = re.findall(r'^REPOSITORY = "(.+)"$', (ROOT / "setup.py").read_text(), re.M)[0]


@cache
def said() -> dict[str, Any]:
    """The arguments of `setup`, which is not run."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **values: found.update(values))
        runpy.run_path(str(ROOT / "setup.py"))
    return found


def test_every_link_and_picture_of_the_readme_is_absolute_on_a_package_index() -> None:
    shown = said()["long_description"]
    targets = re.findall(r"\]\(([^)\s]+)\)", shown)
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    pictures = re.findall(r"!\[[^]]*]\(([^)]+)\)", shown)
    assert pictures
    assert all(picture.startswith(f"{REPOSITORY}/raw/main/") for picture in pictures)
    # what is behind them is in the tree
    for target in targets:
        for kind in ("raw", "blob"):
            path = target.partition("#")[0].removeprefix(f"{REPOSITORY}/{kind}/main/")
            assert path.startswith("https://") or (ROOT / path).exists() or path in PENDING, target


def test_the_project_has_addresses_for_what_people_look_for() -> None:
    assert said()["project_urls"].keys() == {"Source", "Documentation", "Issues", "Changelog"}
    assert all(url.startswith(REPOSITORY) for url in said()["project_urls"].values())


def test_no_file_gives_another_address_than_setup_py() -> None:
    owner = REPOSITORY.rpartition("/")[0]
    for name in ("README.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"):
        for url in re.findall(rf"{owner}/[\w.-]+", (ROOT / name).read_text()):
            assert url == REPOSITORY, name


def test_the_readme_is_one_page_with_one_figure() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    assert text.count("![") == 1


def test_pictures_and_test_data_travel_in_the_source_distribution() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text()
    for folder in ("docs", "tests"):
        (line,) = re.findall(rf"^recursive-include {folder} (.*)$", manifest, re.M)
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert {path.suffix for path in files} <= {pattern.removeprefix("*") for pattern in line.split()}


def test_the_tools_of_the_workflow_are_those_of_the_extra_test() -> None:
    extras = said()["extras_require"]["test"]
    workflow = (ROOT / ".github/workflows/tests.yml").read_text()
    assert {"ruff", "mypy", "pytest", "pytest-xdist"} <= set(extras)
    assert all(
        word in workflow for word in ("ruff check .", "ruff format --check .", "mypy", "pytest -n 2", ".ci/wheel")
    )
    versions = ast.literal_eval(re.findall(r"python: (\[.*\])", workflow)[0])
    classifiers = said()["classifiers"]
    assert [f"Programming Language :: Python :: {version}" in classifiers for version in versions] == [True] * 3


def test_every_package_that_the_tests_need_is_locked_by_its_hash() -> None:
    text = (ROOT / ".ci/locked.txt").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([\w.-]+)==\S+ --hash=sha256:[0-9a-f]{64}$", text, re.M))
    named = {*locked, *re.findall(r"^# ([\w.-]+)==", text, re.M)}
    needed = [*said()["install_requires"], *said()["extras_require"]["test"]]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in needed}  # type: ignore[index]
    assert {name.lower().replace("_", "-") for name in names} - {n.lower().replace("_", "-") for n in named} == set()
    assert {line for line in text.splitlines()[1:] if not re.match(r"# |[\w.-]+==\S+ --hash=", line)} == set()

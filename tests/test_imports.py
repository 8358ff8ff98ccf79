"""Which module imports which: no circle, imports inside functions and under TYPE_CHECKING included."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("worldaction", "envs", "agents", "experiments")


def import_graph(root: Path, packages: Iterable[str]) -> dict[str, set[str]]:
    """Modules, and the ones of these packages that each names in an import statement, wherever it stands."""
    paths = {_name(path.relative_to(root)): path for package in packages for path in root.glob(f"{package}/**/*.py")}
    return {name: _imported(ast.parse(path.read_text()), paths.keys()) - {name} for name, path in paths.items()}


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, modules: Iterable[str]) -> set[str]:
    known, found = set(modules), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0
            for alias in node.names:
                # a module inside the package, or a name of the module itself
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return found & known


def circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules of which each can be reached from each other one (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in graph[module]:
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.add(frozenset(group))

    for module in graph:
        if module not in number:
            visit(module)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(import_graph(ROOT, PACKAGES)) == set()


def test_packages_depend_on_each_other_in_one_direction() -> None:
    allowed = {"worldaction": set(), "envs": {"worldaction"}, "agents": {"worldaction"}, "experiments": set(PACKAGES)}
    for module, imported in import_graph(ROOT, PACKAGES).items():
        package = module.partition(".")[0]
        others = {other.partition(".")[0] for other in imported} - {package}
        assert others <= allowed[package], module


def test_circles_are_found_wherever_the_import_stands(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/__init__.py").touch()
    (tmp_path / "a/one.py").write_text("from a import two\n")
    (tmp_path / "a/two.py").write_text("def later():\n    import a.three\n")
    (tmp_path / "a/three.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.one import X\n"
    )
    (tmp_path / "a/four.py").write_text("from a.one import X\n")
    assert circles(import_graph(tmp_path, ["a"])) == {frozenset({"a.one", "a.two", "a.three"})}

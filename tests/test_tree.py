"""The tree keeps its promises: who may import whom and what libraries never do."""

import ast
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("worldaction", "envs", "agents", "experiments")
MAY_IMPORT = {
    "worldaction": {"worldaction"},
    "envs": {"envs", "worldaction"},
    "agents": {"agents", "worldaction"},
    "experiments": set(PACKAGES),
}
MAY_PRINT = ("experiments/", "envs/playtable/tools/")
MAY_UNPICKLE = "worldaction/play/readers/restricted.py"
PLUGIN = "experiments/lerobot/lerobot_policy_worldaction"
RUNS_ELSEWHERE = {
    "envs/calvin/server.py": {"calvin_env", "git", "hydra", "omegaconf"},
    **{
        f"{PLUGIN}/{name}.py": {"lerobot", "lerobot_policy_worldaction"}
        for name in ("__init__", "configuration_worldaction", "env_worldaction", "modeling_worldaction")
    },
    f"{PLUGIN}/processor_worldaction.py": {"lerobot", "lerobot_policy_worldaction"},
}
"""Files that run in an interpreter of the user's, and what they find there."""
NOT_OURS = {"tests", "conftest"}
EXECUTE_CODE = {"torch.load", "torch.save", "eval", "exec", "pickle.load", "pickle.loads", "yaml.load"}
SECONDS_TO_IMPORT = 6.0
SECONDS_TO_HELP = 1.0

Rule = Callable[[str, ast.AST], Iterator[str]]


def _python_files() -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def _imported(node: ast.AST) -> list[str]:
    """Top-level names that a statement imports; a relative import gives an empty one."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["" if node.level else str(node.module).partition(".")[0]]
    return []


# --- rules: what a node of a file does wrong, in words ----------------------------------------------------------------


def only_what_is_below(file: str, node: ast.AST) -> Iterator[str]:
    package = file.partition("/")[0]
    for name in _imported(node):
        if name == "" or name in NOT_OURS or (name in PACKAGES and name not in MAY_IMPORT[package]):
            yield f"{package} imports {name or 'relatively'}"


def declared_dependencies_only(file: str, node: ast.AST) -> Iterator[str]:
    for name in _imported(node):
        if name not in _declared() | set(sys.stdlib_module_names) | set(PACKAGES) | RUNS_ELSEWHERE.get(file, set()):
            yield f"{name} is not declared in setup.py"


def never_print(file: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and not file.startswith(MAY_PRINT):
        yield "prints"


def no_bare_except(_: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ExceptHandler) and node.type is None:
        yield "catches everything, unnamed"


def no_loading_path_executes_code(file: str, node: ast.AST) -> Iterator[str]:
    if file == MAY_UNPICKLE:
        return
    yield from (f"imports {name}" for name in _imported(node) if name in {"pickle", "dill", "joblib", "marshal"})
    if isinstance(node, ast.Call):
        if ast.unparse(node.func) in EXECUTE_CODE:
            yield f"calls {ast.unparse(node.func)}"
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                yield "unpickles arrays"


RULES = {
    only_what_is_below: "from envs.tasks import TASKS",
    declared_dependencies_only: "def f():\n    import pandas.core",
    never_print: "print(1)",
    no_bare_except: "try:\n    f()\nexcept:\n    pass",
    no_loading_path_executes_code: "np.load(path, allow_pickle=allow)",
}


def _declared() -> set[str]:
    """Import names of the dependencies in setup.py, extras included."""
    lists = [
        n.value for n in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body if isinstance(n, ast.Assign)
    ]
    texts = [c.value for n in lists for c in ast.walk(n) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
    names = {re.split(r"[^\w-]", text)[0].replace("-", "_") for text in texts}
    return {{"pillow": "PIL"}.get(name, name) for name in names}


def _broken(rule: Rule, file: str, text: str) -> list[str]:
    nodes = ast.walk(ast.parse(text, filename=file))
    return [f"{file}:{getattr(node, 'lineno', 0)} {wrong}" for node in nodes for wrong in rule(file, node)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_library_keeps_the_rule(rule: Rule) -> None:
    assert [w for file in _python_files() for w in _broken(rule, file, (ROOT / file).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(("rule", "text"), RULES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_rule_notices_who_breaks_it(rule: Rule, text: str) -> None:
    assert len(_broken(rule, "worldaction/bad.py", text)) == 1


def test_only_named_modules_are_excused() -> None:
    assert _broken(never_print, "experiments/calvin.py", "print(1)") == []
    assert _broken(no_loading_path_executes_code, MAY_UNPICKLE, "import pickle") == []
    for file, names in RUNS_ELSEWHERE.items():
        assert _broken(declared_dependencies_only, file, f"import {', '.join(names)}") == []


# --- the tree as a whole ----------------------------------------------------------------------------------------------


def test_no_folder_of_the_experiments_but_that_of_the_verbs_has_more_than_15_files() -> None:
    counts = Counter(Path(file).parent for file in _python_files() if file.startswith("experiments/"))
    # a verb of the command is one file there, and nothing else is
    assert {str(folder): count for folder, count in counts.items() if count > 15 and folder.name != "commands"} == {}


def test_every_folder_of_modules_is_a_package_and_gets_installed() -> None:
    folders = sorted({(ROOT / file).parent for file in _python_files()})
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_quickly(package: str) -> None:
    assert _best_time("-c", f"import {package}", enough=SECONDS_TO_IMPORT) < SECONDS_TO_IMPORT


def test_help_answers_at_once() -> None:
    assert _best_time("-m", "experiments.calvin", "--help", enough=SECONDS_TO_HELP) < SECONDS_TO_HELP


def test_the_version_is_written_once() -> None:
    found = re.findall(r'^__version__ = "(.+)"$', (ROOT / "worldaction/__init__.py").read_text(encoding="utf-8"), re.M)
    assert len(found) == 1
    assert [
        f for f in ("setup.py", "pyproject.toml") if f'"{found[0]}"' in (ROOT / f).read_text(encoding="utf-8")
    ] == []


def _best_time(*arguments: str, enough: float) -> float:
    """Seconds of a fresh interpreter: the best of three, because machines that test are busy."""
    times: list[float] = []
    while len(times) < 3 and (not times or times[-1] >= enough):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, timeout=60)
        times.append(time.perf_counter() - start)
    return min(times)

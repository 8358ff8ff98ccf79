"""Gymnasium makes our environments after an installation, without an import of theirs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from tiny_study import environment

from worldaction.registration import ENVIRONMENTS, register

HEAVY = ("torch", "mujoco", "envs", "agents", "experiments")


def fresh(script: str, folder: Path) -> str:
    """What a new process in another folder prints."""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment(), capture_output=True, text=True, timeout=90
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", ["worldaction/PlayTable-v0", "worldaction:worldaction/PlayTable-v0"])
def test_the_table_is_made_by_its_name_alone(tmp_path: Path, name: str) -> None:
    brought = "" if ":" in name else "import worldaction; "
    script = (
        f"import gymnasium; {brought}env = gymnasium.make({name!r}, cameras=False); "
        "observation, info = env.reset(seed=0); print(info['is_success'], observation['robot_obs'].shape)"
    )
    assert fresh(script, tmp_path).strip() == "False (15,)"


def test_the_registration_imports_none_of_what_it_names(tmp_path: Path) -> None:
    script = (
        f"import json, sys, worldaction, gymnasium; heavy = [n for n in {HEAVY!r} if n in sys.modules]; "
        "print(json.dumps([heavy, [n for n in gymnasium.registry if 'worldaction' in n]]))"
    )
    heavy, known = json.loads(fresh(script, tmp_path))
    assert heavy == []
    assert set(known) == set(ENVIRONMENTS)


@pytest.mark.parametrize("entry_point", ENVIRONMENTS.values())
def test_every_name_stands_for_a_class_that_is_there(entry_point: str) -> None:
    module, _, name = entry_point.partition(":")
    assert issubclass(getattr(importlib.import_module(module), name), gymnasium.Env)


def test_what_is_registered_already_is_left_alone() -> None:
    before = {name: gymnasium.registry[name] for name in ENVIRONMENTS}
    register()
    assert all(gymnasium.registry[name] is spec for name, spec in before.items())

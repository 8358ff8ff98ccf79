"""`worldaction jury` on a finished run of two seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import environment, finished_run, options, place, study

from experiments.commands.jury import table
from experiments.stages.jury import Heard
from worldaction.io.artefact import read_json

TASK = "turn_on_led"


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was made of seed 0 is not made again."""
    folder = tmp_path_factory.mktemp("jury")
    made = study(*options(run_dir="run", workers=1, cache=finished_run() / "cache"), "--seeds", "0", "1", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder / "run"


def jury(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments", "jury", str(run), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


def test_each_policy_of_each_seed_is_heard_beside_its_own_dreams_and_the_simulator(two_seeds: Path) -> None:
    said = jury(two_seeds)
    assert said.returncode == 0, said.stderr
    heard = json.loads((two_seeds / "jury.json").read_text())
    assert [(h["seed"], h["policy"]) for h in heard] == [(0, "bc"), (0, "ppo"), (1, "bc"), (1, "ppo")]
    for one in heard:
        where = f"seed{one['seed']}/{TASK}"
        real = read_json(place(two_seeds, f"{where}/evaluation") / "evaluation.json")[one["policy"]]
        assert one["real"] == real["successes"] / real["n"]
        imagined = read_json(place(two_seeds, f"{where}/ppo") / "manifest.json")["results"]["imagined"]
        assert one["own"] in [imagined[name]["success"] for name in imagined]
        assert one["jurors"] == [one["jury"]]
        assert 0 <= one["jury"] <= 1
    assert "rank correlation" in said.stdout


def test_one_seed_is_no_jury() -> None:
    said = jury(finished_run())
    assert said.returncode != 0
    assert "has one seed, 0" in said.stderr
    assert "--seeds" in said.stderr


def test_the_last_lines_say_who_goes_with_reality() -> None:
    real = (0.2, 0.4, 0.9)
    heard = [Heard("t", 0, str(n), real=r, own=1.0 - r, jury=r - 0.1, jurors=(r - 0.1,)) for n, r in enumerate(real)]
    own, jurors = table(heard).splitlines()[-2:]
    assert own == "own dreams and reality: rank correlation -1.00, +0 points apart, 53 either way"
    assert jurors == "the jury and reality: rank correlation 1.00, -10 points apart, 10 either way"

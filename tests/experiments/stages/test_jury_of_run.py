"""`worldaction jury` on a finished run of two seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_study import copied, environment, finished_run, options, place, study
from torch import Tensor

from experiments.commands.jury import table
from experiments.stages import jury as stage
from experiments.stages.jury import Heard
from experiments.stages.world_model import open_world_model
from experiments.study.run import Run
from experiments.study.settings import QUICK
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel

TASK = "turn_on_led"
KEY = "rssm.inner.gates.weight"


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was made of seed 0 is not made again."""
    folder = tmp_path_factory.mktemp("jury")
    cache = copied(finished_run() / "cache", folder / "cache")
    made = study(*options(run_dir="run", workers=1, cache=cache), "--seeds", "0", "1", cwd=folder)
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
        sampler = read_json(place(two_seeds, f"{where}/sampler") / "manifest.json")["results"]["sampler"]
        deterministic = one["policy"] == "bc" and sampler == "deterministic"
        assert one["own"] == imagined["bc_deterministic" if deterministic else one["policy"]]["success"]
        assert one["jurors"] == [one["jury"]]
    assert "rank correlation" in said.stdout


def test_a_juror_is_another_model_than_the_dreamers(two_seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def says(model: WorldModel, success: object, starts: Latent, actions: Tensor, **options: object) -> Tensor:
        asked.append(next(s for s, weights in known.items() if torch.equal(weights[KEY], model.state_dict()[KEY])))
        return torch.arange(len(actions))

    run = Run.open(two_seeds)
    known = {seed: open_world_model(run, seed).state_dict() for seed in (0, 1)}
    monkeypatch.setattr("agents.jury.replayed_success", says)
    heard = stage.hear(run, TASK)
    assert asked == [1, 1, 0, 0]
    # all but the first dream succeed
    dreams = run.study.evaluation.dreams
    assert {one.jury for one in heard} == {(dreams - 1) / dreams}


def test_one_task_leaves_what_was_heard_of_others(two_seeds: Path, tmp_path: Path) -> None:
    run = copied(two_seeds, tmp_path / "run")
    other = Heard("open_drawer", 0, "bc", real=0.5, own=0.6, jury=0.4, jurors=(0.4,))
    write_json(run / "jury.json", [other._asdict()])
    assert jury(run, "--tasks", TASK).returncode == 0
    assert [one["task"] for one in read_json(run / "jury.json")] == ["open_drawer", *[TASK] * 4]


def test_one_seed_is_no_jury() -> None:
    said = jury(finished_run())
    assert said.returncode != 0
    assert "has one seed, 0" in said.stderr
    assert "--seeds" in said.stderr


def test_the_last_lines_say_who_goes_with_reality() -> None:
    real = (0.2, 0.4, 0.9)
    heard = [Heard("t", 0, str(n), real=r, own=1.0 - r, jury=r - 0.1, jurors=(r - 0.1,)) for n, r in enumerate(real)]
    own, jurors = table([*heard, Heard("hard", 0, "bc", real=0.0, own=0.0, jury=0.0, jurors=(0.0,))]).splitlines()[-2:]
    assert own.startswith("own dreams and reality: rank correlation -1.00")
    own, jurors = table(heard).splitlines()[-2:]
    assert own == "own dreams and reality: rank correlation -1.00, +0 points apart, 53 either way"
    assert jurors == "the jury and reality: rank correlation 1.00, -10 points apart, 10 either way"


# A jury as the reward -------------------------------------------------------------------------------------------------


def test_jurors_are_the_next_seeds_of_a_ring_and_where_there_are_too_few_seeds_of_their_own() -> None:
    asked = replace(QUICK.update, jury=2)
    three, one = replace(QUICK, seeds=(4, 0, 7), update=asked), replace(QUICK, seeds=(4,), update=asked)
    assert [three.jurors(seed) for seed in three.seeds] == [(0, 7), (7, 4), (4, 0)]
    assert three.model_seeds == three.seeds
    assert one.jurors(4) == (5, 6)
    assert one.model_seeds == (4, 5, 6)
    assert replace(one, update=QUICK.update).jurors(4) == ()


def test_a_run_of_one_seed_trains_a_juror_and_its_policies_are_others_for_it(tmp_path: Path) -> None:
    cache = copied(finished_run() / "cache", tmp_path / "cache")
    made = study(*options(run_dir="run", workers=1, cache=cache), "--update.jury", "1", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    run = Run.open(tmp_path / "run")
    places = {name.partition("/")[0] for name in run.artefacts()}
    assert places == {"play", "seed0", "seed1"}
    assert run.world_model(1).complete
    assert run.task(1, TASK, "success").complete
    # a juror has no policies
    assert not run.task(1, TASK, "clone").complete
    told = run.task(0, TASK, "ppo").results["imagined"]["ppo"]
    # two models are asked, of which one has seen all successes
    assert told["success"] / 2 <= told["jury"] <= told["success"]
    alone = Run.open(finished_run()).task(0, TASK, "ppo")
    assert run.task(0, TASK, "ppo").digest != alone.digest
    assert "jury" not in alone.results["imagined"]["ppo"]

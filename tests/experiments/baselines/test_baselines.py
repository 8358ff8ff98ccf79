"""Baselines as a user runs them on a finished run: what each leaves, what is counted, what is refused, what resumes."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_study import ROOT, SETTINGS, copied, environment, finished_run, place

from agents.bc import demonstration_chunks
from agents.policies.diffusion import DiffusionOptions, DiffusionPolicy
from experiments.baselines import BASELINES, bc_pixels
from experiments.baselines.__main__ import main
from experiments.baselines.base import Demonstrations, Learned, policy_of
from experiments.guard import guarded
from experiments.report.statistics import wilson
from worldaction.config import CloneConfig, PolicyConfig, TableConfig, WorldModelConfig
from worldaction.io.recorder import read_metrics
from worldaction.spec import ACTION, CALVIN, ROBOT, STATIC

TASK = "turn_on_led"
STEPS = SETTINGS["update.dreams"] * SETTINGS["table.max-steps"]
"""One batch of dreams."""
METHODS = (
    "bc_pixels", "bc_proprio", "dppo", "sb3_ppo", "sb3_ppo_dream", "sb3_sac",
)  # fmt: skip
REAL, DREAMED = {"dppo", "sb3_ppo", "sb3_sac"}, {"sb3_ppo_dream"}


def arguments(run: Path, *more: str) -> list[str]:
    return [str(run), "--steps", str(STEPS), "--workers", "1", *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with all baselines; not to be changed."""
    folder = tmp_path_factory.mktemp("baselines") / "run"
    copied(finished_run(), folder)
    main(arguments(folder))
    return folder


def values(run: Path, method: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "baselines" / f"{method}-{TASK}-seed0/manifest.json").read_text())
    return {**found["results"], "made_by": found["made_by"]}


# What comes out -------------------------------------------------------------------------------------------------------


def test_one_baseline_is_one_file_that_bears_its_name() -> None:
    found = BASELINES.own()
    assert set(found) == set(METHODS)
    for name in METHODS:
        cls = BASELINES.find(name)
        assert (cls.name, cls.__module__) == (name, f"experiments.baselines.{name}")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_how_it_did_at_the_runs_own_start_states_and_what_it_took(run: Path, method: str) -> None:
    found, own = values(run, method), json.loads((run / "evaluation" / f"{TASK}-seed0.json").read_text())
    assert found["evaluation"]["index"] == own["ppo"]["index"]
    assert max(found["evaluation"]["steps"]) <= SETTINGS["table.max-steps"]
    successes, n = found["evaluation"]["successes"], found["evaluation"]["n"]
    assert (found["rate"], found["interval"]) == (successes / n, list(wilson(successes, n)))
    assert found["cpu_seconds"] > 0
    # one batch of real episodes warms the critic up
    assert (found["gradient_steps"] > 0) == (method != "dppo")
    assert (0 < found["real_steps"] <= STEPS) == (method in REAL)
    assert (0 < found["imagined_steps"] <= STEPS) == (method in DREAMED)
    assert found["real_steps"] == 0 or method in REAL
    assert found["imagined_steps"] == 0 or method in DREAMED


def test_cloned_policies_take_the_gradient_steps_of_the_runs_own(run: Path) -> None:
    for method in ("bc_proprio", "bc_pixels"):
        assert values(run, method)["gradient_steps"] == SETTINGS["clone.steps"]
    store = json.loads((run / "artefacts" / "play" / "store" / "store.json").read_text())
    demos = [e["length"] for e in store["episodes"] if e["kind"] == "demo" and e["split"] == "training"]
    assert values(run, "bc_pixels")["recorded_frames"] == sum(demos)
    assert values(run, "sb3_ppo_dream")["recorded_frames"] == sum(e["length"] for e in store["episodes"])
    assert values(run, "sb3_sac")["recorded_frames"] == 0


def test_the_table_has_a_row_for_every_method_beside_the_runs_own(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments(run))
    shown = capsys.readouterr().out
    main(arguments(run, "--markdown"))
    printed = capsys.readouterr().out
    for method in ("bc", "ppo", *METHODS):
        # one in either table
        assert sum(line.split()[0] == method for line in shown.splitlines() if line.split()) == 2, method
        assert printed.count(f"| {method} |") == 2
    with open(run / "baselines" / "baselines.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"bc", "ppo", *METHODS}
    for method in METHODS:
        for name in ("real_steps", "imagined_steps", "recorded_frames"):
            assert int(rows[method][name]) == values(run, method)[name]
    own = json.loads((run / "evaluation" / f"{TASK}-seed0.json").read_text())
    assert [int(rows[name]["successes"]) for name in ("bc", "ppo")] == [own[n]["successes"] for n in ("bc", "ppo")]
    # fine-tuning goes on from the cloned policy: its steps and time are counted, too
    tuned = sum(line["ppo/policy_steps"] for line in read_metrics(run) if line["prefix"] == f"seed0/{TASK}")
    assert int(rows["ppo"]["gradient_steps"]) == SETTINGS["clone.steps"] + tuned
    assert int(rows["dppo"]["gradient_steps"]) == SETTINGS["clone.steps"] + values(run, "dppo")["gradient_steps"]


def test_the_run_itself_is_left_as_it_was(run: Path) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {name: (folder / name).read_bytes() for name in (str(p.relative_to(folder)) for p in files)}

    assert {k: v for k, v in content(run).items() if not k.startswith("baselines")} == content(finished_run())


# A second time --------------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again_and_what_is_missing_comes_out_the_same(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "run"
    copied(run, again)
    missing = ["sb3_ppo_dream", "dppo", "sb3_ppo"]
    for method in missing:
        shutil.rmtree(again / "baselines" / f"{method}-{TASK}-seed0")
    before = {path: path.stat().st_mtime_ns for path in (again / "baselines").glob("*/manifest.json")}
    main(arguments(again))
    assert len(before) == len(METHODS) - len(missing)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for method in missing:
        ours, first = values(again, method), values(run, method)
        assert {k: v for k, v in ours.items() if k != "cpu_seconds"} == {
            k: v for k, v in first.items() if k != "cpu_seconds"
        }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--episodes", "1"], "was made with episodes = 2, not 1"),
        (["--episodes", "3"], "tested at 2 start states"),
        (["--methods", "sb3_td3"], "unknown method 'sb3_td3'; did you mean"),
        (["--methods", "gaussian_ppo"], "'gaussian_ppo' is a study of its own now: python -m experiments.calvin"),
        (["--methods", "no_such_module:Mine"], "no_such_module"),
        (["--methods", "json:dumps"], "is no experiments.baselines.base:Baseline"),
        (["--tasks", "open_drawer"], "unknown task of this run 'open_drawer'"),
        (["--seeds", "7"], "unknown seed of this run '7'"),
        (["--steps", "0"], "--steps 0: give 1 or more"),
        (["--methods", "dppo", "--steps", "999"], "was made with steps = 128, not 999"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert guarded(lambda: main(arguments(run, *more))) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_a_budget_below_one_batch_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "run"
    copied(finished_run(), copy)
    for method in ("dppo", "sb3_ppo_dream"):
        assert guarded(lambda m=method: main([str(copy), "--methods", m, "--steps", "3"])) == 2  # type: ignore[misc]
        assert f"less than one batch of {method}" in capsys.readouterr().err
        assert not list((copy / "baselines").glob(f"*-{TASK}-seed0"))


def test_an_unfinished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "run"
    copied(finished_run(), copy)
    (place(copy, f"seed0/{TASK}/evaluation") / "manifest.json").unlink()
    assert guarded(lambda: main([str(copy)])) == 2
    assert "is not finished (turn_on_led, seed 0); go on with it: python -m" in capsys.readouterr().err


MINE = """
import torch
from experiments.baselines.base import Baseline, Greedy, Learned

class Still(Baseline):
    name = "still"
    sees = "latents"
    data = "play"
    settings = {"speed": 0.0}

    def learn(self, task_run, *, budget, record):
        record(50, {"loss": 1.0})
        return Learned(task_run.model, Greedy(lambda feature: torch.zeros(len(feature), 2, 7), chunk=2))
"""


def test_a_baseline_of_ones_own_is_one_file_anywhere(tmp_path: Path) -> None:
    copied(finished_run(), tmp_path / "run")
    (tmp_path / "mine.py").write_text(MINE)
    command = [sys.executable, "-m", "experiments.baselines", "run", "--methods", "mine:Still"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=90)
    assert result.returncode == 0, result.stderr
    assert "still" in result.stdout
    found = values(tmp_path / "run", "still")
    assert found["evaluation"]["successes"] == 0
    assert found["made_by"]["speed"] == 0.0
    assert (tmp_path / "run" / "baselines" / "metrics" / f"still-{TASK}-seed0" / "metrics.jsonl").exists()


def test_help_answers_at_once_without_torch() -> None:
    script = (
        "import sys, experiments.baselines.__main__ as m; m._parser().format_help(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment(), check=True, timeout=30)


# bc_pixels ------------------------------------------------------------------------------------------------------------


def test_shifted_images_are_the_same_seen_from_beside_with_a_border_that_is_repeated() -> None:
    torch.manual_seed(0)
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    image = torch.stack([row, column, row * 0], -1).to(torch.uint8)
    moved = bc_pixels.shifted(image.expand(400, 8, 8, 3), 2)
    assert moved.dtype == torch.uint8
    by = moved[:, 4, 4, :2].int() - 4
    assert by.unique(dim=0).shape == (25, 2)
    for index in range(30):
        expected = torch.stack([(row + by[index, 0]).clamp(0, 7), (column + by[index, 1]).clamp(0, 7)], -1)
        assert moved[index, :, :, :2].int().equal(expected)
    assert bc_pixels.shifted(moved, 0).equal(moved)


def test_cloning_from_pixels_learns_what_only_the_image_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Light frames ask for one action and dark ones for its opposite; the robot's numbers are the same."""
    generator = torch.Generator().manual_seed(0)
    light = torch.rand(120, generator=generator) > 0.5
    shade = torch.where(light, 200, 40)[:, None, None, None]
    image = (shade + torch.randint(-30, 30, (120, 16, 16, 3), generator=generator)).to(torch.uint8)
    action = torch.where(light, 0.7, -0.7)[:, None] * torch.ones(7)
    frames = {STATIC: image, ROBOT: torch.zeros(120, 15), ACTION: action}
    chunks = torch.cat([demonstration_chunks(one[None], 2) for one in action])
    monkeypatch.setattr(bc_pixels, "demonstrated_frames", lambda task_run: Demonstrations(torch.arange(120), chunks))
    here: Any = SimpleNamespace(
        store=SimpleNamespace(frames=frames, meta=SimpleNamespace(layout=CALVIN)),
        study=SimpleNamespace(
            clone=CloneConfig(steps=500, batch=64, lr=3e-3, ema=0.9),
            policy=PolicyConfig(chunk=2),
            world_model=WorldModelConfig(cameras=(STATIC,), depth=4, patch=2, embed=16),
            table=TableConfig(image_size=16),
        ),
        head=(DiffusionPolicy, DiffusionOptions(denoising_steps=5, width=64)),
        device=torch.device("cpu"),
        seed=0,
        task=TASK,
    )
    learned = bc_pixels.BCPixels().learn(here, budget=0, record=lambda step, figures: None)
    assert isinstance(learned, Learned)
    policy = policy_of(here, learned)
    seen = {STATIC: image[:40].numpy(), ROBOT: np.zeros((40, 15), np.float32)}
    action_taken, _ = policy.predict(seen)
    wanted = np.where(light[:40, None], 0.7, -0.7)
    assert np.abs(action_taken[:, :6] - wanted).mean() < 0.15
    assert (np.sign(action_taken) == np.sign(wanted)).mean() > 0.97

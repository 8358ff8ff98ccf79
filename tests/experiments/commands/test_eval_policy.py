"""A saved policy is evaluated and filmed from its folder alone, and comes to what its study found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tiny_study import SETTINGS, environment, finished_run

from envs.general.standard import Standard
from experiments import __main__ as cli
from experiments.guard import guarded
from experiments.stages.rollout import _command
from worldaction.config import GymConfig
from worldaction.interface import ActionScale, RobotInterface
from worldaction.io.atomic import write_json

NAME = "turn_on_led-seed0-ppo"
EPISODES = SETTINGS["evaluation.episodes"]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A copy of a policy alone, far from its run."""
    return Path(shutil.copytree(finished_run() / "policies" / NAME, tmp_path / NAME))


def change(policy: Path, **values: Any) -> None:
    config = json.loads((policy / "config.json").read_text())
    write_json(policy / "config.json", config | values)


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert guarded(lambda: cli.command(list(map(str, arguments)))) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_a_policy_alone_comes_to_what_its_run_found(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = policy.parent / "outcomes.json"
    cli.command(["eval", str(policy), "--first", "0", "--episodes", str(EPISODES), "--out", str(out)])
    found = json.loads(out.read_text())
    own = json.loads((finished_run() / "evaluation" / "turn_on_led-seed0.json").read_text())["ppo"]
    assert {key: found[key] for key in own} == own
    assert (found["task"], found["env"]) == ("turn_on_led", "worldaction/PlayTable-v0")
    said = capsys.readouterr().out
    assert f"turn_on_led in worldaction/PlayTable-v0: {own['successes']} of {EPISODES}, " in said
    assert f"start states 0 to {EPISODES - 1}" in said


def test_a_policy_is_filmed(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(policy.parent)
    cli.command(["video", NAME, "--episodes", "2"])
    cli.command(["eval", NAME, "--episodes", "1", "--video"])
    cli.command(["eval", NAME, "--episodes", "1", "--video", "films/one.mp4"])
    for film in (Path(f"{NAME}.mp4"), Path("films/one.mp4")):
        assert film.stat().st_size > 1000
        assert film.with_suffix(".png").exists()


def test_another_environment_of_the_same_kind_can_be_named(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "support"))
    out = policy.parent / "outcomes.json"
    cli.command(["eval", str(policy), "--env", "judges:Twin", "--episodes", "1", "--out", str(out)])
    assert json.loads(out.read_text())["index"] == [450]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--in", "worldaction/Calvin-v0"], "--in: .* is a policy's folder; leave it out, or give that of a run"),
        (["--seeds", "0"], "--seeds: .* is a policy's folder"),
        (["--episodes", "0"], "--episodes 0: give 1 to 550"),
        (["--first", "1000"], "--first 1000: there are 1000 start states of turn_on_led; give 0 to 999"),
        (["--env", "Pendulum-v1"], "leave out Pendulum-v1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    policy: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert re.search(said, refused(capsys, "eval", policy, *arguments))


def test_a_policy_that_knows_no_environment_says_so(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(policy, env=None)
    assert "does not say where it was evaluated" in refused(capsys, "eval", policy)


def test_options_of_policies_are_none_of_runs_and_a_run_names_its_policies(capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_run()
    assert "is a run's folder" in refused(capsys, "eval", run, "--video")
    assert "give one of its policies, such as" in refused(capsys, "video", run)
    assert "has no config.json" in refused(capsys, "video", run / "policies")


@pytest.mark.parametrize(
    "arguments", [["--episodes", "9999"], ["--tasks", "none"], ["--in", "worldaction/PlayTable-v0"]]
)
def test_what_a_run_s_settings_rule_out_is_refused_before_torch_is_imported(arguments: list[str]) -> None:
    assert "torch" not in imported_by("eval", str(finished_run()), *arguments)


def test_a_policy_without_an_environment_is_refused_before_torch_is_imported(policy: Path) -> None:
    change(policy, env=None)
    assert "torch" not in imported_by("eval", str(policy))


def imported_by(*arguments: str) -> list[str]:
    """What a refused command has imported."""
    script = (
        "import sys; from experiments import __main__ as cli; from experiments.guard import guarded\n"
        f"assert guarded(lambda: cli.command({list(arguments)!r})) == 2\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_simulator_with_a_range_of_its_own_is_told_the_robot_s_units() -> None:
    recorded = RobotInterface(scale=ActionScale((-1.0,), (1.0,)))
    policy: Any = SimpleNamespace(interface=recorded)
    env = Standard(gym.make("Pendulum-v1"), GymConfig(success_reward=-0.02), image_size=16)
    # recorded up to 1 of the 2 that the motor can do
    told = _command(policy, env, np.array([1.0], np.float32))
    np.testing.assert_allclose(env.from_unit(told), [1.0])
    policy.interface = RobotInterface()
    np.testing.assert_allclose(_command(policy, env, np.array([1.0], np.float32)), [1.0])
    env.close()

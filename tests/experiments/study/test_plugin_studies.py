"""A policy head and a policy update, each one file in a folder of the user's, run a whole study by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_study import options, study

from agents.policies.tools.scaffold import new_policy
from agents.policy import Policy
from agents.updates.tools.scaffold import new_update
from experiments.__main__ import command
from worldaction.errors import UserError
from worldaction.io.recorder import read_metrics

TASK = "turn_on_led"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a head and an update were written and a study was run with them."""
    folder = tmp_path_factory.mktemp("plugins")
    new_policy("my_head", folder)
    new_update("my_update", folder)
    chosen = ["--policy", "my_head:MyHead,width=24", "--update", "my_update:MyUpdate,baseline=0.4"]
    result = study(*options(run_dir="run", workers=1), *chosen, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_the_study_runs_to_its_report(folder: Path) -> None:
    assert (folder / "run" / "report.html").exists()
    found = json.loads((folder / "run" / "evaluation" / f"{TASK}-seed0.json").read_text())
    assert {"bc", "myupdate"} <= found.keys()
    assert "ppo" not in found
    # its metrics bear the name in its file, and the page finds them all the same
    assert "MYUPDATE diagnostics" in (folder / "run" / "report.html").read_text()


def test_the_options_of_the_command_line_arrived(folder: Path) -> None:
    config = json.loads((folder / "run" / "policies" / f"{TASK}-seed0-bc" / "config.json").read_text())
    assert config["actor"]["head"] == "my_head:MyHead"
    # said on the command line, and the head's own
    assert (config["actor"]["width"], config["actor"]["std"]) == (24, 0.2)
    metrics = {key for line in read_metrics(folder / "run") for key in line}
    assert {"my_update/divergence", "my_update/policy_steps", "imagined/success"} <= metrics
    assert not any(key.startswith("ppo/") for key in metrics)


def test_its_policies_are_loaded_where_the_head_is_at_hand_and_nowhere_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = folder / "run" / "policies" / f"{TASK}-seed0-myupdate"
    with pytest.raises(UserError, match="'my_head:MyHead' is not imported"):
        Policy.from_pretrained(saved)
    monkeypatch.syspath_prepend(str(folder))
    head = __import__("my_head").MyHead
    for policy in (Policy.from_pretrained(saved), Policy.from_pretrained(saved, head=head)):
        assert isinstance(policy.actor.base, head)  # type: ignore[union-attr]
        size = policy.model.config.image_size
        seen = {key: np.zeros((size, size, 3), np.uint8) for key in policy.model.config.cameras}
        numbers = np.zeros(policy.model.config.layout.robot, np.float32)
        assert policy.select_action(seen | {"robot_obs": numbers}).shape == (7,)


@pytest.mark.parametrize(
    ("policy", "update", "option"),
    [("gaussian,layers=1", "grpo,group=4", "layers"), ("flow,steps=2", "filtered_bc", "steps")],
)
def test_heads_and_updates_of_ours_run_by_name(policy: str, update: str, option: str, tmp_path: Path) -> None:
    result = study(*options(run_dir="run", workers=1), "--policy", policy, "--update", update, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    name = update.partition(",")[0]
    assert name.replace("_", " ").upper() in result.stdout + result.stderr
    found = Policy.from_pretrained(tmp_path / "run" / "policies" / f"{TASK}-seed0-{name}")
    head, _, value = policy.partition(",")
    assert found.actor.base.name == head  # type: ignore[union-attr]
    assert found.actor.config[option] == int(value.partition("=")[2])


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--policy", "nobody:Mine", "policy 'nobody:Mine': there is no module 'nobody'"),
        ("--policy", "gaussian,depth=3", "unknown option of policy gaussian: 'depth'"),
        ("--update", "agents.updates.critic:Critic", "'Critic' is no agents.updates.base:Update there"),
        ("--update", "grpo,group=1", "update grpo: group 1: give 2 or more"),
        ("--update", "grpo,group=7", "is no multiple of the group of 7 dreams"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(option: str, value: str, words: str, folder: Path) -> None:
    from experiments.study.resolve import resolve
    from experiments.study.settings import DEBUG, replace

    name = option.removeprefix("--")
    section = replace(getattr(DEBUG, name), name=value)
    with pytest.raises(UserError, match=words):
        resolve(replace(DEBUG, **{name: section}))


@pytest.mark.parametrize("target", ["policy gaussian,width=3", "update grpo,group=4"])
def test_plug_ins_are_examined_without_options(target: str) -> None:
    kind, text = target.split()
    with pytest.raises(UserError, match=f"{kind} '{text}' is examined without options; give {text.partition(',')[0]}"):
        command(["check", kind, text])


@pytest.mark.parametrize(("kind", "name", "checks"), [("policy", "diffusion", 10), ("update", "reinforce", 6)])
def test_the_verdict_names_what_was_checked(
    kind: str, name: str, checks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command(["check", kind, name])
    said = capsys.readouterr().out
    assert said.count("ok   ") == checks
    assert f"{name} keeps to the contract" in said

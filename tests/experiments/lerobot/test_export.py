"""An exported policy is a folder that LeRobot's own loader loads, steps as ours does, and evaluates in its own loop."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_study import environment, finished_run

from experiments import __main__ as cli
from experiments.guard import guarded
from experiments.lerobot.export import PLUGIN
from worldaction.interface import ActionScale, RobotCamera, RobotInterface
from worldaction.io.atomic import plain, write_json
from worldaction.io.sealed_json import read_json

NAME = "turn_on_led-seed0-ppo"
INTERFACE = RobotInterface(
    "lerobot",
    30.0,
    (RobotCamera("rgb_static", "observation.images.top", 48, 64),),
    ("observation.state",),
    ActionScale((-50.0,) * 7, (100.0,) * 7),
)
needs_lerobot = pytest.mark.skipif(
    importlib.util.find_spec("lerobot") is None, reason="the lerobot package is not installed here"
)

STEP = """
import json, sys
import numpy as np, torch
from lerobot.utils.import_utils import register_third_party_plugins
register_third_party_plugins()
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from agents.policy import Policy
from envs.benchmark import env_of

exported, own, camera = sys.argv[1:]
config = PreTrainedConfig.from_pretrained(exported)
theirs = get_policy_class(config.type).from_pretrained(exported, config=config, strict=True)
before, behind = make_pre_post_processors(config, pretrained_path=exported)
ours = Policy.from_pretrained(own)
env = env_of(ours)
for seed in (5_000_001, 5_000_002):
    seen, done, frames = *env.reset(seed=seed)[:1], False, 0
    theirs.reset()
    ours.reset()
    while not done:
        frame = {
            camera: torch.as_tensor(seen["rgb_static"]).permute(2, 0, 1).float() / 255,
            "observation.state": torch.as_tensor(seen["robot_obs"]),
        }
        action = behind(theirs.select_action(before(frame)))[0].numpy()
        assert np.array_equal(action, ours.select_action(seen)), frames
        seen, _, terminated, truncated, _ = env.step(action)
        done, frames = terminated or truncated, frames + 1
frame = {name: value for name, value in frame.items()}
print("largest", float(np.abs(action).max()), "left", theirs.predict_action_chunk(before(frame)).shape[2])
"""


def policy(folder: Path, *, interface: RobotInterface | None = None) -> Path:
    """A copy of a policy alone, if asked of another robot."""
    made = Path(shutil.copytree(finished_run() / "policies" / NAME, folder / NAME))
    if interface is not None:
        config = json.loads((made / "config.json").read_text())
        write_json(made / "config.json", config | {"interface": plain(interface)})
    return made


def exported(folder: Path, made: Path) -> Path:
    cli.command(["export", str(made), str(folder / "exported"), "--to", "lerobot"])
    return folder / "exported"


def installed(out: Path) -> Path:
    """The plug-in as pip installs it, in a folder of its own."""
    target = out.parent / "installed"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, str(out / "plugin")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


def ran(target: Path, *arguments: str) -> str:
    """What a program says that finds the plug-in."""
    env = environment()
    env["PYTHONPATH"] = f"{target}:{env['PYTHONPATH']}"
    done = subprocess.run([sys.executable, *arguments], env=env, cwd=target, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_folder_has_lerobot_s_files_and_the_weights_to_the_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = policy(tmp_path, interface=INTERFACE)
    out = exported(tmp_path, made)
    assert (out / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert config["type"] == "worldaction"
    assert config["input_features"] == {
        "observation.images.top": {"type": "VISUAL", "shape": [3, 48, 64]},
        "observation.state": {"type": "STATE", "shape": [15]},
    }
    assert config["output_features"] == {"action": {"type": "ACTION", "shape": [7]}}
    assert json.loads(config["worldaction"]) == read_json(made / "config.json")
    # nobody but us knows of seals
    assert "seal" not in config
    assert f'name = "{PLUGIN}"' in (out / "plugin/pyproject.toml").read_text()
    assert (out / "plugin" / PLUGIN / "__init__.py").exists()
    assert {path.name for path in out.parent.iterdir()} == {NAME, "exported"}
    assert f"pip install {out}/plugin" in capsys.readouterr().out


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = policy(tmp_path)
    for arguments, said in (((made, made), "exists already"), ((finished_run(), tmp_path / "x"), "give one of its")):
        assert guarded(lambda given=arguments: cli.command(["export", *map(str, given)])) == 2  # type: ignore[misc]
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


@needs_lerobot
@pytest.mark.timeout(400)
@pytest.mark.parametrize("interface", [None, INTERFACE], ids=["ours", "a robot's"])
def test_lerobot_s_own_loader_loads_it_and_its_actions_are_the_policy_s_to_the_bit(
    tmp_path: Path, interface: Any
) -> None:
    made = policy(tmp_path, interface=interface)
    out = exported(tmp_path, made)
    camera = "observation.images.top" if interface else "observation.images.rgb_static"
    said = ran(installed(out), "-c", STEP, str(out), str(made), camera).split()
    assert float(said[said.index("largest") + 1]) > (2 if interface else 0)
    assert said[-1] == "7"


@needs_lerobot
@pytest.mark.timeout(400)
def test_lerobot_s_evaluation_runs_it_in_the_environment_that_it_knows(tmp_path: Path) -> None:
    out = exported(tmp_path, policy(tmp_path))
    target = installed(out)
    ran(
        target,
        *("-m", "lerobot.scripts.lerobot_eval", f"--policy.path={out}", "--env.type=worldaction"),
        *(f"--env.exported={out}", "--eval.n_episodes=2", "--eval.batch_size=2", f"--output_dir={tmp_path / 'eval'}"),
    )
    told = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert told["overall"]["n_episodes"] == 2
    assert len(told["per_task"][0]["metrics"]["successes"]) == 2

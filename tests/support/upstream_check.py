"""CALVIN's own evaluation of policies behind `envs.calvin.upstream`, run in the simulator's Python.

python upstream_check.py CALVIN_ENV CALVIN_MODELS FOLDER

Calls `evaluate_sequence` of calvin_agent/evaluation/evaluate_policy.py with its own oracle, sentences and environment,
made by its own `make_env` from the FOLDER that `worldaction table upstream` wrote. Of what the script imports,
pyhash is stood in for as docs/calvin.md says, and so is training where it is not installed.
Prints one line of JSON: how many of the tasks in a row it counts for scripted experts, and for a robot held still.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CHAIN = ["open_drawer", "move_slider_left", "turn_on_led"]
START = {"slider": "right", "drawer": "closed", "lightbulb": 0, "led": 0}
START |= {"red_block": "table", "blue_block": "table", "pink_block": "slider_right", "grasped": 0}


class Tables:
    """calvin_env as scripted experts look at it."""

    gripper_action = 1.0

    def __init__(self, env: Any) -> None:
        from envs.playtable.scenes import get_scene

        self.env, self.scene = env, get_scene("D")

    def scene_obs(self) -> np.ndarray:
        return np.asarray(self.env.get_state_obs()["scene_obs"])

    def robot_obs(self) -> np.ndarray:
        return np.asarray(self.env.get_state_obs()["robot_obs"])

    @property
    def tcp_position(self) -> np.ndarray:
        return self.robot_obs()[:3]

    @property
    def target_position(self) -> np.ndarray:
        return np.array(self.env.robot.target_pos)

    @property
    def target_euler(self) -> np.ndarray:
        return np.array(self.env.robot.target_orn)

    def site(self, name: str) -> np.ndarray:
        from envs.calvin.draws import site

        return site(name, self.scene, self.scene_obs())


class Scripted:
    """A scripted expert in the form of a policy: its state is the expert of the episode."""

    def __init__(self, table: Any, task: str) -> None:
        self.table, self.task = table, task

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        from envs.playtable.expert import Expert

        assert observation["rgb_static"].shape == (64, 64, 3)
        assert observation["robot_obs"].dtype == np.float32
        expert = state or Expert(self.table, self.task)
        return expert.act(), expert


def stand_ins() -> None:
    """Modules that the evaluation script imports: pyhash's one hash, and what a rollout does not need."""
    from envs.calvin.evaluation import stand_in_for_pyhash

    stand_in_for_pyhash()
    if importlib.util.find_spec("pytorch_lightning") is not None:
        return
    names = {
        "termcolor": {"colored": lambda text, colour: text},
        "pytorch_lightning": {"seed_everything": None},
        "calvin_agent.models.mcil": {"MCIL": None},
        "calvin_agent.utils.utils": dict.fromkeys(
            ["add_text", "format_sftp_path", "get_all_checkpoints", "get_checkpoints_for_epochs", "get_last_checkpoint"]
        ),
    }
    for name, members in names.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module


def main() -> None:
    calvin_env, calvin_models, folder = sys.argv[1:4]
    sys.path[:1] = [calvin_env, calvin_models, str(ROOT)]
    stand_ins()
    import hydra
    from calvin_agent.evaluation import evaluate_policy
    from omegaconf import OmegaConf

    from envs.calvin.upstream import UpstreamModel

    env = evaluate_policy.make_env(folder)
    conf = Path(calvin_models) / "conf"
    oracle = hydra.utils.instantiate(OmegaConf.load(conf / "callbacks/rollout/tasks/new_playtable_tasks.yaml"))
    annotations = OmegaConf.load(conf / "annotations/new_playtable_validation.yaml")
    table = Tables(env)
    expert = UpstreamModel({task: Scripted(table, task) for task in CHAIN})
    still = UpstreamModel({"close_drawer": Scripted(table, "close_drawer")}, otherwise="hold")
    evaluate_policy.EP_LEN = 120
    done = [
        evaluate_policy.evaluate_sequence(env, model, oracle, START, CHAIN, annotations, defaultdict(list), False)
        for model in (expert, still)
    ]
    print(json.dumps(done))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()

"""The environment that an exported policy was evaluated in, for `lerobot-eval --env.type=worldaction`."""

# no postponed annotations: draccus reads the types of the fields

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
from gymnasium.spaces import Dict
from lerobot.envs.configs import EnvConfig

from envs.benchmark import env_of
from worldaction.interface import RobotInterface
from worldaction.io.sealed_json import read_json
from worldaction.spec import ROBOT

ID = "worldaction/LeRobot-v0"


class LeRobotShape(gym.Wrapper[Any, Any, Any, Any]):
    """Observations as LeRobot's environments have them: pixels by camera, and agent_pos.

    Args:
        exported: folder that `worldaction export` wrote.
    """

    def __init__(self, exported: str) -> None:
        path = Path(exported) / "config.json"
        values = json.loads(read_json(path)["worldaction"])
        interface = RobotInterface.from_dict(values["interface"], source=path)
        env = env_of(SimpleNamespace(task=values["task"], env=values["env"], interface=interface), film=True)
        super().__init__(env)
        self._cameras = tuple(values["model"]["cameras"])
        assert isinstance(env.observation_space, Dict)
        spaces = self._shaped(env.observation_space.spaces)
        self.observation_space = Dict({name: Dict(s) if isinstance(s, dict) else s for name, s in spaces.items()})
        self._max_episode_steps = values["env"]["table"]["max_steps"]
        self.task = self.task_description = values["task"]
        self.metadata = {**env.metadata, "render_fps": env.metadata.get("render_fps", 30)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`; the options are lerobot-eval's own, and nothing for the environment."""
        seen, info = self.env.reset(seed=seed)
        return self._shaped(seen), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        return self._shaped(seen), float(reward), terminated, truncated, info

    def _shaped(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        pixels = {camera: seen[camera] for camera in self._cameras}
        return ({"pixels": pixels} if pixels else {}) | ({"agent_pos": seen[ROBOT]} if ROBOT in seen else {})


gym.register(ID, entry_point=f"{__name__}:LeRobotShape")


@EnvConfig.register_subclass("worldaction")
@dataclass
class WorldActionEnv(EnvConfig):
    """`--env.exported` names the folder that `--policy.path` names."""

    exported: str = ""

    @property
    def package_name(self) -> str:
        """What is imported where the environment is not known."""
        return "lerobot_policy_worldaction"

    @property
    def gym_id(self) -> str:
        """For `gymnasium.make`."""
        return ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Likewise."""
        return {"exported": self.exported}

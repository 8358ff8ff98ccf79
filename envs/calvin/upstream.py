"""Policies behind CALVIN's own model interface, `reset()` and `step(obs, goal)`, for CALVIN's evaluation scripts.

model = UpstreamModel({"open_drawer": policy, "turn_on_led": other})
evaluate_policy(model, make_env(dataset_path), epoch=0)           # calvin_agent/evaluation/evaluate_policy.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.tasks import get_task
from worldaction.errors import UserError, unknown
from worldaction.play.images import area_mean
from worldaction.spec import CAMERAS, NULL_ACTION, ROBOT, ROBOT_SIZE

SENTENCES: Final = {
    "open_drawer": "pull the handle to open the drawer",
    "close_drawer": "push the handle to close the drawer",
    "move_slider_left": "push the sliding door to the left side",
    "move_slider_right": "push the sliding door to the right side",
    "turn_on_lightbulb": "use the switch to turn on the light bulb",
    "turn_off_lightbulb": "use the switch to turn off the light bulb",
    "turn_on_led": "press the button to turn on the led light",
    "turn_off_led": "press the button to turn off the led light",
    "push_pink_block_right": "go push the pink block right",
    "push_pink_block_left": "go push the pink block left",
    "lift_blue_block_table": "grasp and lift the blue block",
}
"""What CALVIN's validation annotations call each task (new_playtable_validation.yaml)."""


class Predictor(Protocol):
    """Anything that predicts as Stable-Baselines3 does."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], Any]:
        """The action [7] of one observation, and the state to hand back with the next."""
        ...


class UpstreamModel:
    """One policy per task; the goal, a sentence or a task's name, chooses among them.

    Args:
        policies: by the name of their task.
        image_size: side of the images that they see (pixels), to which CALVIN's are averaged down; by default what
            the policies themselves have learned from, 64 of those that do not say.
        deterministic: handed to `predict`; of `agents.policy.Policy` it changes nothing, set its `sampler` instead.
        otherwise: what is done for a goal without a policy: "refuse" raises, "hold" keeps the robot still, so that
            CALVIN's chains of all 34 tasks can be run and count it as a failure.

    Raises:
        UserError: no policies, one of an unknown task, or policies that see images of different sizes.
    """

    def __init__(
        self,
        policies: Mapping[str, Predictor],
        *,
        image_size: int | None = None,
        deterministic: bool = False,
        otherwise: Literal["refuse", "hold"] = "refuse",
    ) -> None:
        if not policies:
            raise UserError("policies is empty; give one per task, such as {'open_drawer': policy}")
        if otherwise not in ("refuse", "hold"):
            raise unknown("otherwise", otherwise, ("refuse", "hold"))
        self._policies = {get_task(name).name: policy for name, policy in policies.items()}
        self._names = {SENTENCES[name]: name for name in self._policies} | {name: name for name in self._policies}
        self._image_size = _size_of(policies) if image_size is None else image_size
        self._deterministic, self._otherwise = deterministic, otherwise
        self._state: Any = None
        self._running: str | None = None

    def reset(self) -> None:
        """CALVIN calls it before every instruction: the policies start afresh, with noise drawn anew."""
        self._state = self._running = None
        for policy in self._policies.values():
            if callable(reset := getattr(policy, "reset", None)):
                reset()

    def step(self, obs: Mapping[str, Any], goal: Any) -> NDArray[np.float64]:
        """The action for one observation.

        Args:
            obs: of calvin_env: `rgb_obs` with both cameras [H, W, 3] uint8, and `robot_obs` [15].
            goal: the instruction, a sentence of CALVIN's validation set or a task's name.

        Returns:
            [7] relative, the gripper entry -1 or 1, as calvin_env insists.

        Raises:
            UserError: an observation of another form, or a goal that no policy is there for.
        """
        observation = convert(obs, self._image_size)
        name = self._names.get(goal) if isinstance(goal, str) else None
        if name is None and self._otherwise == "refuse":
            asked = f"{goal!r:.80}" if isinstance(goal, str) else f"of type {type(goal).__name__}"
            raise UserError(f"no policy for the goal {asked}; there are {', '.join(self._policies)}")
        if name is None:
            return np.array([*NULL_ACTION[:6], 1.0 if observation[ROBOT][14] > 0 else -1.0])
        if name != self._running:
            # a state is its policy's own
            self._state, self._running = None, name
        policy = self._policies[name]
        predicted, self._state = policy.predict(observation, self._state, deterministic=self._deterministic)
        action = np.clip(np.asarray(predicted, np.float64), -1, 1)
        action[6] = 1.0 if action[6] > 0 else -1.0
        return action


def _size_of(policies: Mapping[str, Predictor]) -> int:
    """The side of the images that policies have learned from, as their world model says it."""
    models = {name: getattr(policy, "model", None) for name, policy in policies.items()}
    sizes = {name: getattr(getattr(model, "config", None), "image_size", 64) for name, model in models.items()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"policies see images of different sizes ({said}); give one model for each size")
    return int(next(iter(sizes.values())))


def convert(obs: Mapping[str, Any], image_size: int) -> dict[str, NDArray[Any]]:
    """An observation of calvin_env as policies see it: both cameras [s, s, 3] uint8, `robot_obs` [15] float32.

    Args:
        obs: as `UpstreamModel.step` takes it.
        image_size: side s of the images (pixels), at most CALVIN's.

    Raises:
        UserError: the observation has another form.
    """
    try:
        images = {camera: np.asarray(obs["rgb_obs"][camera]) for camera in CAMERAS}
        robot = np.asarray(obs["robot_obs"], np.float32)
    except (KeyError, TypeError) as error:
        raise UserError(f"the observation lacks {error}; give what calvin_env's get_env returns, unwrapped") from error
    for camera, image in images.items():
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < image_size:
            raise UserError(
                f"{camera} is {image.dtype} {image.shape}, not uint8 (H, W, 3) of at least {image_size} pixels; "
                "give what calvin_env's get_env returns, unwrapped"
            )
    if robot.shape != (ROBOT_SIZE,):
        raise UserError(f"robot_obs has shape {robot.shape}, not ({ROBOT_SIZE},); give calvin_env's own, unwrapped")
    return {**{name: area_mean(image[None], image_size)[0] for name, image in images.items()}, ROBOT: robot}

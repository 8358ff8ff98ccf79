"""Any Gymnasium environment behind the keys of `worldaction.spec`.

images of the observation, [H, W, 3] uint8         --> cameras, cut to a square and averaged down
all its other numbers, by name                     --> robot_obs [P]
success in the present step                        --> scene_obs [1], info["is_success"]
actions in [-1, 1]                                 --> the environment's own range
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from worldaction.config import GymConfig
from worldaction.errors import UserError
from worldaction.extension import load
from worldaction.play.images import fitted
from worldaction.spec import ROBOT, SCENE, Layout

Array = NDArray[np.float64]
Observation = dict[str, Any]
Judge = Callable[[Any, float, dict[str, Any]], bool]

RENDERED: Final = "render"
"""Name of the camera that is the environment's own picture."""
SUCCESS_KEYS: Final = ("is_success", "success")
JUDGES: Final = "it has to take (observation, reward, info) and return whether the task is done"


class OwnRange(gym.ActionWrapper[Any, Any, Any]):
    """A `Standard` environment that is told actions in its own range, as policies act that were recorded in it."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = env.unwrapped.action_space

    def action(self, action: Any) -> Array:
        """As `Standard` takes it."""
        found: Array = self.env.get_wrapper_attr("to_unit")(action)
        return found


class Standard(gym.Wrapper[Observation, Any, Any, Any]):
    """An environment that any study can be run in.

    Attributes:
        layout: what a frame of it holds.
        raw: the last observation as the environment gave it, which scripted experts look at.

    Raises:
        UserError: spaces that cannot be learned from; says which, and what would do.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        config: GymConfig,
        *,
        image_size: int,
        max_steps: int | None = None,
    ) -> None:
        """
        Args:
            env: what `gymnasium.make` gave.
            config: which pictures, and what success is.
            image_size: side of the images in pixels.
            max_steps: time limit (control steps); None leaves the environment's own.
        """
        super().__init__(env)
        self.name = env.spec.id if env.spec else type(env.unwrapped).__name__
        self._size, self._max_steps = image_size, max_steps
        self._low, self._high = _bounds(env.action_space, self.name)
        self._entries = _entries(env.observation_space, self.name)
        self._rendered = config.camera == RENDERED
        self._judge = _judge_of(config, self.name)
        self.layout = self._layout(cameras=config.camera != "none")
        self.action_space = Box(-1.0, 1.0, self._low.shape, np.float32)
        self.observation_space = self._space()
        self.raw: Any = None
        self.steps, self._success = 0, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        self.raw, info = self.env.reset(seed=seed, options=options)
        self.steps, self._success = 0, False
        return self._observe(), {**info, "is_success": False, "ended": False}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step with an action [A] in [-1, 1]; success ends an episode.

        Raises:
            UserError: the action does not fit, or nothing says whether the task is done.
        """
        values = np.asarray(action, np.float64)
        if values.shape != self._low.shape or not np.isfinite(values).all():
            raise UserError(f"action {action!r} must be {len(self._low)} finite numbers in [-1, 1]")
        self.raw, reward, terminated, truncated, info = self.env.step(self.from_unit(values))
        self.steps += 1
        self._success = self._judge(self.raw, float(reward), info)
        late = self._max_steps is not None and self.steps >= self._max_steps
        ended = bool(terminated or truncated)
        info = {**info, "is_success": self._success, "ended": ended, "action": np.clip(values, -1, 1)}
        return self._observe(), float(reward), bool(terminated or self._success), bool(truncated or late), info

    @property
    def bounds(self) -> tuple[Array, Array]:
        """[A] lowest and highest action in the environment's own range."""
        return self._low, self._high

    def to_unit(self, action: Any) -> Array:
        """An action in the environment's own range as one in [-1, 1]."""
        share = (np.asarray(action, np.float64) - self._low) / (self._high - self._low)
        return np.clip(2 * share - 1, -1, 1)

    def from_unit(self, action: Any) -> NDArray[Any]:
        """An action in [-1, 1] as one in the environment's own range."""
        share = (np.clip(action, -1, 1) + 1) / 2
        own: NDArray[Any] = (self._low + share * (self._high - self._low)).astype(self.env.action_space.dtype)
        return own

    # ---- what is observed

    def numbers(self) -> NDArray[np.float32]:
        """[P] all numbers of the present observation, in the order of their names."""
        given = self._given()
        found = [np.ravel(given[name]) for name, box in self._entries.items() if not _is_image(box)]
        return np.concatenate(found).astype(np.float32)

    def _given(self) -> dict[str, Any]:
        return self.raw if isinstance(self.raw, dict) else {"observation": self.raw}

    def _layout(self, *, cameras: bool) -> Layout:
        images = {name: box for name, box in self._entries.items() if _is_image(box)} if cameras else {}
        for name, box in images.items():
            if (side := min(box.shape[:2])) < self._size:
                raise UserError(f"{self.name}: {name!r} is {box.shape}; choose --table.image-size {side} or less")
        robot = sum(int(np.prod(box.shape)) for name, box in self._entries.items() if not _is_image(box))
        names = tuple(safe_name(name) for name in ((*images, RENDERED) if self._rendered else images))
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{self.name} has two images called {twice[0]!r} as a file's name; rename one in a wrapper")
        if not names and not robot:
            raise UserError(f"{self.name} has nothing to observe without cameras; leave out --gym.camera none")
        size = len(self._low)
        absolute = bool(getattr(self.env.unwrapped, "absolute_actions", False))
        return Layout(names, robot, 1, size, (0.0,) * size, absolute=absolute)

    def _space(self) -> Dict:
        side = self._size
        spaces: dict[str, Space[Any]] = {
            camera: Box(0, 255, (side, side, 3), np.uint8) for camera in self.layout.cameras
        }
        for key, size in ((ROBOT, self.layout.robot), (SCENE, self.layout.scene)):
            if size:
                spaces[key] = Box(-np.inf, np.inf, (size,), np.float32)
        return Dict(spaces)

    def _observe(self) -> Observation:
        seen: Observation = {SCENE: np.array([self._success], np.float32)}
        for name, box in self._entries.items():
            if _is_image(box) and safe_name(name) in self.layout.cameras:
                seen[safe_name(name)] = self._small(self._given()[name])
        if self._rendered:
            seen[RENDERED] = self._small(self.picture())
        if self.layout.robot:
            seen[ROBOT] = self.numbers()
        return seen

    def render(self) -> Any:
        """The picture, for people."""
        return self.picture()

    def picture(self) -> NDArray[np.uint8]:
        """The environment's own picture [H, W, 3].

        Raises:
            UserError: it draws none.
        """
        try:
            image = self.env.render()
        except Exception as error:
            # of others' code; on a machine without a display MuJoCo's own cannot be foreseen
            raise UserError(
                f"{self.name} cannot draw ({error!r}); without a display set MUJOCO_GL=egl or osmesa, "
                "or --gym.camera auto and --evaluation.videos 0"
            ) from error
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f"{self.name} draws no pictures with render_mode 'rgb_array'; "
                "set --gym.camera auto and --evaluation.videos 0"
            )
        return image

    def _small(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if (side := min(image.shape[:2])) < self._size:
            raise UserError(f"{self.name}: a picture is {image.shape}; choose --table.image-size {side} or less")
        small: NDArray[np.uint8] = fitted(image[None], self._size)[0]
        return small


def safe_name(name: str) -> str:
    """A name that can be a file's and a key's."""
    return re.sub(r"^(?=\d)", "camera_", re.sub(r"\W+", "_", name))


def _is_image(box: Box) -> bool:
    return len(box.shape) == 3 and box.shape[2] == 3 and box.dtype == np.uint8


def _entries(space: Space[Any], name: str) -> dict[str, Box]:
    """The parts of an observation, by name and in the order of their names."""
    parts: dict[str, Space[Any]] = dict(space.spaces) if isinstance(space, Dict) else {"observation": space}
    found: dict[str, Box] = {}
    for key in sorted(parts):
        part = parts[key]
        if not isinstance(part, Box) or (len(part.shape) > 1 and not _is_image(part)):
            raise UserError(
                f"{name} observes {key!r} as {part}; it must be a Box of numbers [N], or of [H, W, 3] uint8 pixels: "
                "wrap the environment, for instance with gymnasium.wrappers.FlattenObservation"
            )
        found[key] = part
    return found


def _bounds(space: Space[Any], name: str) -> tuple[Array, Array]:
    """Lowest and highest action [A]."""
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise UserError(f"{name} takes actions of {space}; only a Box of numbers [A] can be learned")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UserError(f"{name} takes actions without bounds, {space}; wrap it with gymnasium.wrappers.RescaleAction")
    if not (space.low < space.high).all():
        raise UserError(f"{name} takes actions of {space}, of which one has no range; leave it out in a wrapper")
    return space.low.astype(np.float64), space.high.astype(np.float64)


def _own_judge(target: str) -> Judge:
    """The user's module:function, whose failures name the option."""
    own = _callable(target)

    def judge(observation: Any, reward: float, info: dict[str, Any]) -> bool:
        try:
            found = np.asarray(own(observation, reward, info))
        except Exception as error:
            # of others' code, which may fail in any way
            raise UserError(f"--gym.success {target} failed with {error!r}; {JUDGES}") from error
        if found.size != 1 or found.dtype.kind not in "biuf":
            raise UserError(f"--gym.success {target} returned {found.tolist()!r}; {JUDGES}")
        return bool(found)

    return judge


def _callable(target: str) -> Callable[..., Any]:
    """The user's function, refused before the first step if its signature tells that it cannot be called."""
    own: Callable[..., Any] = load(target, "--gym.success")
    # what is written in C may have no signature: a ValueError
    with suppress(ValueError):
        try:
            inspect.signature(own).bind(None, 0.0, {})
        except TypeError as error:
            raise UserError(f"--gym.success {target} cannot be called so ({error}); {JUDGES}") from error
    return own


def _judge_of(config: GymConfig, name: str) -> Judge:
    """What says whether the task is done."""
    if config.success:
        return _own_judge(config.success)
    if config.success_reward is not None:
        least = config.success_reward
        return lambda observation, reward, info: reward >= least

    return _FromInfo(name)


class _FromInfo:
    """What `info` says. Where it says nothing in some steps of many, the task is not known to be done."""

    def __init__(self, name: str) -> None:
        self._name, self._has_told = name, False

    def __call__(self, observation: Any, reward: float, info: dict[str, Any]) -> bool:
        for key in SUCCESS_KEYS:
            if key in info:
                self._has_told = True
                return bool(info[key])
        if self._has_told:
            return False
        raise UserError(
            f"{self._name} does not say in info whether the task is done; give --gym.success-reward R, "
            "or --gym.success module:function of (observation, reward, info)"
        )

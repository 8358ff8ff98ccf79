"""Stress switches: what makes a table harder without another table. Each is one small Gymnasium wrapper.

A wrapped table is a table still: experts and the generator act on it. Everything that a switch draws is a function of
the episode's seed, so policies are compared start by start, and play data follow the law of the evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.playtable.env import START_EULER, START_HIGH, START_LOW, START_POSITION
from envs.playtable.ik import kinematics
from envs.playtable.looks import Look, Vector, look_of
from envs.playtable.robot import HOME
from envs.playtable.rotation import Array, to_matrix
from envs.tasks import LYING, BlockTask, get_task
from worldaction.config import StressConfig, check_share, check_stress
from worldaction.errors import UserError
from worldaction.spec import ACTION_SIZE, CALVIN, METRES_PER_UNIT, ROBOT_FIELDS, ROBOT_SIZE, Layout

Observation = dict[str, Any]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]
Image = NDArray[np.uint8]

# names of the streams of random numbers
MOVERS, STARTS, LOOKS, PUSHES = 101, 102, 103, 104

MOST_MOVERS: Final = 6
MOVER_SIDE: Final = (0.06, 0.14)
"""Sides of the movers, as shares of the image's."""
MOVER_SPEED: Final = (0.01, 0.04)
"""Speed of the movers (image sides per control step)."""
FLICKER: Final = 0.3
"""Largest change of brightness at full strength, as a share."""

BEYOND: Final = 0.12
"""How far outside the range of training the TCP starts at most (m)."""
# towards which sides: never down, where the table is
OUTSIDE: Final = ((0, -1), (0, 1), (1, -1), (2, 1))
SHELF_Y: Final = (0.08, 0.12)
"""Where blocks stand in the cabinet, clear of the inclined panel (m)."""

PUSH_STEPS: Final = 5
"""How long the arm is pushed (control steps)."""
PUSH: Final = 0.05
"""How far at most (m)."""
PUSH_TIMES: Final = (5, 60)
"""When: from which control step on, and before which."""


class Stressed(gymnasium.Wrapper[Observation, Any, Observation, Any]):
    """A wrapper that shows the table beneath it, as scripted experts need."""

    def __init__(self, env: gymnasium.Env[Observation, Any], setting: Any) -> None:
        super().__init__(env)
        self.setting = setting
        """How hard the switch is set."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.env.get_wrapper_attr(name)

    @property
    def about(self) -> Mapping[str, Any]:
        """What a play store says of the table that made it."""
        return {**self.env.get_wrapper_attr("about"), type(self).__name__: self.setting}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """As the table's. Without a seed one is drawn, because the switch's numbers are a function of it."""
        drawn = int(self.unwrapped.np_random.integers(2**31)) if seed is None else seed
        return self._begin(drawn, dict(options or {}))

    def _begin(self, seed: int, options: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        return self.env.reset(seed=seed, options=options)


# D1 -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mover:
    """A coloured patch that crosses the image and turns back at its borders. All lengths in sides of the image."""

    side: float
    start: tuple[float, float]
    velocity: tuple[float, float]
    colour: tuple[int, int, int]
    disc: bool

    def paint(self, image: Image, step: int) -> None:
        """Draws itself into an image [H, W, 3] as it is at a step."""
        height, width = image.shape[:2]
        x, y = (_bounce(s + v * step) for s, v in zip(self.start, self.velocity, strict=True))
        half = self.side / 2
        rows = slice(max(0, math.floor((y - half) * height)), max(0, math.ceil((y + half) * height)))
        columns = slice(max(0, math.floor((x - half) * width)), max(0, math.ceil((x + half) * width)))
        patch = image[rows, columns]
        if not self.disc:
            patch[:] = self.colour
            return
        down = (np.arange(patch.shape[0]) + rows.start + 0.5) / height - y
        right = (np.arange(patch.shape[1]) + columns.start + 0.5) / width - x
        patch[down[:, None] ** 2 + right**2 < half**2] = self.colour


def _bounce(value: float) -> float:
    """A point that runs to and fro between 0 and 1."""
    return 1 - abs(value % 2 - 1)


class Distractors(Stressed):
    """Patches that move across every camera's image, and flickering light: no action has any influence on them.

    Args:
        env: whose images are painted over.
        strength: 0 to 1: up to six patches, and 30 % of brightness.
    """

    def __init__(self, env: gymnasium.Env[Observation, Any], strength: float) -> None:
        super().__init__(env, check_share("distractors", strength))

    def _begin(self, seed: int, options: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._steps = 0
        self._cameras = [key for key, value in observation.items() if np.ndim(value) == 3]
        rng = np.random.default_rng([seed, MOVERS])
        count = round(MOST_MOVERS * self.setting)
        self._movers = {camera: [draw_mover(rng) for _ in range(count)] for camera in self._cameras}
        self._period, self._phase = rng.uniform(4, 20, 3), rng.uniform(0, 2 * np.pi, 3)
        return self._distract(observation), info

    def step(self, action: Any) -> Step:
        """As the table's."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        return self._distract(observation), float(reward), terminated, truncated, info

    def _distract(self, observation: Observation) -> Observation:
        waves = np.sin(2 * np.pi * self._steps / self._period + self._phase)
        brightness = 1 + FLICKER * self.setting * float(waves.mean())
        seen = dict(observation)
        for camera in self._cameras:
            image = np.clip(observation[camera] * brightness, 0, 255).astype(np.uint8)
            for mover in self._movers[camera]:
                mover.paint(image, self._steps)
            seen[camera] = image
        return seen


def draw_mover(rng: np.random.Generator) -> Mover:
    """A mover of any size, colour, course and speed."""
    speed, course = rng.uniform(*MOVER_SPEED), rng.uniform(0, 2 * np.pi)
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return Mover(
        side=float(rng.uniform(*MOVER_SIDE)),
        start=(float(rng.uniform(0, 2)), float(rng.uniform(0, 2))),
        velocity=(float(speed * np.cos(course)), float(speed * np.sin(course))),
        colour=(red, green, blue),
        disc=bool(rng.random() < 0.5),
    )


# D2 -------------------------------------------------------------------------------------------------------------------


class UnseenStarts(Stressed):
    """Episodes start with the TCP outside the range of training, and with blocks in the cabinet, not on the table.

    Slider, drawer, switch and led start as they do without the switch, and so does the block of a block's task.

    Args:
        env: a table of `envs.tasks`.
        strength: 0 to 1: how far outside, and the share of blocks in the cabinet.
    """

    def __init__(self, env: gymnasium.Env[Observation, Any], strength: float) -> None:
        super().__init__(env, check_share("positions", strength))

    def _begin(self, seed: int, options: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        rng = np.random.default_rng([seed, STARTS])
        options.setdefault("robot_obs", self._robot(rng))
        observation, info = self.env.reset(seed=seed, options=options)
        if "scene_obs" not in options:
            # what the table drew, with other blocks
            options["scene_obs"] = self._blocks(self.scene_obs(), rng)
            observation, info = self.env.reset(seed=seed, options=options)
        return observation, info

    def _robot(self, rng: np.random.Generator) -> Array:
        place = rng.uniform(START_LOW, START_HIGH)
        axis, side = OUTSIDE[rng.integers(len(OUTSIDE))]
        edge = (START_LOW if side < 0 else START_HIGH)[axis]
        place[axis] = edge + side * self.setting * rng.uniform(BEYOND / 3, BEYOND)
        values = np.zeros(ROBOT_SIZE)
        joints = kinematics().inverse(HOME, START_POSITION + place, to_matrix(START_EULER), iterations=100)
        values[ROBOT_FIELDS["joints"]], values[ROBOT_FIELDS["gripper_width"]] = joints, 0.08
        values[ROBOT_FIELDS["gripper_action"]] = 1
        return values

    def _blocks(self, scene_obs: Array, rng: np.random.Generator) -> Array:
        """The table's state with blocks in different thirds of the cabinet."""
        needed = (self.task.entry("x") - 6) // 6 if isinstance(self.task, BlockTask) else None
        # within the walls, which are 2 cm thick
        low, high = self.scene.cabinet[0] + 0.02, self.scene.cabinet[1] - 0.02
        thirds = rng.permutation(3)
        for number, third in enumerate(thirds):
            if rng.random() < self.setting and number != needed:
                middle = low + (high - low) * (third + 0.5) / 3
                x, y = middle + rng.uniform(-0.03, 0.03), rng.uniform(*SHELF_Y)
                scene_obs[6 + 6 * number : 12 + 6 * number] = x, y, LYING, 0, 0, 0
        return scene_obs


# D3 -------------------------------------------------------------------------------------------------------------------


class UnseenLooks(Stressed):
    """Another look in every episode: colours of wood, metal, floor and blocks, and where the light comes from.

    Led and light bulb keep their colours, by which a task is judged by the eye.

    Args:
        env: an embedded table.
        strength: 0 to 1: from the scene's own look to any.
    """

    def __init__(self, env: gymnasium.Env[Observation, Any], strength: float) -> None:
        super().__init__(env, check_share("colours", strength))
        if not hasattr(self.unwrapped, "look"):
            raise UserError(
                f"--stress.colours {strength}: only the embedded table has other colours, {self.unwrapped} has not"
            )

    def _begin(self, seed: int, options: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        table: Any = self.unwrapped
        table.look = draw_look(look_of(table.scene), np.random.default_rng([seed, LOOKS]), self.setting)
        return self.env.reset(seed=seed, options=options)


def draw_look(look: Look, rng: np.random.Generator, strength: float) -> Look:
    """A look between a given one and any.

    Args:
        look: where it starts.
        rng: draws it.
        strength: 0 is `look`, 1 has nothing of its colours.
    """
    colours = {}
    for name, colour in look.colours.items():
        red, green, blue = (1 - strength) * np.array(colour[:3]) + strength * rng.uniform(0.1, 1.0, 3)
        colours[name] = (float(red), float(green), float(blue), 1.0)
    tint = 1 + strength * rng.uniform(-0.3, 0.3, 3)
    share = 1 + strength * rng.uniform(-0.6, 0.6)
    # more of one light is less of the other
    ambient, diffuse = np.array(look.ambient) * (2 - share) * tint, np.array(look.diffuse) * share * tint
    direction = np.array(look.direction) + strength * np.array([*rng.uniform(-1, 1, 2), 0.0])
    return replace(
        look,
        colours=colours,
        ambient=_vector(np.clip(ambient, 0, 1)),
        diffuse=_vector(np.clip(diffuse, 0, 1)),
        direction=_vector(direction / np.linalg.norm(direction)),
    )


def _vector(values: Array) -> Vector:
    x, y, z = (float(value) for value in values)
    return (x, y, z)


# D8 -------------------------------------------------------------------------------------------------------------------


class Pushed(Stressed):
    """Once or twice in an episode the arm is pushed off its way: never down, where the table is.

    The push is added to the action, so that it works in every simulator, and the policy has to see it by the arm's
    place. What exceeds a full command is lost.

    Args:
        env: a table.
        strength: 0 to 1: up to 5 cm in a sixth of a second.
    """

    def __init__(self, env: gymnasium.Env[Observation, Any], strength: float) -> None:
        super().__init__(env, check_share("pushes", strength))

    def _begin(self, seed: int, options: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        rng = np.random.default_rng([seed, PUSHES])
        self._steps = 0
        self._pushes = [(int(rng.integers(*PUSH_TIMES)), self._draw(rng)) for _ in range(rng.integers(1, 3))]
        return self.env.reset(seed=seed, options=options)

    def _draw(self, rng: np.random.Generator) -> Array:
        """What is added to the action [3] in each step of a push."""
        direction = rng.normal(size=3)
        direction[2] = abs(direction[2])
        length = self.setting * rng.uniform(PUSH / 2, PUSH)
        push: Array = direction / np.linalg.norm(direction) * length / (PUSH_STEPS * METRES_PER_UNIT)
        return push

    def step(self, action: Any) -> Step:
        """As the table's, with what the push adds."""
        pushed = np.array(action, np.float64)
        for begin, push in self._pushes:
            if begin <= self._steps < begin + PUSH_STEPS:
                pushed[:3] = np.clip(pushed[:3], -1, 1) + push
        self._steps += 1
        observation, reward, terminated, truncated, info = self.env.step(np.clip(pushed, -1, 1))
        return observation, float(reward), terminated, truncated, info


# D6 -------------------------------------------------------------------------------------------------------------------


class Tight(Stressed):
    """Success needs more: see `envs.tasks.tight`. At 0 it is CALVIN's oracle.

    Args:
        env: a table of `envs.tasks`.
        tolerance: 0 to 1: from CALVIN's change to the end of the joint's travel, or of the button's.
    """

    def __init__(self, env: gymnasium.Env[Observation, Any], tolerance: float) -> None:
        super().__init__(env, check_share("tolerance", tolerance))

    def _begin(self, seed: int, options: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        result = self.env.reset(seed=seed, options=options)
        self._judge = get_task(self.task.name, self.scene.name, tolerance=self.setting)
        self._start = self.scene_obs()
        return result

    def step(self, action: Any) -> Step:
        """As the table's, judged more strictly; `info["is_success_calvin"]` is what the table itself says."""
        observation, _, _, truncated, info = self.env.step(action)
        success = bool(self._judge.achieved(self._start, self.scene_obs()))
        said = {"success": success, "is_success": success, "is_success_calvin": info["is_success"]}
        return observation, float(success), success, truncated, {**info, **said}


# D7 -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ActionFrame:
    """How a policy's action becomes the table's: another scale, another heading, an inverted axis, idle entries."""

    scale: float = 1.0
    """Metres per unit, beside the table's."""
    turn: float = 0.0
    """By how much the policy's x and y axes are turned about z (degrees)."""
    mirror: bool = False
    """Whether the policy's x axis points the other way."""
    extra: int = 0
    """Entries at the end of an action that move nothing."""

    @property
    def size(self) -> int:
        """Entries of a policy's action."""
        return ACTION_SIZE + self.extra

    def to_table(self, action: ArrayLike) -> Array:
        """A policy's actions [..., size] as the table's [..., 7], clipped to [-1, 1]."""
        values = np.array(np.asarray(action, np.float64)[..., :ACTION_SIZE])
        values[..., :3] = self.scale * values[..., :3] @ self._axes.T
        values[..., 3:6] = values[..., 3:6] @ self._turned.T
        return np.clip(values, -1, 1)

    def to_policy(self, action: ArrayLike) -> Array:
        """The policy's actions [..., size] that come nearest to the table's [..., 7]; clipped to [-1, 1]."""
        values = np.array(action, np.float64)
        values[..., :3] = values[..., :3] @ self._axes / self.scale
        values[..., 3:6] = values[..., 3:6] @ self._turned
        idle = np.zeros((*values.shape[:-1], self.extra))
        return np.clip(np.concatenate([values, idle], -1), -1, 1)

    @property
    def _turned(self) -> Array:
        return to_matrix(np.array([0.0, 0.0, np.deg2rad(self.turn)]))

    @property
    def _axes(self) -> Array:
        return self._turned * np.array([-1.0 if self.mirror else 1.0, 1.0, 1.0])


class FramedActions(Stressed):
    """Acts in another frame than the table's.

    Args:
        env: the table.
        frame: the policy's frame.
        experts: actions come in the table's frame, as experts give them, and what a policy in the frame could not ask
            for is left out. `info["action"]` is what was asked for in the frame.
    """

    def __init__(self, env: gymnasium.Env[Observation, Any], frame: ActionFrame, *, experts: bool = False) -> None:
        super().__init__(env, asdict(frame))
        self.frame, self._experts = frame, experts
        if not experts:
            self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (frame.size,), np.float32)

    def step(self, action: Any) -> Step:
        """As the table's, with an action of the frame."""
        asked = self.frame.to_policy(action) if self._experts else np.asarray(action)
        if asked.shape != (self.frame.size,):
            raise UserError(f"action with shape {asked.shape}: this frame has {self.frame.size} entries")
        observation, reward, terminated, truncated, info = self.env.step(self.frame.to_table(asked))
        return observation, float(reward), terminated, truncated, {**info, "action": asked}


# All of them ----------------------------------------------------------------------------------------------------------


def frame_of(config: StressConfig) -> ActionFrame:
    """The frame in which policies act."""
    return ActionFrame(config.frame_scale, config.frame_turn, config.frame_mirror, config.frame_extra)


def layout_of(config: StressConfig) -> Layout:
    """What a frame of the table holds under the switches: actions may be longer than CALVIN's."""
    idle = (0.0,) * config.frame_extra
    return replace(CALVIN, action=CALVIN.action + config.frame_extra, null_action=CALVIN.null_action + idle)


def stressed(
    env: gymnasium.Env[Observation, Any], config: StressConfig, *, playing: bool = False
) -> gymnasium.Env[Observation, Any]:
    """A table with the switches that are on; itself if none is.

    Args:
        env: the table.
        config: the switches.
        playing: for experts that make play data, instead of for policies that are tested.

    Raises:
        UserError: a switch out of its range.
    """
    check_stress(config)
    if config.colours and not playing:
        env = UnseenLooks(env, config.colours)
    if config.positions and not playing:
        env = UnseenStarts(env, config.positions)
    if config.pushes and not playing:
        env = Pushed(env, config.pushes)
    if config.tolerance:
        env = Tight(env, config.tolerance)
    if config.distractors:
        env = Distractors(env, config.distractors)
    if frame_of(config) != ActionFrame() and (config.frame_play or not playing):
        env = FramedActions(env, frame_of(config), experts=playing)
    return env

"""The arm as a Gymnasium environment, with the names, pictures and units of a real one as LeRobot drives it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import gymnasium
import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs import drawing
from envs.arm.robot import HIGHEST, JOINTS, LOWEST, Array, kinematics, model, to_radians, to_units
from envs.arm.tasks import COLOURS, HALF, STEADY, TASKS, Moment, Task, get_task
from envs.drawing import View
from envs.reset import own_options
from worldaction.errors import UserError

Observation = dict[str, Any]

STATE: Final = "observation.state"
IMAGES: Final = {"observation.images.front": (96, 128), "observation.images.wrist": (64, 64)}
"""Height and width of what each camera gives (pixels)."""
RATE: Final = 30
"""Control steps per second."""
SUBSTEPS: Final = 10
FARTHEST: Final = 10.0
"""How far cameras see (m)."""
FILM: Final = (288, 384)
"""Height and width of `render`'s picture, the front view."""

# where blocks lie, and are pushed to: the hand reaches 5 cm above all of it, and the square middle of the front
# picture shows it (m, rad)
NEAREST, FARTHEST_AHEAD, ASIDE, REACH = 0.12, 0.21, 0.11, 0.225
APART: Final = 0.075
"""Distance of two blocks (m)."""
LARGEST_YAW: Final = 0.35
# a strip that the push needs, around the blue block: to its sides, ahead of it (to the left) and behind it (m)
BESIDE, AHEAD, BEHIND = 0.05, 0.10, 0.08
HOME: Final = np.array([0.16, 0.0, 0.11])
"""Where the point between the jaws is at the start (m), give or take `HOME_SPREAD`."""
HOME_SPREAD: Final = 0.015
HOME_GRIPPER: Final = 30.0


class ArmEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Three blocks before a small arm, and one thing to do with one of them; see `envs.arm.tasks`.

    Observation: `observation.images.front` [96, 128, 3] and `observation.images.wrist` [64, 64, 3] uint8;
    `observation.state` [6] float32, five joints from -100 to 100 and the gripper from 0 (closed) to 100.
    Action: [6], the joint positions to go to, in the same units. 30 steps a second.
    Reward 1 and `terminated` when the task has been done for five steps; `gymnasium.make` ends episodes after 6 s.

    Args:
        task: a name or a sentence of `envs.arm.tasks.TASKS`.
        renderer: "auto", "egl", "osmesa" or "rays".
        render_mode: None or "rgb_array", a larger front view from `render`.
        cameras: False leaves the images out, and never touches a renderer.

    Raises:
        UserError: unknown task, renderer or render mode.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": RATE}  # noqa: RUF012
    tasks: Final = tuple(TASKS)
    demonstrator: Final = "envs.arm.demonstrator:Demonstrator"
    absolute_actions: Final = True

    def __init__(
        self,
        task: str = "reach_the_red_block",
        *,
        renderer: str = "auto",
        render_mode: str | None = None,
        cameras: bool = True,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode {render_mode!r} is not supported; use None or 'rgb_array'")
        self.task: Task = get_task(task)
        self.render_mode, self._has_cameras = render_mode, cameras
        self.renderer = drawing.choose(renderer) if cameras or render_mode else "none"
        self.data = mujoco.MjData(model())
        state = gymnasium.spaces.Box(-np.inf, np.inf, (len(JOINTS),), np.float32)
        images = {name: gymnasium.spaces.Box(0, 255, (*size, 3), np.uint8) for name, size in IMAGES.items()}
        spaces: dict[str, gymnasium.Space[Any]] = {**(images if cameras else {}), STATE: state}
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(LOWEST.astype(np.float32), HIGHEST.astype(np.float32))
        self._steady = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode. Where blocks and arm are is a function of the seed, and the same for every task.

        Args:
            seed: names the start. Without it the environment's own generator draws one.
            options: there are none of ours.

        Raises:
            UserError: there is an option that neither we nor others know.
        """
        super().reset(seed=seed)
        own_options(options, ())
        rng = np.random.default_rng(int(self.np_random.integers(2**31)) if seed is None else seed)
        mujoco.mj_resetData(model(), self.data)
        for colour, (x, y, yaw) in draw_blocks(rng).items():
            self.data.joint(f"{colour}_block").qpos = [x, y, HALF, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        tcp = HOME + rng.uniform(-HOME_SPREAD, HOME_SPREAD, 3)
        joints = np.append(kinematics().inverse(np.zeros(5), tcp, 0.0), to_radians([0] * 5 + [HOME_GRIPPER])[5])
        self.data.qpos[: len(JOINTS)] = self.data.ctrl[:] = joints
        mujoco.mj_forward(model(), self.data)
        self._before, self._steady = self.blocks(), 0
        return self._observe(), {"is_success": False, "task": self.task.sentence}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step of 1/30 s.

        Args:
            action: [6] in the robot's units; what lies beyond the ends of travel is clipped.

        Raises:
            UserError: the action has another shape, or is not finite.
        """
        target = np.asarray(action, np.float64)
        if target.shape != LOWEST.shape or not np.isfinite(target).all():
            raise UserError(f"action {action!r} must be {len(JOINTS)} finite numbers, from -100 to 100")
        self.data.ctrl[:] = to_radians(np.clip(target, LOWEST, HIGHEST))
        mujoco.mj_step(model(), self.data, SUBSTEPS)
        # what is seen and judged is of this moment, and not of the last substep's beginning
        mujoco.mj_forward(model(), self.data)
        self._steady = self._steady + 1 if self.task.achieved(self.moment()) else 0
        success = self._steady >= STEADY
        info = {"is_success": success, "task": self.task.sentence}
        return self._observe(), float(success), success, False, info

    def render(self) -> NDArray[np.uint8] | None:
        """The front view, [288, 384, 3], if `render_mode` is "rgb_array"."""
        if self.render_mode is None:
            return None
        return _renderer(self.renderer, (View("front", *FILM, FARTHEST),)).draw(self.data)[0]

    # ---- where things are

    def state(self) -> Array:
        """[6] where the joints are, in the robot's units."""
        return to_units(self.data.qpos[: len(JOINTS)])

    def blocks(self) -> dict[str, Array]:
        """[3] the middle of each block (m), by colour."""
        return {colour: self.data.body(f"{colour}_block").xpos.copy() for colour in COLOURS}

    def moment(self) -> Moment:
        """What success is judged by."""
        return Moment(self.data.site("tcp").xpos.copy(), self.blocks(), self._before)

    def _observe(self) -> Observation:
        seen: Observation = {STATE: self.state().astype(np.float32)}
        if self._has_cameras:
            views = tuple(View(name.rpartition(".")[2], *size, FARTHEST) for name, size in IMAGES.items())
            seen |= dict(zip(IMAGES, _renderer(self.renderer, views).draw(self.data), strict=True))
        return seen


@lru_cache(maxsize=4)
def _renderer(name: str, views: tuple[View, ...]) -> drawing.Renderer:
    """The process's one renderer with these settings."""
    return drawing.renderer(name, model(), views)


def draw_blocks(rng: np.random.Generator) -> Mapping[str, Array]:
    """x, y (m) and yaw (rad) of every block, by colour: apart from each other, and the way of the push free."""
    while True:
        places = rng.uniform((NEAREST, -ASIDE, -LARGEST_YAW), (FARTHEST_AHEAD, ASIDE, LARGEST_YAW), (len(COLOURS), 3))
        if _is_free(dict(zip(COLOURS, places[:, :2], strict=True))):
            return dict(zip(COLOURS, places, strict=True))


def _is_free(places: Mapping[str, Array]) -> bool:
    pairs = [(places[one], places[other]) for one in COLOURS for other in COLOURS if one < other]
    apart = all(np.linalg.norm(one - other) >= APART for one, other in pairs)
    x, y = places["blue"]
    in_the_way = any(
        abs(places[other][0] - x) < BESIDE and y - AHEAD < places[other][1] < y + BEHIND for other in ("red", "green")
    )
    # where the push begins and ends
    path = [*places.values(), np.array([x, y + BEHIND]), np.array([x, y - AHEAD])]
    return apart and not in_the_way and y - AHEAD >= -ASIDE and all(np.linalg.norm(place) <= REACH for place in path)

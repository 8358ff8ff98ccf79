"""The play table as a Gymnasium environment: CALVIN's observations, relative actions, lights and success.

One compiled model and one renderer serve all environments of a process; each environment owns its state.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import gymnasium
import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.drawing import choose
from envs.playtable.blocks import draw_blocks
from envs.playtable.ik import kinematics
from envs.playtable.looks import Look
from envs.playtable.render import renderer
from envs.playtable.robot import FASTEST, FINGER_CLOSED, FINGER_OPEN, HOME, MOTORS, OPENING_ACCELERATION, RATE
from envs.playtable.rotation import Array, to_euler, to_matrix, wrap
from envs.playtable.scene import BUTTON_TRIGGER, SUBSTEPS, SWITCH_TRIGGER, TIMESTEP
from envs.playtable.scene import CAMERAS as VIEWS
from envs.playtable.scene import model as table
from envs.playtable.scenes import SCENES, Scene, get_scene
from envs.playtable.state import PARTS, Start, with_robot, with_scene
from envs.reset import own_options
from envs.table import checked_start, observation_space
from envs.tasks import LYING, RANGES, TASKS, BlockTask, Task, get_task
from worldaction.errors import UserError
from worldaction.spec import (
    ACTION_SIZE,
    CAMERAS,
    CONTROL_HZ,
    METRES_PER_UNIT,
    RADIANS_PER_UNIT,
    ROBOT,
    SCENE,
    SCENE_FIELDS,
    SCENE_SIZE,
)

Observation = dict[str, Any]

# the TCP at the start: CALVIN's home, and how far it is displaced (m, rad)
START_POSITION: Final = np.array([0.026, -0.231, 0.571])
START_EULER: Final = np.array([np.pi, 0.0, np.pi / 2])
START_LOW, START_HIGH = np.array([-0.20, -0.06, -0.06]), np.array([0.15, 0.06, 0.08])
START_TILT, START_YAW = 0.1, 0.3
# how far a finger goes past the ends of its travel in CALVIN (m)
FINGER_GIVE: Final = 0.0005
RENDER_SIZE: Final = 200
OPTIONS: Final = ("task", "scene", "robot_obs", "scene_obs")


class PlayTableEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """The tasks of `envs.tasks` at CALVIN's table.

    Observation: `rgb_static`, `rgb_gripper` [s, s, 3] uint8, `robot_obs` [15] and `scene_obs` [24] float32.
    Action: [7] in [-1, 1], relative: 0.02 m, 0.05 rad of Euler angle per unit in the world frame, gripper open above 0.
    Reward 1 and `terminated` when the task is done (CALVIN's oracle), `truncated` after `max_steps`.

    Args:
        task: name of the task, see `envs.tasks.TASKS`.
        image_size: side of both images (pixels).
        supersample: draw at this multiple of the side and average down.
        renderer: "auto", "egl", "osmesa" or "rays".
        max_steps: time limit (control steps of 1/30 s).
        render_mode: None or "rgb_array", a static view of 200 pixels from `render`.
        cameras: False leaves the images out, and never touches a renderer.
        leash: how far the target may run ahead of the TCP (m). None as in CALVIN, whose target runs on when the arm is
            blocked.
        scene: CALVIN's "A", "B", "C" or "D", see `envs.playtable.scenes`.

    Raises:
        UserError: unknown task, scene or renderer, or a number out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012
    about: Mapping[str, Any] = MappingProxyType({"mujoco": mujoco.__version__})

    def __init__(
        self,
        task: str = "open_drawer",
        *,
        image_size: int = 64,
        supersample: int = 1,
        renderer: str = "auto",
        max_steps: int = 72,
        render_mode: str | None = None,
        cameras: bool = True,
        leash: float | None = None,
        scene: str = "D",
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode {render_mode!r} is not supported; use None or 'rgb_array'")
        if leash is not None and leash <= 0:
            raise UserError(f"leash {leash} must be positive (m), or None for CALVIN's free target")
        if max_steps < 1 or image_size < 1 or supersample < 1:
            raise UserError(
                f"max_steps {max_steps}, image_size {image_size}, supersample {supersample}: all must be >= 1"
            )
        self.render_mode, self.max_steps = render_mode, max_steps
        self.renderer = choose(renderer) if cameras or render_mode else "none"
        self._image_settings = (image_size, supersample)
        self.scene, self._model = get_scene(scene), table(scene)
        self._default_task = self.task = get_task(task, scene)
        self._index = _Index.of_model(scene)
        self.data = mujoco.MjData(self._model)
        self._gripping = False
        self.observation_space = observation_space(image_size if cameras else None)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._has_cameras, self._leash = cameras, leash
        self.look: Look | None = None
        """Colours and light other than the scene's own."""

    # ---- Gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode, whose start is a function of the seed and the task alone.

        Args:
            seed: names the start. Without it the environment's own generator draws one.
            options: "task", a name, for this episode only; "scene", values of slider, drawer, switch (m) or led
                (0 or 1) instead of drawn ones; "robot_obs" [15] and "scene_obs" [24], a recorded state, of which either
                may be left to be drawn. Joints and width decide where the TCP is, and its target is set to it.

        Raises:
            UserError: an option, task or scene entry that does not exist, or a value outside its range.
        """
        super().reset(seed=seed)
        options = own_options(options, OPTIONS)
        self.task = get_task(options["task"], self.scene.name) if options.get("task") else self._default_task
        start_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        rng = np.random.default_rng([start_seed, list(TASKS).index(self.task.name)])
        self._choose_model()
        self._place(self._start(rng, options))
        self.steps = 0
        self.start_scene = self.scene_obs()
        return self._observe(), self._info(success=False)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step of 1/30 s.

        Args:
            action: [7], clipped to [-1, 1].

        Raises:
            UserError: the action has another shape, or is not finite.
        """
        command = np.asarray(action, np.float64)
        if command.shape != (ACTION_SIZE,) or not np.isfinite(command).all():
            raise UserError(f"action {action!r} must be {ACTION_SIZE} finite numbers in [-1, 1]")
        self._command(np.clip(command, -1, 1))
        self._advance()
        self._settle()
        self.steps += 1
        success = bool(self.task.achieved(self.start_scene, self.scene_obs()))
        return self._observe(), float(success), success, self.steps >= self.max_steps, self._info(success=success)

    def render(self) -> NDArray[np.uint8] | None:
        """The static view, [200, 200, 3], if `render_mode` is "rgb_array"."""
        if self.render_mode is None:
            return None
        return self._draw(("static",), RENDER_SIZE)[0]

    # ---- what is observed

    def robot_obs(self) -> Array:
        """[15] in CALVIN's layout, see `worldaction.spec.ROBOT_FIELDS`. As there, the TCP's pose is what it was before
        the last of a step's eight substeps: it is 1/240 s older than the joints."""
        data, index = self.data, self._index
        width = data.qpos[index.fingers].sum()
        pose = [*self._observed_tcp, [width], data.qpos[index.arm], [self.gripper_action]]
        return np.concatenate(pose)

    def scene_obs(self) -> Array:
        """[24] in CALVIN's layout, see `worldaction.spec.SCENE_FIELDS`."""
        data = self.data
        values = np.zeros(SCENE_SIZE)
        for name, address in self._index.joints.items():
            values[SCENE_FIELDS[name]] = data.qpos[address]
        values[SCENE_FIELDS["lightbulb"]], values[SCENE_FIELDS["led"]] = self.lightbulb, self.led
        for place, body in enumerate(self._index.blocks):
            values[6 + 6 * place : 9 + 6 * place] = data.xpos[body]
            values[9 + 6 * place : 12 + 6 * place] = to_euler(data.xmat[body].reshape(3, 3))
        return values

    @property
    def tcp_position(self) -> Array:
        """[3] where the point between the fingertips is (m)."""
        position: Array = self.data.site_xpos[self._index.tcp].copy()
        return position

    @property
    def tcp_euler(self) -> Array:
        """[3] how the hand is turned (rad)."""
        return to_euler(self.data.site_xmat[self._index.tcp].reshape(3, 3))

    def site(self, name: str) -> Array:
        """[3] where a named site is: drawer_handle, slider_handle, switch_lever, button (m)."""
        position: Array = self.data.site(name).xpos.copy()
        return position

    def _observe(self) -> Observation:
        observation: Observation = {}
        if self._has_cameras:
            images = self._draw(VIEWS, *self._image_settings)
            observation.update(zip(CAMERAS, images, strict=True))
        observation[ROBOT] = self.robot_obs().astype(np.float32)
        observation[SCENE] = self.scene_obs().astype(np.float32)
        return observation

    def _draw(self, cameras: tuple[str, ...], size: int, supersample: int = 1) -> list[NDArray[np.uint8]]:
        lit = {"led": self.led, "lightbulb": self.lightbulb}
        return renderer(self.renderer, cameras, size, supersample, self.scene.name).draw(self.data, lit, self.look)

    def _info(self, *, success: bool) -> dict[str, Any]:
        return {"success": success, "is_success": success, "task_description": self.task.description}

    # ---- how it moves

    def _start(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Start:
        """The state asked for, where nothing is asked for a drawn one."""
        values = {**draw_scene(self.task, rng, self.scene), **checked_start(options.get("scene") or {}, self.scene)}
        parts = {**values, "button": 0.0}
        lit = {"led": bool(values["led"]), "lightbulb": values["switch"] > SWITCH_TRIGGER}
        joints = draw_arm(rng)
        blocks = np.array([[x, y, LYING, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
                           for x, y, yaw in draw_blocks(rng, self.scene, self.task)])  # fmt: skip
        start = Start(joints, 2 * FINGER_OPEN, 1.0, {name: parts[name] for name in PARTS}, blocks=blocks, **lit)
        if options.get("robot_obs") is not None:
            start = with_robot(start, options["robot_obs"])
        if options.get("scene_obs") is not None:
            start = with_scene(start, options["scene_obs"], slider=self.scene.ranges["slider"])
        return start

    def _choose_model(self) -> None:
        """Fingers that hold blocks where the task is a block's; both models have the same parts in the same order."""
        gripping = isinstance(self.task, BlockTask)
        if gripping != self._gripping:
            self._model, self._gripping = table(self.scene.name, gripping=gripping), gripping
            self.data = mujoco.MjData(self._model)

    def _place(self, start: Start) -> None:
        """Sets the whole state: table, blocks, robot, targets."""
        model, data, index = self._model, self.data, self._index
        mujoco.mj_resetData(model, data)
        for name, value in start.parts.items():
            data.qpos[index.joints[name]] = value
        for address, pose in zip(index.free_joints, start.blocks, strict=True):
            data.qpos[address : address + 7] = pose
        data.qpos[index.motors] = [*start.joints, start.width / 2, start.width / 2]
        mujoco.mj_forward(model, data)
        self.led, self.lightbulb, self.gripper_action = start.led, start.lightbulb, start.gripper_action
        self._pressed, self._switched = start.parts["button"] > BUTTON_TRIGGER, False
        self.target_position, self.target_euler = self._observed_tcp = self.tcp_position, self.tcp_euler

    def _command(self, action: Array) -> None:
        """Moves the integrated target, as CALVIN's robot does, and asks where the joints have to go."""
        self.target_position = self.target_position + METRES_PER_UNIT * action[:3]
        if self._leash is not None:
            tcp = self.tcp_position
            self.target_position = tcp + np.clip(self.target_position - tcp, -self._leash, self._leash)
        self.target_euler = wrap(self.target_euler + RADIANS_PER_UNIT * action[3:6])
        joints, orientation = self.data.qpos[self._index.arm], to_matrix(self.target_euler)
        goal = kinematics().inverse(joints, self.target_position, orientation)
        self.gripper_action = 1.0 if action[6] > 0 else -1.0
        finger = FINGER_OPEN if self.gripper_action > 0 else FINGER_CLOSED
        self._motor_target = np.array([*goal, finger, finger])

    def _advance(self) -> None:
        """One control step of physics, in one call unless a motor is at its limit."""
        model, data, index = self._model, self.data, self._index
        fastest = FASTEST.copy()
        for left in range(SUBSTEPS, 0, -1):
            joints = data.qpos[index.motors]
            ahead = self._motor_target - joints
            fastest[7:] = data.qvel[index.finger_speeds].clip(0) + OPENING_ACCELERATION * TIMESTEP
            within = np.clip(ahead, -FASTEST / RATE, np.minimum(fastest, FASTEST) / RATE)
            data.ctrl[:MOTORS] = joints + within
            if (within == ahead).all():
                mujoco.mj_step(model, data, nstep=left)
                break
            mujoco.mj_step(model, data)
        self._stop_fingers()

    def _stop_fingers(self) -> None:
        """Past their ends they give by half a millimetre, as CALVIN's do: a pressing arm would part them altogether."""
        places = self._index.motors[7:]
        self.data.qpos[places] = self.data.qpos[places].clip(-FINGER_GIVE, FINGER_OPEN + FINGER_GIVE)

    def _settle(self) -> None:
        """Brings poses and cameras up to date with the joints, and switches the lights."""
        model, data = self._model, self.data
        # MuJoCo leaves behind the poses from before the last substep, and so does Bullet, where CALVIN reads them
        self._observed_tcp = self.tcp_position, self.tcp_euler
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        pressed = bool(data.qpos[self._index.joints["button"]] > BUTTON_TRIGGER)
        if pressed and not self._pressed:
            self.led = not self.led
        self._pressed = pressed
        # the bulb follows the switch's crossings: after a reset it may contradict the switch for one step, as in CALVIN
        switched = bool(data.qpos[self._index.joints["switch"]] > SWITCH_TRIGGER)
        if switched or self._switched:
            self.lightbulb = switched
        self._switched = switched


class _Index:
    """Where things are in the arrays of the model."""

    def __init__(self, scene: Scene) -> None:
        model = table(scene.name)
        self.tcp = model.site("tcp").id
        self.arm = np.array([model.joint(f"joint{n}").qposadr[0] for n in range(1, 8)])
        fingers = [model.joint(f"finger_{side}") for side in ("left", "right")]
        self.fingers = np.array([finger.qposadr[0] for finger in fingers])
        self.motors = np.concatenate([self.arm, self.fingers])
        self.finger_speeds = np.array([finger.dofadr[0] for finger in fingers])
        self.joints = {name: model.joint(name).qposadr[0] for name in PARTS}
        self.free_joints = [model.joint(name).qposadr[0] for name, _ in scene.blocks]
        self.blocks = [model.body(name).id for name, _ in scene.blocks]

    @staticmethod
    @lru_cache(maxsize=len(SCENES))
    def of_model(scene: str) -> _Index:
        return _Index(get_scene(scene))


def draw_scene(task: Task, rng: np.random.Generator, scene: Scene = SCENES["D"]) -> dict[str, float]:
    """Start values of slider, drawer, switch (m) and led (0 or 1) that leave the task to be done."""
    values = {
        "slider": float(rng.choice([0.0, scene.ranges["slider"]])),
        "drawer": float(rng.choice([0.0, 0.20])),
        "switch": float(rng.choice([0.0, RANGES["switch"]])),
        "led": float(rng.integers(2)),
    }
    if task.joint:
        values[task.joint] = float(rng.uniform(*task.start))
    return values


def draw_arm(rng: np.random.Generator) -> Array:
    """Joints [7] (rad) that hold the TCP near CALVIN's home, displaced, tilted and turned a little."""
    position = START_POSITION + rng.uniform(START_LOW, START_HIGH)
    euler = START_EULER + rng.uniform(-1, 1, 3) * [START_TILT, START_TILT, START_YAW]
    return kinematics().inverse(HOME, position, to_matrix(euler), iterations=100)

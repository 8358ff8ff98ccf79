"""The real CALVIN table as a Gymnasium environment: the play table's interface around calvin_env in another process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.calvin.client import Array, Renderer, Scene, Settings, Simulator, SimulatorCrashed, State
from envs.calvin.draws import Start, check_states, draw_start, site
from envs.playtable.scenes import get_scene
from envs.reset import own_options
from envs.table import checked_start, observation_space
from envs.tasks import get_task
from worldaction.config import TableConfig
from worldaction.errors import UserError
from worldaction.play.images import area_mean
from worldaction.spec import (
    ACTION_SIZE,
    CAMERAS,
    CONTROL_HZ,
    ROBOT,
    SCENE,
    SCENE_FIELDS,
    STATIC,
)

Observation = dict[str, Any]


# sides of CALVIN's images (pixels)
NATIVE: Final = {"rgb_static": 200, "rgb_gripper": 84}
OPTIONS: Final = ("task", "scene", "robot_obs", "scene_obs")
# bullet's OpenGL plugin keeps 12 MB of every scene that is built: so many, and the process is renewed
EGL_RESETS: Final = 50


class CalvinEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """The tasks of `envs.tasks` at CALVIN's own table, simulated by the user's installation of calvin_env.

    Observation, action, reward and `info` are those of `envs.playtable.env.PlayTableEnv`. An episode depends on its
    start and its actions alone: the scene is built anew at every reset, which takes bullet's memory of contacts away.

    Args:
        task: name of the task, see `envs.tasks.TASKS`.
        image_size: side of both images (pixels), averaged down from CALVIN's 200 and 84.
        renderer: "tiny" (CPU) or "egl".
        max_steps: time limit (control steps of 1/30 s).
        render_mode: None or "rgb_array", the static view of 200 pixels from `render`.
        cameras: False leaves the images out, which makes it 40 times as fast.
        scene: which of CALVIN's tables, "A", "B", "C" or "D".
        python: interpreter of the simulator; empty: WORLDACTION_CALVIN_PYTHON.
        root: checkout of calvin_env; empty: WORLDACTION_CALVIN_ROOT, or what the interpreter imports.
        patience: seconds to wait for the simulator's answer to a reset or step.

    Attributes:
        about: versions and commit of the simulator.
        episodes: episodes begun.
        crashes: how many of them the simulator did not survive.

    Raises:
        UserError: a wrong argument, or a simulator that does not start.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(
        self,
        task: str = "open_drawer",
        *,
        image_size: int = 64,
        renderer: Renderer = "tiny",
        max_steps: int = 72,
        render_mode: str | None = None,
        cameras: bool = True,
        scene: Scene = "D",
        python: str = "",
        root: str = "",
        patience: float = 60.0,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode {render_mode!r} is not supported; use None or 'rgb_array'")
        if max_steps < 1:
            raise UserError(f"max_steps {max_steps} must be >= 1")
        if not 1 <= image_size <= min(NATIVE.values()):
            raise UserError(f"image_size {image_size} is outside 1..{min(NATIVE.values())}, CALVIN's smaller image")
        self._settings = Settings(python=python, root=root, scene=scene, renderer=renderer, patience=patience)
        self.render_mode, self.max_steps, self.scene = render_mode, max_steps, get_scene(scene)
        self.renderer: str = renderer
        self._default_task = self.task = get_task(task, scene)
        self._image_size, self._has_cameras = image_size, cameras
        self.observation_space = observation_space(image_size if cameras else None)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self.episodes = self.crashes = 0
        self._state: State | None = None
        self._begun: Array | None = None
        self._simulator = Simulator(self._settings)
        self.about: Mapping[str, Any] = self._simulator.about

    # ---- Gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode, in a new simulator if the last one is gone.

        Args:
            seed: names a drawn start, together with the task. Without it the environment's own generator draws one.
            options: "task", a name, for this episode only; "scene", values of slider, drawer, switch (m) or led
                (0 or 1) instead of drawn ones; "robot_obs" [15] and "scene_obs" [24], a recorded state, of which either
                may be left to be drawn. Of the robot, the joints, the width and the last gripper command decide.

        Raises:
            UserError: an option, task or scene entry that does not exist, or a value that cannot be.
            SimulatorCrashed: the simulator did not survive the reset.
        """
        super().reset(seed=seed)
        options = own_options(options, OPTIONS)
        self.task = get_task(options["task"], self.scene.name) if options.get("task") else self._default_task
        start = self._start(seed, options)
        self._renew()
        self.steps, self.episodes = 0, self.episodes + 1
        with self._episode_lost_on_crash():
            self._state = self._simulator.reset(start.robot_obs, start.scene_obs, images=self._has_cameras)
        self.start_scene = self.scene_obs()
        return self._observe(), self._info(success=False)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step of 1/30 s.

        Args:
            action: [7], clipped to [-1, 1].

        Raises:
            UserError: the action has another shape, or is not finite.
            SimulatorCrashed: the episode is lost; `reset` starts another simulator.
        """
        command = self._command(action)
        if self._begun is None:
            self.begin_step(command)
        elif not np.array_equal(command, self._begun):
            raise UserError("a step has begun with another action; finish it with that one")
        self._begun = None
        with self._episode_lost_on_crash():
            self._state = self._simulator.end_step()
        self.steps += 1
        success = bool(self.task.achieved(self.start_scene, self.scene_obs()))
        return self._observe(), float(success), success, self.steps >= self.max_steps, self._info(success=success)

    def begin_step(self, action: ArrayLike) -> None:
        """Hands an action to the simulator without waiting; `step` with the same action then only waits.

        With several environments, begin all of their steps first: their simulators work side by side.

        Args:
            action: as for `step`; errors likewise.
        """
        command = self._command(action)
        with self._episode_lost_on_crash():
            self._simulator.begin_step(command, images=self._has_cameras)
        self._begun = command

    def render(self) -> NDArray[np.uint8] | None:
        """The static view, [200, 200, 3], if `render_mode` is "rgb_array"."""
        if self.render_mode is None:
            return None
        with self._episode_lost_on_crash():
            images = self._now.images or self._simulator.render()
        return images[STATIC].copy()

    def close(self) -> None:
        """Ends the simulator."""
        self._simulator.close()

    # ---- what is observed

    def robot_obs(self) -> Array:
        """[15] in CALVIN's layout, see `worldaction.spec.ROBOT_FIELDS`."""
        return self._now.robot_obs.copy()

    def scene_obs(self) -> Array:
        """[24] in CALVIN's layout, see `worldaction.spec.SCENE_FIELDS`."""
        return self._now.scene_obs.copy()

    def achieved(self) -> list[str]:
        """All of CALVIN's 34 tasks that its own oracle sees done since the reset."""
        with self._episode_lost_on_crash():
            return self._simulator.achieved()

    @property
    def tcp_position(self) -> Array:
        """[3] where the point between the fingertips is (m)."""
        return self.robot_obs()[:3]

    @property
    def tcp_euler(self) -> Array:
        """[3] how the hand is turned (rad)."""
        return self.robot_obs()[3:6]

    @property
    def target_position(self) -> Array:
        """[3] the target that actions move, ahead of the TCP (m)."""
        return self._now.target[:3].copy()

    @property
    def target_euler(self) -> Array:
        """[3] how the hand shall be turned (rad)."""
        return self._now.target[3:].copy()

    @property
    def gripper_action(self) -> float:
        """The last gripper command, -1 or 1."""
        return float(self._now.robot_obs[14])

    @property
    def led(self) -> bool:
        """Is the LED on?"""
        return bool(self._now.scene_obs[SCENE_FIELDS["led"]])

    @property
    def lightbulb(self) -> bool:
        """Is the bulb on?"""
        return bool(self._now.scene_obs[SCENE_FIELDS["lightbulb"]])

    def site(self, name: str) -> Array:
        """[3] where a named site is: drawer_handle, slider_handle, switch_lever, button (m).

        Raises:
            UserError: there is no such site.
        """
        return site(name, self.scene, self._now.scene_obs)

    @property
    def _now(self) -> State:
        if self._state is None:
            raise UserError("there is no episode; call reset first")
        return self._state

    def _observe(self) -> Observation:
        images = self._now.images if self._has_cameras else {}
        observation: Observation = {
            camera: area_mean(images[camera][None], self._image_size)[0].copy() for camera in CAMERAS if images
        }
        observation[ROBOT] = self._now.robot_obs.astype(np.float32)
        observation[SCENE] = self._now.scene_obs.astype(np.float32)
        return observation

    def _info(self, *, success: bool) -> dict[str, Any]:
        return {"success": success, "is_success": success, "task_description": self.task.description}

    # ---- the simulator

    def _command(self, action: ArrayLike) -> Array:
        command = np.asarray(action, np.float64)
        if command.shape != (ACTION_SIZE,) or not np.isfinite(command).all():
            raise UserError(f"action {action!r} must be {ACTION_SIZE} finite numbers in [-1, 1]")
        if self._state is None:
            raise UserError("there is no episode to go on with; call reset first")
        command = np.clip(command, -1, 1)
        command[6] = 1.0 if command[6] > 0 else -1.0
        return command

    def _start(self, seed: int | None, options: dict[str, Any]) -> Start:
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        start = draw_start(
            self.task, drawn, checked_start(options.get("scene") or {}, self.scene), scene=self.scene.name
        )
        robot, scene = (options.get(name) for name in ("robot_obs", "scene_obs"))
        start = start._replace(
            robot_obs=start.robot_obs if robot is None else np.asarray(robot, np.float64),
            scene_obs=start.scene_obs if scene is None else np.asarray(scene, np.float64),
        )
        check_states(start.robot_obs, start.scene_obs, "options")
        return start

    def _renew(self) -> None:
        if self._begun is not None:
            self._begun = None
            with self._episode_lost_on_crash():
                self._simulator.end_step()
        if self.renderer == "egl" and self.episodes and self.episodes % EGL_RESETS == 0:
            self._simulator.close()
        if not self._simulator.alive:
            self._simulator = Simulator(self._settings)
            self.about = self._simulator.about

    @contextmanager
    def _episode_lost_on_crash(self) -> Iterator[None]:
        try:
            yield
        except SimulatorCrashed:
            self.crashes, self._state, self._begun = self.crashes + 1, None, None
            raise


def calvin_renderer(name: str) -> Renderer:
    """CALVIN's renderer for a study's: TinyRenderer unless it is "egl".

    Raises:
        UserError: CALVIN has not got it.
    """
    if name not in ("auto", "egl"):
        raise UserError(f"CALVIN cannot draw with {name!r}; set table.renderer to auto (TinyRenderer) or egl")
    return "egl" if name == "egl" else "tiny"


def calvin_table(table: TableConfig) -> CalvinEnv:
    """CALVIN's table with a study's options, drawn by TinyRenderer unless the renderer is "egl".

    Raises:
        UserError: the simulator does not start, or the study asks for a renderer that CALVIN has not got.
    """
    renderer = calvin_renderer(table.renderer)
    return CalvinEnv(image_size=table.image_size, max_steps=table.max_steps, renderer=renderer, scene=table.scene)

"""The simulator's process: started, asked, timed, and ended with its owner. How to install one: docs/calvin.md."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from envs.calvin.server import PROTOCOL, BrokenMessageError, receive, send
from worldaction.errors import UserError, unknown

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]
Images = dict[str, NDArray[np.uint8]]
Renderer = Literal["tiny", "egl"]
Scene = Literal["A", "B", "C", "D"]

PYTHON: Final = "WORLDACTION_CALVIN_PYTHON"
ROOT: Final = "WORLDACTION_CALVIN_ROOT"
SERVER: Final = Path(__file__).with_name("server.py")
# what of the simulator's output is shown when it has died
LAST_LINES, LAST_BYTES = 3, 4000
# of the client's Python and of no use to the simulator's
FOREIGN: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


_said: set[str] = set()
"""What the log of this process has told of simulators."""


def _described(about: dict[str, Any]) -> str:
    """A simulator in a line."""
    commit = f"{str(about.get('calvin_env'))[:10]}{' (modified)' if about.get('modified') else ''}"
    versions = ", ".join(f"{name} {about[name]}" for name in ("pybullet", "numpy", "python") if name in about)
    return f"CALVIN simulator: calvin_env {commit}, {versions}"


class SimulatorCrashed(UserError):
    """The simulator died, hung or talked nonsense. Its episode is lost; a new simulator can be started."""


@dataclass(frozen=True)
class Settings:
    """Which simulator, and how it is run.

    Raises:
        UserError: a scene or renderer that does not exist, or a time that is not positive.
    """

    python: str = ""
    """The interpreter that has calvin_env's dependencies; empty: the environment variable WORLDACTION_CALVIN_PYTHON."""
    root: str = ""
    """Checkout of calvin_env; empty: WORLDACTION_CALVIN_ROOT, or else the package that the interpreter imports."""
    scene: Scene = "D"
    """Which of CALVIN's tables."""
    renderer: Renderer = "tiny"
    """TinyRenderer on the CPU, or OpenGL through EGL. They do not look alike: one for data and evaluation."""
    patience: float = 60.0
    """Seconds to wait for an answer."""
    start_patience: float = 180.0
    """Seconds to wait for a simulator that starts."""

    def __post_init__(self) -> None:
        if self.scene not in get_args(Scene):
            raise unknown("scene", self.scene, get_args(Scene))
        if self.renderer not in get_args(Renderer):
            raise unknown("renderer", self.renderer, get_args(Renderer))
        if min(self.patience, self.start_patience) <= 0:
            raise UserError(f"patience {self.patience} and start_patience {self.start_patience} must be above 0")


class State(NamedTuple):
    """What the simulator says after a reset or a step."""

    robot_obs: Array
    """[15]."""
    scene_obs: Array
    """[24]."""
    target: Array
    """[6] position (m) and Euler angles (rad) of the robot's integrated target."""
    images: Images
    """By camera, [H, W, 3] as CALVIN draws them: 200 x 200 and 84 x 84. Empty if not asked for."""


class Simulator:
    """One process with one simulator.

    Args:
        settings: which and how.

    Attributes:
        about: versions, commit, the order of the blocks, as the simulator says.

    Raises:
        UserError: no interpreter is named, it does not exist, or calvin_env does not start in it.
    """

    def __init__(self, settings: Settings) -> None:
        self._patience, self._owner = settings.patience, os.getpid()
        # requests so far, and the one whose reply is still to come
        self._count, self._asked = 0, ""
        self._process, self._socket, self._output = _start(find_python(settings))
        # also when nobody calls close, and at the end of the interpreter
        self._end = weakref.finalize(self, _end, self._process, self._socket, self._output, self._owner)
        root = settings.root or os.environ.get(ROOT, "")
        try:
            about, _ = self._request(
                "hello",
                patience=settings.start_patience,
                root=os.path.abspath(root) if root else "",
                scene=settings.scene,
                renderer=settings.renderer,
            )
        except SimulatorCrashed as error:
            raise UserError(f"CALVIN does not start: {error}; docs/calvin.md says how it is installed") from error
        self.about = {name: value for name, value in about.items() if name != "id"}
        if (spoken := self.about.get("protocol")) != PROTOCOL:
            self.close()
            raise UserError(f"the simulator speaks protocol {str(spoken)[:40]}, not {PROTOCOL}; start it anew")
        # one line, however many simulators are started by however many policies of this process
        if (said := _described(self.about)) not in _said:
            _said.add(said)
            logger.info("%s", said)

    @property
    def alive(self) -> bool:
        """Can it be asked?"""
        return self._end.alive and self._process.poll() is None

    def reset(self, robot_obs: Array, scene_obs: Array, *, images: bool) -> State:
        """The scene built anew and set to a state.

        Args:
            robot_obs: [15], of which the joints, the width and the last gripper command decide.
            scene_obs: [24]; both lights 0 or 1.
            images: whether to draw.

        Raises:
            SimulatorCrashed: no or no sensible answer; the process has been ended.
        """
        return self._state(self._request("reset", {"robot_obs": robot_obs, "scene_obs": scene_obs}, images=images)[1])

    def step(self, action: Array, *, images: bool) -> State:
        """One control step.

        Args:
            action: [7] relative, the gripper entry -1 or 1.
            images: whether to draw.

        Raises:
            SimulatorCrashed: as for `reset`.
        """
        self.begin_step(action, images=images)
        return self.end_step()

    def begin_step(self, action: Array, *, images: bool) -> None:
        """Hands over an action as `step` does, and does not wait: other simulators can be handed theirs meanwhile."""
        self._send("step", {"action": action}, images=images)

    def end_step(self) -> State:
        """Waits for the state after the step that has begun; errors as for `reset`."""
        return self._state(self._receive(self._patience)[1])

    def render(self) -> Images:
        """Both images as they are now, by camera; errors as for `reset`."""
        images = self._request("render")[1]
        self._check(all(image.dtype == np.uint8 and image.ndim == 3 for image in images.values()), "render")
        return dict(images)

    def achieved(self) -> list[str]:
        """All of CALVIN's 34 tasks that its own oracle sees done since the reset; errors as for `reset`."""
        tasks: Any = self._request("achieved")[0].get("tasks")
        self._check(type(tasks) is list and all(type(task) is str for task in tasks), "achieved")
        return list(tasks)

    def configuration(self) -> str:
        """What calvin_env was built from, as YAML; errors as for `reset`."""
        text = self._request("configuration")[0].get("yaml")
        self._check(type(text) is str, "configuration")
        return str(text)

    def close(self) -> None:
        """Ends the process; a second call does nothing."""
        self._end()

    def _request(
        self, command: str, arrays: dict[str, Array] | None = None, *, patience: float | None = None, **fields: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """One request and its reply."""
        self._send(command, arrays or {}, **fields)
        return self._receive(patience or self._patience)

    def _send(self, command: str, arrays: dict[str, Array], **fields: Any) -> None:
        """Sends a request; a simulator that cannot be told is ended."""
        if os.getpid() != self._owner:
            raise UserError("a simulator belongs to the process that started it; make the environment in this one")
        if not self._end.alive:
            raise UserError("the simulator has ended; start another, an environment does so when it is reset")
        if self._asked:
            raise UserError(f"the simulator is at work on {self._asked!r}; wait for that first")
        self._count, self._asked = self._count + 1, command
        try:
            self._socket.settimeout(self._patience)
            send(self._socket, {"command": command, "id": self._count, **fields}, arrays)
        except OSError as error:
            raise SimulatorCrashed(self._post_mortem(error, self._patience)) from error

    def _receive(self, patience: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Waits for the reply to the last request; a simulator that fails in anything is ended."""
        try:
            reply, result = receive(self._socket, patience)
            if reply.get("id") != self._count:
                raise BrokenMessageError(f"an answer to request {reply.get('id')}, not {self._count}")
        except (EOFError, BrokenMessageError, OSError) as error:
            raise SimulatorCrashed(self._post_mortem(error, patience)) from error
        except KeyboardInterrupt:
            # its answer would come to the next question
            self.close()
            raise
        command, self._asked = self._asked, ""
        if "error" in reply:
            self.close()
            raise SimulatorCrashed(f"{command} failed in the simulator with {reply['error']}")
        return reply, result

    def _state(self, arrays: dict[str, Any]) -> State:
        """The arrays of a reply, each of its shape."""
        shapes = {"robot_obs": (15,), "scene_obs": (24,), "target": (6,)}
        vectors = [arrays.pop(name, None) for name in shapes]
        fit = all(v is not None and v.shape == shape for v, shape in zip(vectors, shapes.values(), strict=True))
        self._check(fit and all(image.dtype == np.uint8 and image.ndim == 3 for image in arrays.values()), "a state")
        robot, scene, target = (np.asarray(vector, np.float64) for vector in vectors)
        return State(robot, scene, target, arrays)

    def _check(self, fits: bool, what: str) -> None:
        """End a simulator whose reply has not what it should."""
        if not fits:
            self.close()
            raise SimulatorCrashed(f"the simulator answered {what} with something else; start another")

    def _post_mortem(self, error: Exception, patience: float) -> str:
        """Ends the process and says in one line what happened."""
        if isinstance(error, TimeoutError):
            what = f"did not answer within {patience:g} s"
        elif isinstance(error, BrokenMessageError):
            what = f"sent {error}"
        else:
            try:
                what = f"ended with exit status {self._process.wait(5)}"
            except subprocess.TimeoutExpired:
                what = "closed its connection"
        said = _last_lines(self._output)
        self.close()
        return f"the simulator {what} on {self._asked}; it said: {said or 'nothing'}"


def find_python(settings: Settings) -> str:
    """The interpreter that runs the simulator.

    Raises:
        UserError: none is named, or it is no program.
    """
    name = settings.python or os.environ.get(PYTHON, "")
    if not name:
        raise UserError(f"no CALVIN simulator is known: set {PYTHON} to its Python, see docs/calvin.md")
    found = shutil.which(name)
    if found is None:
        raise UserError(f"{PYTHON} {name} is no program; give the Python that has calvin_env's dependencies")
    return found


def _start(python: str) -> tuple[subprocess.Popen[bytes], socket.socket, IO[bytes]]:
    ours, theirs = socket.socketpair()
    # a file, because a pipe that nobody reads blocks whoever prints
    output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    with theirs:
        try:
            # a session of its own, so that Ctrl-C reaches us alone
            process = subprocess.Popen(
                [python, str(SERVER), str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),), start_new_session=True, env=environment,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            output.close()
            raise UserError(f"{python} does not start ({error}); give the Python of the simulator") from error
    return process, ours, output


def _end(process: subprocess.Popen[bytes], connection: socket.socket, output: IO[bytes], owner: int) -> None:
    """Ends the process whatever its state: it holds nothing that would have to be saved."""
    connection.close()
    # a forked child has copies of these objects, but the process is not its own
    if os.getpid() == owner:
        process.kill()
        process.wait()
    output.close()


def _last_lines(output: IO[bytes]) -> str:
    size = os.fstat(output.fileno()).st_size
    # not read(), whose position the process shares
    tail = os.pread(output.fileno(), LAST_BYTES, max(size - LAST_BYTES, 0))
    lines = [line.strip() for line in tail.decode(errors="replace").splitlines()]
    return " | ".join([line for line in lines if line][-LAST_LINES:])

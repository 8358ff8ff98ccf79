"""One CALVIN simulator behind a socket. Runs under the simulator's own Python, where worldaction is not installed.

The client starts it as `python server.py DESCRIPTOR`. It reads Python 3.8, numpy and calvin_env alone. Its standard
output belongs to the simulator, which prints; messages go through the socket of that file descriptor:

    4 bytes, big endian: length of the header  |  the header: JSON  |  the arrays that the header lists, raw, C order

A request is {"command": name, ...}; its reply has the same "id", and "error" where the command failed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PROTOCOL = 1
MAX_HEADER, MAX_PAYLOAD = 1 << 20, 1 << 26
DTYPES = ("<f8", "<f4", "|u1")


class Message(NamedTuple):
    """What goes through the socket."""

    fields: dict[str, Any]
    arrays: dict[str, np.ndarray]


class BrokenMessageError(Exception):
    """The bytes that came are no message of this protocol, or ended within one."""


def send(connection: socket.socket, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes one message.

    Args:
        connection: a stream socket.
        fields: what JSON can hold.
        arrays: by name; float64, float32 or uint8.
    """
    ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in ordered.items()]
    header = json.dumps({**fields, "arrays": described}).encode()
    parts = [struct.pack(">I", len(header)), header, *(array.tobytes() for array in ordered.values())]
    connection.sendall(b"".join(parts))


def receive(connection: socket.socket, patience: float | None = None) -> Message:
    """Reads one message.

    Args:
        connection: a stream socket.
        patience: seconds until the whole message must be there; None waits for ever.

    Returns:
        its fields and its arrays.

    Raises:
        EOFError: the other side is gone, and no message had begun.
        BrokenMessageError: the bytes are no message, or end within one.
        TimeoutError: it took too long.
    """
    deadline = None if patience is None else time.monotonic() + patience
    first = _read(connection, 4, deadline, may_end=True)
    (length,) = struct.unpack(">I", first)
    if length > MAX_HEADER:
        raise BrokenMessageError(f"a header of {length} bytes")
    try:
        fields = json.loads(_read(connection, length, deadline))
        if type(fields) is not dict:
            raise ValueError("no fields")
        layout = _layout(fields.pop("arrays"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BrokenMessageError(f"a header that says nothing ({type(error).__name__}: {str(error)[:200]})") from error
    # sides that are multiplied by 0 are no harmless ones
    payload = sum(dtype.itemsize * math.prod(max(side, 1) for side in shape) for _, dtype, shape in layout)
    if payload > MAX_PAYLOAD:
        raise BrokenMessageError(f"arrays of {str(payload)[:20]} bytes")
    arrays = {}
    for name, dtype, shape in layout:
        size = dtype.itemsize * math.prod(shape)
        arrays[name] = np.frombuffer(_read(connection, size, deadline), dtype).reshape(shape)
    return Message(fields, arrays)


def _layout(described: Any) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Name, dtype and shape of the arrays, of which only harmless ones pass."""
    for name, dtype, shape in described:
        sides = type(shape) is list and len(shape) <= 32 and all(type(side) is int and side >= 0 for side in shape)
        if type(name) is not str or type(dtype) is not str or dtype not in DTYPES or not sides:
            raise ValueError("an array of no known type or shape")
    return [(str(name), np.dtype(dtype), tuple(shape)) for name, dtype, shape in described]


def _read(connection: socket.socket, size: int, deadline: float | None, may_end: bool = False) -> bytes:
    chunks: list[bytes] = []
    missing = size
    while missing:
        if deadline is not None:
            connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        chunk = connection.recv(min(missing, 1 << 20))
        if not chunk:
            if may_end and missing == size:
                raise EOFError("the other side is gone")
            raise BrokenMessageError(f"a message that ends {missing} bytes early")
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


# ---- the simulator


class Simulation:
    """calvin_env, built from its own configuration.

    Args:
        root: checkout of calvin_env, the folder that holds `conf` and `data`; empty: that of the installed package.
        scene: "A", "B", "C" or "D".
        renderer: "tiny" (CPU) or "egl".
    """

    def __init__(self, root: str, scene: str, renderer: str) -> None:
        self._root = _checkout(root)
        import hydra

        configuration = _compose(self._root / "conf", f"calvin_scene_{scene}")
        configuration.data_path, configuration.env.use_egl = str(self._root / "data"), renderer == "egl"
        self._configuration = configuration
        self._env = hydra.utils.instantiate(configuration.env, show_gui=False, use_vr=False, use_scene_info=True)
        self._oracle = hydra.utils.instantiate(configuration.tasks)
        self._cameras = self._env.cameras
        self._start: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """What made the numbers: versions, commit, and the blocks in the order of scene_obs."""
        import git

        repository = git.Repo(str(self._root), search_parent_directories=True)
        return {
            "protocol": PROTOCOL,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pybullet": _version("pybullet"),
            "calvin_env": repository.head.object.hexsha,
            "modified": bool(repository.index.diff(None)),
            "root": str(self._root),
            "blocks": [block.name for block in self._env.scene.movable_objects],
        }

    def configuration(self) -> str:
        """What it was built from, as YAML: calvin_env's own `get_env` builds another from it."""
        from omegaconf import OmegaConf

        return str(OmegaConf.to_yaml(self._configuration))

    def reset(self, arrays: Mapping[str, np.ndarray], images: bool) -> dict[str, np.ndarray]:
        """The scene built anew and set to a state: nothing of what was before is left, not even bullet's contacts."""
        env = self._env
        env.load()
        env.robot.gripper_action = 1 if arrays["robot_obs"][14] > 0 else -1
        env.cameras = self._cameras if images else []
        observation = env.reset(robot_obs=arrays["robot_obs"], scene_obs=arrays["scene_obs"])
        self._start = env.get_info()
        return self._state(observation)

    def step(self, arrays: Mapping[str, np.ndarray], images: bool) -> dict[str, np.ndarray]:
        """One control step with a relative action [7], its gripper entry -1 or 1."""
        self._env.cameras = self._cameras if images else []
        observation, _, _, _ = self._env.step(np.array(arrays["action"], np.float64))
        return self._state(observation)

    def render(self) -> dict[str, np.ndarray]:
        """Both images as they are now."""
        self._env.cameras = self._cameras
        return {name: np.asarray(image, np.uint8) for name, image in self._env.get_camera_obs()[0].items()}

    def achieved(self) -> list[str]:
        """Names of all the tasks that CALVIN's own oracle sees done since the reset."""
        return sorted(self._oracle.get_task_info(self._start, self._env.get_info()))

    def _state(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        robot = self._env.robot
        images = {name: np.asarray(image, np.uint8) for name, image in observation["rgb_obs"].items()}
        return {
            "robot_obs": np.asarray(observation["robot_obs"], np.float64),
            "scene_obs": np.asarray(observation["scene_obs"], np.float64),
            "target": np.concatenate([robot.target_pos, robot.target_orn]).astype(np.float64),
            **images,
        }


def _checkout(root: str) -> Path:
    """The folder with `conf` and `data`; afterwards its calvin_env is the one that is imported."""
    if root:
        sys.path.insert(0, root)
    import calvin_env

    folder = Path(root) if root else Path(calvin_env.__file__).resolve().parents[1]
    if not (folder / "conf" / "config_data_collection.yaml").is_file() or not (folder / "data").is_dir():
        raise FileNotFoundError(f"{folder} has no folders conf and data: it is no checkout of calvin_env")
    return folder


def _compose(folder: Path, scene: str) -> Any:
    import hydra

    # Hydra 1.2 and later warn without it, Hydra 1.1 does not know it
    version = {} if hydra.__version__.startswith("1.1") else {"version_base": "1.1"}
    with hydra.initialize_config_dir(config_dir=str(folder.resolve()), **version):
        overrides = ["cameras=static_and_gripper", f"scene={scene}", "use_vr=false"]
        return hydra.compose("config_data_collection", overrides=overrides)


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


# ---- the loop


def serve(connection: socket.socket) -> None:
    """Answers requests until the client closes the connection or asks to stop."""
    simulation: Simulation | None = None
    for fields, arrays in _requests(connection):
        command, reply = fields.get("command"), {"id": fields.get("id")}
        result: dict[str, np.ndarray] = {}
        try:
            if command == "hello":
                simulation = Simulation(fields["root"], fields["scene"], fields["renderer"])
                reply.update(simulation.describe())
            elif simulation is None:
                raise ValueError(f"{command} before hello")
            elif command in ("reset", "step"):
                result = getattr(simulation, command)(arrays, fields["images"])
            elif command == "render":
                result = simulation.render()
            elif command == "configuration":
                reply["yaml"] = simulation.configuration()
            elif command == "achieved":
                reply["tasks"] = simulation.achieved()
            else:
                raise ValueError(f"no command {command!r}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the client tells the user
            reply["error"] = f"{type(error).__name__}: {error}"
        send(connection, reply, result)


def _requests(connection: socket.socket) -> Iterator[Message]:
    while True:
        try:
            message = receive(connection)
        except (EOFError, ConnectionError, BrokenMessageError):
            # after a broken message nobody knows where the next one begins
            return
        if message[0].get("command") == "close":
            return
        yield message


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: a simulator never outlives its client."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    # this folder's modules must not stand in for the simulator's
    sys.path.pop(0)
    _end_with(os.getppid())
    serve(socket.socket(fileno=int(sys.argv[1])))

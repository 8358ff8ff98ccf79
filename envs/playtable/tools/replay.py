"""Recordings of commanded actions, and what becomes of them in the table: the same commands from the same states.

A recording is a small `.npz` without images: frames in the layout of `worldaction.spec`, what was commanded in each,
where the robot's integrated target was, and which windows hold a task. It is read without unpickling and checked.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.playtable.env import PlayTableEnv
from envs.tasks import TASKS
from worldaction.errors import UserError, unknown
from worldaction.io.atomic import replacing
from worldaction.spec import ACTION_SIZE, ROBOT, ROBOT_SIZE, SCENE, SCENE_FIELDS, SCENE_SIZE

Floats = NDArray[np.float32]

COLUMNS: Final = {"robot_obs": ROBOT_SIZE, "scene_obs": SCENE_SIZE, "action": ACTION_SIZE, "target": 6}
SCENES: Final = ("A", "B", "C", "D")
PARTS: Final = ("slider", "drawer", "button", "switch")
CARRIED: Final = Path(__file__).parents[1] / "recordings"
"""The recordings that come with the library."""


class Window(NamedTuple):
    """Frames `start` to `stop` (exclusive), recorded without an interruption, in which a task is done."""

    task: str
    start: int
    stop: int


@dataclass(frozen=True)
class Recording:
    """Frames with their commands, and the windows in which a task is done.

    Raises:
        UserError: arrays whose shapes do not fit or that are not finite, an unknown task, a window that is too short or
            leaves the frames.
    """

    robot_obs: Floats
    """[T, 15]."""
    scene_obs: Floats
    """[T, 24]."""
    action: Floats
    """[T, 7] commanded in each frame: it leads to the next one."""
    target: Floats
    """[T, 6] position (m) and Euler angles (rad) of the integrated target before that command, ahead of the TCP."""
    windows: tuple[Window, ...]
    scene: str = "D"
    """Which of CALVIN's scenes, which decides the order of the blocks."""
    recovered: bool = False
    """The commands were computed from the motion, because none were recorded."""
    source: str = ""
    """What made it, in a sentence."""

    def __post_init__(self) -> None:
        frames = len(self.robot_obs)
        for name, width in COLUMNS.items():
            array = getattr(self, name)
            if array.shape != (frames, width) or array.dtype != np.float32:
                raise UserError(f"{name} of a recording is {array.dtype} {array.shape}, not float32 {(frames, width)}")
            if not np.isfinite(array).all():
                raise UserError(f"{name} of a recording holds NaN or infinity; record it anew")
        if self.scene not in SCENES:
            raise unknown("scene", self.scene, SCENES)
        for window in self.windows:
            if window.task not in TASKS:
                raise unknown("task", window.task, TASKS)
            if not 0 <= window.start < window.stop - 1 < frames:
                raise UserError(f"{window} needs two frames or more inside 0..{frames}; mark it anew")

    def __len__(self) -> int:
        return len(self.robot_obs)


def save_recording(path: Path | str, recording: Recording) -> None:
    """Writes a recording as a compressed `.npz`, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    arrays = {name: getattr(recording, name) for name in COLUMNS}
    bounds = np.array([[window.start, window.stop] for window in recording.windows], np.int64).reshape(-1, 2)
    tasks = np.array([window.task for window in recording.windows], np.str_)
    with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, **arrays, window=bounds, task=tasks,
            scene=np.array(recording.scene), recovered=np.array(recording.recovered), source=np.array(recording.source),
        )  # fmt: skip


def load_recording(path: Path | str) -> Recording:
    """What `save_recording` wrote.

    Raises:
        UserError: the file is missing, damaged, or holds anything but a recording; names the file.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            windows = tuple(
                Window(str(task), int(start), int(stop))
                for task, (start, stop) in zip(arrays["task"].tolist(), arrays["window"], strict=True)
            )
            columns = {name: arrays[name] for name in COLUMNS}
            words = {name: arrays[name].item() for name in ("scene", "recovered", "source")}
        return Recording(**columns, windows=windows, **words)
    except FileNotFoundError:
        raise UserError(f"there is no recording {path}; make it with envs.playtable.tools.fidelity --record") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise UserError(f"{path} is no recording ({error!r}); get the file anew") from error


class Outcome(NamedTuple):
    """What became of a window's commands in another simulator."""

    task: str
    success: bool
    """CALVIN's oracle saw the task done at some frame of the window."""
    tcp: float
    """How far apart the tool centre points are in the window's last frame (m)."""
    parts: dict[str, float]
    """How far apart each of `PARTS` is in that frame (m)."""
    blocks: float
    """The block that is farthest from where it was recorded in that frame (m)."""


def replay(env: PlayTableEnv, recording: Recording, window: Window) -> Outcome:
    """A window's commands from its first frame, with the target as far ahead of the arm as it was.

    Args:
        env: the table; without cameras it is fastest.
        recording: in the scene of the table.
        window: one of the recording's.

    Raises:
        UserError: another scene, or a first frame that is no state of the table.
    """
    if recording.scene != env.scene.name:
        raise UserError(f"the recording is of scene {recording.scene}; replay it in PlayTableEnv(scene=that)")
    first, last = window.start, window.stop - 1
    start = {ROBOT: recording.robot_obs[first], SCENE: recording.scene_obs[first]}
    env.reset(seed=0, options={"task": window.task, **start})
    target = recording.target[first].astype(np.float64)
    env.target_position, env.target_euler = target[:3], target[3:]
    success = False
    for action in recording.action[first:last]:
        _, _, done, _, _ = env.step(action)
        success |= done
    apart = np.abs(env.scene_obs() - recording.scene_obs[last])
    return Outcome(
        task=window.task,
        success=success,
        tcp=float(np.linalg.norm(env.robot_obs()[:3] - recording.robot_obs[last, :3])),
        parts={name: float(apart[SCENE_FIELDS[name]]) for name in PARTS},
        blocks=float(np.linalg.norm(apart[6:].reshape(3, 6)[:, :3], axis=1).max()),
    )

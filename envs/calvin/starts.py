"""The starts of an evaluation on CALVIN's data: first frames of a data set's annotated windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from envs.calvin.draws import Array, Start, check_states
from envs.tasks import EIGHT, get_task
from worldaction.errors import UserError
from worldaction.play.readers.calvin import find_calvin
from worldaction.play.readers.npz import open_npz
from worldaction.spec import Split


def validation_starts(path: Path | str, tasks: Sequence[str] = EIGHT, *, split: Split = "validation") -> list[Start]:
    """First frames of a data set's annotated windows: the starts that DiWA (arXiv 2508.03645) evaluates from.

    Args:
        path: the folder of a CALVIN data set, which holds `training` and `validation`.
        tasks: whose windows.
        split: of which of the two folders.

    Returns:
        one start per window, in the order of the annotations.

    Raises:
        UserError: an unknown task, no CALVIN set, a damaged file, or a task without any window.
    """
    names = [get_task(name).name for name in tasks]
    folder = find_calvin(path).split(split)
    starts = [Start(s.task, *_states(folder.path(s.start))) for s in folder.segments if s.task in names]
    for name in names:
        if not any(start.task == name for start in starts):
            raise UserError(
                f"{folder.folder} has no annotated window of {name}; leave the task out, or use a larger set"
            )
    return starts


def _states(path: Path) -> tuple[Array, Array]:
    """robot_obs [15] and scene_obs [24] of a recorded frame."""
    with open_npz(path) as arrays:
        robot, scene = (np.asarray(arrays[name], np.float64) for name in ("robot_obs", "scene_obs"))
    check_states(robot, scene, str(path))
    return robot, scene

"""Writes a LeRobotDataset v3.0 as a robot's own recorder does: its names and units, and no file of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldaction import spec
from worldaction.play.layout import Segment
from worldaction.play.lerobot_layout import VECTORS
from worldaction.play.writers.lerobot import LeRobotWriter

SUCCESS: Final = "next.success"


@dataclass(frozen=True)
class Robot:
    """A robot as LeRobot knows it."""

    kind: str
    """What LeRobot calls it, such as "so100_follower"."""
    joints: tuple[str, ...]
    """Names of the numbers of its state, and of an action, such as "shoulder_pan.pos"."""


class RobotSetWriter(LeRobotWriter):
    """Writes what a robot's recorder would: see `LeRobotWriter`, without `meta/worldaction.json`.

    Actions may be of any size. Failed attempts have their task's sentence like those that succeeded.

    Args:
        path: the folder to create; it must not exist.
        robot: what it is and what its numbers are called; they are as many as the layout's.
        layout: what a frame holds.
        rate: frames per second.
        tells_success: add the column `next.success`, true in the last row of an attempt that succeeded.

    Raises:
        UserError: as `LeRobotWriter`.
    """

    def __init__(
        self, path: Path | str, robot: Robot, *, layout: spec.Layout, rate: float, tells_success: bool = True
    ) -> None:
        super().__init__(path, layout=layout, rate=rate)
        self._robot, self._tells_success = robot, tells_success
        self.largest_action = np.inf

    def _tasks_of(self, length: int, segments: Sequence[Segment]) -> np.ndarray:
        # a recorder asks for the task before, and nobody knows yet how it will end
        return super()._tasks_of(length, [replace(segment, success=None) for segment in segments])

    def _outcomes(self, length: int, segments: Sequence[Segment]) -> dict[str, np.ndarray]:
        if not self._tells_success:
            return {}
        done = np.zeros(length, bool)
        done[[segment.stop - 1 for segment in segments if segment.success]] = True
        return {SUCCESS: done}

    def _write_extra(self) -> None:
        """There is no such file."""

    def _info(self) -> dict[str, Any]:
        return super()._info() | {"robot_type": self._robot.kind}

    def _features(self) -> dict[str, Any]:
        features = super()._features()
        for key in (spec.ROBOT, spec.ACTION):
            features[VECTORS[key]]["names"] = list(self._robot.joints)
        outcome = {SUCCESS: {"dtype": "bool", "shape": [1], "names": None}} if self._tells_success else {}
        return features | outcome

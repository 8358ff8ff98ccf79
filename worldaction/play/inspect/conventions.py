"""Whether the actions of a whole set are what they are taken for: known from a sample, before hours of training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from worldaction.errors import UserError
from worldaction.play.inspect.actions import Run, finite, is_near, is_on_poses
from worldaction.play.inspect.motion import RUN, SAMPLE, Expected
from worldaction.play.inspect.problems import Findings
from worldaction.play.inspect.sample import sample
from worldaction.play.readers.source import Source
from worldaction.spec import ACTION, METRES_PER_UNIT, RADIANS_PER_UNIT, Layout

logger = logging.getLogger(__name__)

SCALE: Final = f"{METRES_PER_UNIT} m and {RADIANS_PER_UNIT} rad"
REMEDY: Final = f"write (next pose - pose) divided by {SCALE}"
REMEDY_OF_JOINTS: Final = "write (next robot_obs - robot_obs), divided by its largest value"


def conventions(expected: Expected, source: Source) -> Findings:
    """What is wrong with the meaning of all actions.

    Args:
        expected: what a sample of the set promises.
        source: the set; only what comes from CALVIN promises `rel_actions`.
    """
    found, is_calvin = expected.actions, source.origin.source == "calvin"
    name = "rel_actions" if is_calvin else ACTION
    problems, warnings = [], [f"{name}: {words}" for words in found.suspicions]
    if found.kind == "clipped":
        remedy = REMEDY if is_on_poses(source.layout) else REMEDY_OF_JOINTS
        problems.append(
            f"{name} is absolute and cut into [-1, 1], what lies beyond is lost; {remedy}, or choose another action"
        )
    elif found.lag:
        late, near = ("late", "before") if found.lag > 0 else ("early", "after")
        problems.append(
            f"{name} stands one frame too {late} in the whole set: each belongs to the frame {near}; shift it back"
        )
    elif found.kind == "absolute":
        (problems if is_calvin else warnings).append(f"{name} is the absolute pose of the next frame; {REMEDY}")
    elif found.kind == "relative" and not _is_calvin_s(found.units):
        metres, radians = found.units
        told = f"{name} is scaled by {metres:.4g} m and {radians:.4g} rad per unit, not by {SCALE}; {REMEDY}"
        # how far commands go is seen less clearly
        (problems if is_calvin and found.achieved else warnings).append(told)
    return Findings(problems, warnings)


def _is_calvin_s(units: tuple[float, float]) -> bool:
    return is_near(units[0], METRES_PER_UNIT) and (is_near(units[1], RADIANS_PER_UNIT) or units[1] == 0)


def check_conventions(source: Source) -> Layout:
    """Look at a sample of a set that is to be trained on, seconds at most: refuse a wrong convention, warn of the rest.

    Returns:
        the set's layout; if the robot goes where its actions say, they are absolute, whether or not the set says so.

    Raises:
        UserError: the actions of the whole set are not what they are taken for; says what to do.
    """
    runs = sample(source, frames=SAMPLE, run=RUN)
    expected = Expected(runs, source.layout)
    found = conventions(expected, source)
    unset = _unset(runs, source.layout.binary)
    for line in (*found.warnings, *unset.warnings, *_outliers(expected, finite(runs))):
        logger.warning("%s: %s", source.path, line)
    problems = [*_infinite(runs, source.layout), *found.problems, *unset.problems]
    if problems:
        raise UserError(f"{source.path}: {problems[0]}; worldaction data check {source.path} says more")
    if expected.actions.absolute and not source.layout.absolute:
        logger.info("%s: actions are taken to be absolute (%s)", source.path, expected.actions.convention)
        return replace(source.layout, absolute=True)
    return source.layout


def _infinite(runs: Sequence[Run], layout: Layout) -> list[str]:
    """Vectors of which nothing can be learned."""
    return [
        f"{key} holds NaN or infinity in {count} of the frames looked at; leave their episodes out"
        for key in layout.vectors
        if (count := sum(int((~np.isfinite(run[key]).all(1)).sum()) for run in runs if key in run))
    ]


def _unset(runs: Sequence[Run], binary: Sequence[int]) -> Findings:
    """Numbers that are read by their sign and have none: wrong where they are 0 and 1, else 0 is read as -1."""
    found = Findings([], [])
    for number in binary:
        values = {float(value) for run in runs for value in np.unique(run[ACTION][:, number])}
        if 0 in values and values <= {0, 1}:
            told = f"action[{number}] is 0 in some frames, it must be -1 or +1; write 2 x - 1 for 0 and 1"
            found.problems.append(told)
        elif 0 in values:
            found.warnings.append(f"action[{number}] is 0 in some frames, neither -1 nor +1; it is read as -1")
    return found


def _outliers(expected: Expected, runs: Sequence[Run]) -> list[str]:
    """How many of the moves that were looked at are not what the actions say."""
    if expected.tolerance is None:
        return []
    wrong = np.concatenate([expected.residual(run, expected.actions.lag) > expected.tolerance for run in runs])
    if not wrong.any():
        return []
    return [f"{wrong.sum()} of {len(wrong)} moves of a sample are not what their actions say; data check names them"]

"""Whether the actions of a whole set are what they are taken for: known from a sample, before hours of training."""

from __future__ import annotations

import logging
from typing import Final

from worldaction.errors import UserError
from worldaction.play.inspect.actions import is_near
from worldaction.play.inspect.motion import RUN, SAMPLE, Expected
from worldaction.play.inspect.problems import Findings, Problems
from worldaction.play.inspect.sample import sample
from worldaction.play.readers.source import Source
from worldaction.spec import ACTION, METRES_PER_UNIT, RADIANS_PER_UNIT

logger = logging.getLogger(__name__)

SCALE: Final = f"{METRES_PER_UNIT} m and {RADIANS_PER_UNIT} rad"
REMEDY: Final = f"write (next pose - pose) divided by {SCALE}"


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
        problems.append(
            f"{name} is absolute and cut into [-1, 1], what lies beyond is lost; {REMEDY}, or choose another action"
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


def check_conventions(source: Source) -> None:
    """Look at a sample of a set that is to be trained on, seconds at most: refuse a wrong convention, warn of the rest.

    Raises:
        UserError: the actions of the whole set are not what they are taken for; says what to do.
    """
    runs = sample(source, frames=SAMPLE, run=RUN)
    found = conventions(Expected(runs, source.layout), source)
    unset = Problems()
    for number in source.layout.binary:
        if any((run[ACTION][:, number] == 0).any() for run in runs):
            unset.add(
                f"action[{number}] is 0 in some frames, and must be -1 or +1; write 2 x - 1 where it is 0 or 1", ""
            )
    problems = [*found.problems, *unset.lines()]
    for line in found.warnings:
        logger.warning("%s: %s", source.path, line)
    if problems:
        raise UserError(f"{source.path}: {problems[0]}; worldaction data check {source.path} says more")

"""What is asked of a run before something is built on it: that what it made is as it was, that it is finished, and
which of its tasks and seeds to look at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from envs.benchmark import benchmark_class
from experiments.study.checks import learns
from experiments.study.run import REAL, Run
from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json

LOGGER = logging.getLogger("worldaction")


def mended(run: Run) -> Run:
    """The run, its artefacts compared with what their stages left: those that are damaged or of which something is
    missing are set aside, so that they are made again.

    Raises:
        UserError: one of them cannot be set aside, or is made of something that is another thing now.
    """
    artefacts, aside = run.artefacts(), set[str]()
    for place, artefact in artefacts.items():
        for line in (found := artefact.damage()):
            LOGGER.warning("%s", line)
        if found and place not in aside:
            judged = bool(run.study.update.jury or run.jurors())
            aside |= {place, *_built_on(place, artefacts, run.study.device, judged=judged)}
            if run.study.device != "cpu":
                # what was recorded of a policy is not that of another one
                aside |= {other for other in list(artefacts)[list(artefacts).index(place) :] if other.startswith(REAL)}
    for place in aside:
        if artefacts[place].path.exists():
            where = artefacts[place].set_aside()
            LOGGER.warning("%s is made again; what was there is in %s, which may be deleted", place, where)
    # what was looked up may have come from an artefact that is no longer there
    return Run.at(run.folder, run.study) if aside else run


def _built_on(place: str, places: Iterable[str], device: str, *, judged: bool) -> list[str]:
    """What comes after an artefact that will not be the same again: on a CPU, it will.

    Args:
        place: of the artefact.
        places: all, in order.
        device: where they are made.
        judged: whether models are jurors of other seeds' policies.
    """
    if device == "cpu":
        return []
    if judged and place.endswith(("/world_model", "/success")):
        below = f"{place.rpartition('/')[0]}/"
        return [other for other in places if other.startswith(below) or other.endswith(("/ppo", "/evaluation"))]
    below = "" if place == "play" else f"{place.rpartition('/')[0]}/"
    after = list(places)
    return [other for other in after[after.index(place) + 1 :] if other.startswith(below)]


def was_finished(folder: Path) -> bool:
    """Whether a run, or a comparison of several, has come to its end: its summary lists no stage that is left.

    Raises:
        UserError: the summary is damaged.
    """
    summary = folder / "summary.json"
    return summary.exists() and "unfinished" not in read_json(summary, dict[str, Any])


def check_finished(run: Run, tasks: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuse a run of which there are no evaluated policies.

    Raises:
        UserError: says what to do.
    """
    if arms := run.arms():
        names = ", ".join(str(arm.folder) for arm in arms.values())
        raise UserError(f"{run.folder} compares several settings; give the folder of one of them: {names}")
    if not learns(run.study):
        raise UserError(f"{run.folder} has learned no policies; give a run that has")
    if not benchmark_class(run.study.env).simulates:
        raise UserError(
            f"{run.folder} has learned from a recording, and no simulator knows its tasks; its page says what other"
            " world models think of its policies, and worldaction serve puts them on the robot"
        )
    for seed in seeds:
        for task in tasks:
            if not run.task(seed, task, "evaluation").complete:
                raise UserError(f"{run.folder} is not finished ({task}, seed {seed}); go on with it: {run.command}")

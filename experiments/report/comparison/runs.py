"""Runs that exist beside each other, as the arms of a study are: from the summaries and outcomes in their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report.comparison.numbers import Json, side_by_side
from experiments.study.run import Run
from experiments.study.settings import load_study
from worldaction.config import to_dict
from worldaction.errors import UserError


def compare_runs(folders: Sequence[Path]) -> Json:
    """Compare runs on the tasks and seeds that all of them have evaluated, from the same start states.

    Args:
        folders: of two runs or more; the first one is what the others are set against.

    Returns:
        as the summary.json of a study with arms, without what belongs to the study itself.

    Raises:
        UserError: one is no run with evaluated policies, or they cannot be compared start by start.
    """
    runs = {name: _evaluated(folder) for name, folder in _names(folders).items()}
    first, *others = runs.values()
    for other in others:
        _check_alike(first, other)
    tasks = [task for task in first.study.tasks if all(task in run.study.tasks for run in others)]
    seeds = [seed for seed in first.study.seeds if all(seed in run.study.seeds for run in others)]
    found = side_by_side(runs, tasks=tasks, seeds=seeds)
    if not found["tasks_compared"]:
        shown = " and ".join(str(run.folder) for run in runs.values())
        raise UserError(f"{shown} have no task and seed in common that all have evaluated; give others")
    return {"seeds": seeds, **found}


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """What each run is called: its folder's name, or its whole path where that is not enough."""
    if len(folders) < 2:
        raise UserError(f"{folders[0]} is one run, which compares nothing; give another one as well")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"{' '.join(map(str, folders))}: a run is given twice; leave it out")
    short = [folder.resolve().name for folder in folders]
    return dict(zip(short if len(set(short)) == len(short) else map(str, folders), folders, strict=True))


def _evaluated(folder: Path) -> Run:
    # not opened, for it is compared where it could not go on
    run = Run(load_study(folder), folder)
    if run.study.arms:
        arms = ", ".join(str(arm.folder) for arm in run.arms().values())
        raise UserError(f"{folder} compares several settings itself; give one of its arms: {arms}")
    if not (folder / "summary.json").exists():
        raise UserError(f"{folder} has no summary yet; go on with it: {run.command}")
    return run


def _check_alike(one: Run, other: Run) -> None:
    """Refuse runs whose policies were not tested alike, which a difference of rates would not say."""
    for name, ours, theirs in _tests(one.study, other.study):
        if ours != theirs:
            raise UserError(
                f"{one.folder} and {other.folder} were not tested alike ({name} {ours!r}, {theirs!r}); "
                "compare runs that were"
            )


def _tests(one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """What decides how policies are tested, by the name of its option."""
    settings: list[Mapping[str, Any]] = []
    for study in (one, other):
        limits = {f"table.{key}": getattr(study.table, key) for key in ("max_steps", "scene")}
        starts = {f"evaluation.{key}": getattr(study.evaluation, key) for key in ("first", "episodes")}
        gym = {f"gym.{key}": getattr(study.gym, key) for key in ("success", "success_reward")}
        stress = {f"stress.{key}": value for key, value in to_dict(study.stress).items() if key != "hidden_actions"}
        settings.append({"env": study.env, "starts": study.starts, **limits, **starts, **gym, **stress})
    return [(name, ours, settings[1][name]) for name, ours in settings[0].items()]

"""What later programs ask of a run: that it is finished, and which of its tasks and seeds they are to look at."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.study.checks import learns
from experiments.study.run import Run
from worldaction.errors import UserError


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
    for seed in seeds:
        for task in tasks:
            if not run.task(seed, task, "evaluation").complete:
                raise UserError(f"{run.folder} is not finished ({task}, seed {seed}); go on with it: {run.command}")

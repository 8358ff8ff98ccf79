"""Which frames of the play data are a task's demonstrations."""

from __future__ import annotations

from experiments.stages.task_run import TaskRun
from worldaction.errors import UserError
from worldaction.play.action_masking import knows_actions


def demonstrated(task_run: TaskRun) -> list[tuple[int, int]]:
    """Ranges of frames in the store that are learned from, one for each demonstration; stop exclusive.

    Raises:
        UserError: there are none whose actions are known.
    """
    # what is recorded is play, and its annotated windows are the demonstrations
    recorded = task_run.study.play is not None
    found = task_run.store.demonstrations(task_run.task, kind=None if recorded else "demo", split="training")
    ranges = [(d.start, d.stop) for d in found if knows_actions(task_run.store, task_run.store.episode_of(d.start))]
    if not ranges:
        raise UserError(f"there are no demonstrations of {task_run.task}; raise --data.demos, or record some")
    return ranges


def cloned(task_run: TaskRun) -> list[tuple[int, int]]:
    """Ranges of frames that are cloned: demonstrations, as many as the settings say, and what policies did themselves
    and recorded as a success, where that is gone on with.

    Raises:
        UserError: there are no demonstrations.
    """
    first = task_run.recorded_from
    shown = [one for one in demonstrated(task_run) if one[0] < first][: task_run.study.clone.demos or None]
    own = task_run.store.demonstrations(task_run.task, split="training")
    return shown + [(segment.start, segment.stop) for segment in own if segment.start >= first]

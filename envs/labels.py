"""Whether the label of an annotated window contradicts what happened in it, judged by CALVIN's oracle."""

from __future__ import annotations

import numpy as np

from envs.tasks import EIGHT, TASKS


def done_instead(task: str, before: np.ndarray, after: np.ndarray) -> str:
    """Which tasks were done in a window that is labelled with another; empty if nothing speaks against the label.

    Of the eight tasks of what is fixed to the table, which are alike in all scenes; blocks have another order in each.
    A window that merely ends before its task is done says nothing: one that was cut is no wrong label.

    Args:
        task: the label.
        before: `scene_obs` [24] of the first frame.
        after: of the last frame.
    """
    if task not in EIGHT or TASKS[task].achieved(before, after):
        return ""
    return " and ".join(name for name in EIGHT if TASKS[name].achieved(before, after))

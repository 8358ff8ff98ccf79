"""Whether the label of an annotated window contradicts what happened in it, judged by CALVIN's oracle."""

from __future__ import annotations

import numpy as np

from envs.tasks import TASKS


def done_instead(task: str, before: np.ndarray, after: np.ndarray) -> str:
    """Which tasks were done in a window that is labelled with another; empty if nothing speaks against the label.

    A window that merely ends before its task is done says nothing: one that was cut is no wrong label.

    Args:
        task: the label.
        before: `scene_obs` [24] of the first frame.
        after: of the last frame.
    """
    if task not in TASKS or TASKS[task].achieved(before, after):
        return ""
    return " and ".join(name for name, other in TASKS.items() if other.achieved(before, after))

"""A robot of two numbers that somebody recorded: it goes to one of two places, and may stop short of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldaction.play.store import Segment, StoreWriter
from worldaction.spec import Layout

TASKS = ("Reach the red block", "Reach the blue block")
PLACES = (0.8, -0.8)
"""Where the first number has to be, for each task."""
NUMBERS = Layout((), robot=2, scene=0, action=2, null_action=(0.0, 0.0), absolute=True)


def record(
    path: Path,
    episodes: int,
    *,
    outcomes: Sequence[bool | None] | None = None,
    tasks: Sequence[str] = TASKS,
    validation: int = 0,
    frames: int = 20,
) -> Path:
    """A play store of attempts, the tasks in turn.

    Args:
        path: of the store.
        episodes: how many.
        outcomes: what is said of each; a failure stops half-way. By default all succeed.
        tasks: none for play without a task.
        validation: of the episodes the last ones are held out.
        frames: of each.
    """
    rng = np.random.default_rng(0)
    said = outcomes or [True] * episodes
    with StoreWriter(path, image_size=1, source="a robot", renderer="none", layout=NUMBERS) as writer:
        for number in range(episodes):
            which = number % max(len(tasks), 1)
            goal = PLACES[which] * (0.4 if said[number] is False else 1.0)
            way = np.linspace(rng.uniform(-0.2, 0.2), goal, frames)
            robot = np.stack([way, rng.uniform(-0.05, 0.05, frames)], -1)
            action = np.concatenate([robot[1:], robot[-1:]]).clip(-1, 1)
            segments = [Segment(tasks[which], 0, frames, said[number])] if tasks else []
            split: Any = "validation" if number >= episodes - validation else "training"
            writer.add_episode({"robot_obs": robot, "action": action}, kind="demo", split=split, segments=segments)
    return path

"""A robot of two numbers that somebody recorded: it goes to one of two places, and may stop short of it."""

from __future__ import annotations

import json
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


def without_simulator(arguments: Sequence[str]) -> list[str]:
    """A command line without the options that need a simulator, and without a time limit."""
    found = list(arguments)
    for option in ("evaluation.curve-episodes", "evaluation.sampler-episodes", "table.max-steps"):
        if f"--{option}" in found:
            at = found.index(f"--{option}")
            del found[at : at + 2]
    return found


def record_reach(root: Path, episodes: int) -> None:
    """A Minari set of `reach_env` without pictures: its own demonstrator's episodes, in its own range of actions."""
    import h5py
    from foreign_sets import box
    from reach_env import HIGH, LOW, Reach, Straight

    (root / "data").mkdir(parents=True)
    env, total = Reach(sees="numbers"), 0
    with h5py.File(root / "data/main_data.hdf5", "w", track_order=True) as file:
        for number in range(episodes):
            seen, acted, reached = [env.reset(seed=number)[0]], [], [False]
            who = Straight(env, np.random.default_rng(number))
            for _ in range(20):
                # every fourth one goes the wrong way
                action = who.act(seen[-1]) if number % 4 else LOW
                observation, *_, info = env.step(action)
                seen.append(observation)
                acted.append(action)
                reached.append(bool(info["success"]))
            group, total = file.create_group(f"episode_{number}"), total + len(acted)
            for key in ("mark", "place"):
                group[f"observations/{key}"] = np.stack([o[key] for o in seen])
            group["actions"] = np.stack(acted).astype(np.float32)
            for name in ("rewards", "terminations", "truncations"):
                group[name] = np.zeros(len(acted))
            group["infos/success"] = np.array(reached)
    spaces = {key: box([2]) for key in ("mark", "place")}
    bounds = {"low": LOW.tolist(), "high": HIGH.tolist()}
    about = {
        "total_episodes": episodes, "total_steps": total, "data_format": "hdf5",
        "observation_space": json.dumps({"type": "Dict", "subspaces": spaces}),
        "action_space": json.dumps({"type": "Box", "dtype": "float32", "shape": [2], **bounds}),
        "env_spec": json.dumps({"id": "Reach-v0", "kwargs": {}}), "dataset_id": "tests/reach-v0",
    }  # fmt: skip
    (root / "data/metadata.json").write_text(json.dumps(about))

"""CALVIN sets that tests spoil: a copy of the small recording, and ways to write its frames anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import __main__ as cli

DATA = Path(__file__).resolve().parents[1] / "data"
SAMPLES = ("calvin_sample_64", "calvin_sample_native")
EPISODES = (("training", range(42, 60)), ("training", range(1200, 1208)), ("validation", range(924, 942)))
"""Those of the first sample: split and frame numbers."""


def copied(path: Path) -> Path:
    """A copy of the first sample that may be spoilt."""
    shutil.copytree(DATA / SAMPLES[0], path)
    return path


def change(folder: Path, numbers: range, **changes: Callable[[dict[str, np.ndarray], int], Any]) -> None:
    """Write arrays of frames anew, each computed from the frame."""
    for number in numbers:
        path = folder / f"episode_{number:07d}.npz"
        with np.load(path) as arrays:
            frame = dict(arrays)
        frame |= {name: np.asarray(make(frame, number)) for name, make in changes.items()}
        np.savez_compressed(path, **frame)


def converted(path: Path, out: Path, *options: str) -> Path:
    """What `worldaction data convert` writes."""
    cli.command(["data", "convert", str(path), str(out), *options])
    return out


def swap(one: Path, other: Path) -> None:
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def frame(folder: Path, number: int) -> Path:
    return folder / f"episode_{number:07d}.npz"


def shift(calvin: Path, split: str, numbers: range, lag: int) -> None:
    """Give every frame of an episode the actions of the one `lag` frames before."""
    actions = [np.load(frame(calvin / split, number))["rel_actions"] for number in numbers]
    shifted = dict(zip(numbers, np.roll(actions, lag, 0), strict=True))
    change(calvin / split, numbers, rel_actions=lambda _, number: shifted[number])


def clip_poses(calvin: Path) -> None:
    """Give all frames absolute actions, cut into [-1, 1], as if they were moves."""
    for split, numbers in EPISODES:
        change(calvin / split, numbers, rel_actions=lambda arrays, _: np.clip(arrays["actions"], -1, 1))

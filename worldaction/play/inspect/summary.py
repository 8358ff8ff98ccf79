"""What is in a data set of any format: its size, splits, tasks, numbers, the meaning of its actions, and a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from worldaction.errors import UserError
from worldaction.play.inspect.actions import Actions, Run, detect
from worldaction.play.inspect.sample import sample
from worldaction.play.readers.source import Recording, Source
from worldaction.spec import ACTION, CALVIN, ROBOT, ROBOT_FIELDS, SCENE, SCENE_FIELDS

STILLS: Final = 12
STILL: Final = 128
"""Smallest side of a picture on the sheet (pixels); pixels are repeated."""


def describe(source: Source) -> str:
    """Everything that `worldaction data inspect` prints."""
    runs = sample(source)
    seen = sum(len(run[ACTION]) for run in runs)
    total = sum(episode.length for episode in source.episodes)
    which = "all" if seen == total else f"{seen:,} frames of"
    parts = [_head(source), _tasks(source.episodes), _meaning(detect(runs, source.layout))]
    return "\n\n".join([*parts, f"statistics of {which} {total:,} frames\n{_table(runs, source)}"])


def list_episodes(source: Source) -> str:
    """What `worldaction data inspect --episodes` prints: the number by which a labels file calls each episode, how long
    it is, its tasks and how these ended, and where it lies.
    """
    rows = [f"{'episode':>7} {'frames':>7} {'split':<11} task: outcome, and where the episode lies"]
    for number, one in enumerate(source.episodes):
        tasks = [f"{s.sentence or s.task}: {_OUTCOMES[s.success]}" for s in one.segments] or ["no task"]
        rows.append(f"{number:>7} {one.length:>7} {one.split:<11} {'; '.join(tasks)} ({one.where})")
    return "\n".join(rows)


_OUTCOMES = {True: "success", False: "failure", None: "unknown"}


def _head(source: Source) -> str:
    episodes, layout = source.episodes, source.layout
    total = sum(episode.length for episode in episodes)
    rate = f"{source.rate:g} frames/s, {total / source.rate / 60:.1f} min" if source.rate else "no frame rate is given"
    lengths = [episode.length for episode in episodes]
    cameras = f"{', '.join(layout.cameras)} up to {source.image_size} pixels" if layout.cameras else "none"
    lines = {
        "path": str(source.path),
        "format": source.format,
        "frames": f"{total:,} in {_count(len(episodes), 'episode')} of {min(lengths)} to {max(lengths)}; {rate}",
        "splits": _shares([episode.split for episode in episodes], lengths),
        "kinds": _shares([episode.kind for episode in episodes], lengths),
        "scenes": _shares([episode.scene or "not said" for episode in episodes], lengths),
        "cameras": cameras,
        "vectors": ", ".join(f"{key} {size}" for key, size in layout.vectors.items()),
    }
    if source.skipped:
        lines["left out"] = f"{_count(len(source.skipped), 'thing')}, damaged or missing"
    skipped = [f"{'':<9} {line}" for line in source.skipped]
    return "\n".join([*(f"{name:<9} {text}" for name, text in lines.items()), *skipped])


def _shares(names: Sequence[str], lengths: Sequence[int]) -> str:
    """Frames and episodes of each."""
    frames: Counter[str] = Counter()
    for name, length in zip(names, lengths, strict=True):
        frames[name] += length
    return "; ".join(f"{name} {n:,} in {_count(names.count(name), 'episode')}" for name, n in sorted(frames.items()))


def _tasks(episodes: Sequence[Recording]) -> str:
    """Annotated segments of each task: how many, in which split, how long."""
    segments = [(segment, episode.split) for episode in episodes for segment in episode.segments]
    if not segments:
        return "tasks     no segment is annotated"
    head = f"{'task':<28} {'segments':>8} {'done':>6} {'training':>9} {'validation':>11} {'frames each':>12}"
    rows = [f"{head} {'failed':>7} {'unknown':>8}"]
    for task in sorted({segment.task for segment, _ in segments}):
        of = [(segment, split) for segment, split in segments if segment.task == task]
        count = Counter(segment.success for segment, _ in of)
        training = sum(split == "training" for _, split in of)
        mean = np.mean([segment.length for segment, _ in of])
        row = f"{task:<28} {len(of):>8} {count[True]:>6} {training:>9} {len(of) - training:>11} {mean:>12.1f}"
        rows.append(f"{row} {count[False]:>7} {count[None]:>8}")
    return "\n".join(rows)


def _meaning(actions: Actions) -> str:
    lines = [f"actions   {actions.convention}", *(f"          {line}" for line in actions.evidence)]
    lines += [f"gripper   {actions.gripper}"]
    return "\n".join([*lines, *(f"suspect   {line}" for line in actions.suspicions)])


def _table(runs: Sequence[Run], source: Source) -> str:
    """Smallest, largest, mean and deviation of every number."""
    rows = [f"{'':<28} {'min':>10} {'max':>10} {'mean':>10} {'std':>10}"]
    for key in source.layout.vectors:
        values = np.concatenate([run[key] for run in runs]).astype(np.float64)
        names = names_of(key, values.shape[1], is_calvin=source.layout.vectors == CALVIN.vectors)
        for name, column in zip(names, values.T, strict=True):
            numbers = (column.min(), column.max(), column.mean(), column.std())
            rows.append(f"{name:<28} " + " ".join(f"{number:>10.4f}" for number in numbers))
    return "\n".join(rows)


def names_of(key: str, size: int, *, is_calvin: bool) -> list[str]:
    """A name for each number of a vector, with CALVIN's words where they are known."""
    words = [""] * size
    if is_calvin and key == ROBOT:
        words = [name for name, part in ROBOT_FIELDS.items() for _ in range(part.stop - part.start)]
    if is_calvin and key == SCENE:
        words[: len(SCENE_FIELDS)] = list(SCENE_FIELDS)
    return [f"{key}[{i}] {word}".rstrip() for i, word in enumerate(words)]


def draw_sheet(source: Source, path: Path) -> None:
    """Write stills spread evenly over a set, all cameras side by side, as one PNG.

    Raises:
        UserError: the set has no cameras, or the file cannot be written.
    """
    from worldaction.io.pictures import contact_sheet

    if not source.layout.cameras:
        raise UserError(f"{source.path} has no cameras; leave --sheet out")
    lengths = np.cumsum([episode.length for episode in source.episodes])
    stills, names, larger = [], [], -(-STILL // source.image_size)
    for frame in np.unique(np.linspace(0, lengths[-1] - 1, STILLS).round().astype(int)):
        episode = int(np.searchsorted(lengths, frame, side="right"))
        offset = int(frame - lengths[episode] + source.episodes[episode].length)
        block = next(iter(source.blocks(episode, image_size=source.image_size, start=offset)))
        still = np.concatenate([block[camera][0] for camera in source.layout.cameras], axis=1)
        stills.append(still.repeat(larger, axis=0).repeat(larger, axis=1))
        names.append(f"episode {episode}, frame {offset}")
    title = f"{source.format}, {source.image_size} pixels: {', '.join(source.layout.cameras)}"
    contact_sheet(np.stack(stills), path, names=names, title=title, columns=4, count=STILLS)


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'s' * (number != 1)}"

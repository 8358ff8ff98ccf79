"""Reads every frame of a data set and says what is wrong with it; checksums of every file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io.artefact import FileSum
from worldaction.io.atomic import write_json
from worldaction.io.files import sha256_of
from worldaction.io.sealed_json import read_json
from worldaction.play.inspect.problems import Findings, Problems
from worldaction.play.inspect.watch import Judge, Watch
from worldaction.play.layout import MAX_ACTION
from worldaction.play.readers.parquet import scan
from worldaction.play.readers.source import Recording, Source
from worldaction.play.store import PlayStore

MANIFEST: Final[Literal["worldaction manifest 1"]] = "worldaction manifest 1"
RANGES: Final = {
    "tcp_position": (-2.0, 2.0),
    "tcp_euler": (-np.pi - 1e-3, np.pi + 1e-3),
    "gripper_width": (-0.01, 0.09),
    "joints": (-3.8, 3.8),
    "gripper_action": (-1.0, 1.0),
}
"""What CALVIN's robot_obs can be (m, rad)."""
LATE: Final = 1e-3
"""By how much a frame's time may differ from its number divided by the rate (s)."""
LIGHTS: Final = ("lightbulb", "led")


def check_frames(source: Source, progress: Callable[[int], object], *, judge: Judge | None = None) -> Findings:
    """Read every frame of a set, and check it.

    Args:
        source: what `open_source` gave.
        progress: called with the number of frames just read.
        judge: says whether a window's task was done, where somebody can.
    """
    watch = Watch(source, judge=judge)
    problems = Problems()
    for number in range(len(source.episodes)):
        try:
            _check_episode(source, number, watch, problems, progress)
        except UserError as error:
            problems.add(str(error), f"episode {number}")
    if (source.path / "store.json").is_file():
        _check_store(PlayStore.open(source.path), problems)
    if (source.path / "meta" / "info.json").is_file():
        _check_times(source, problems)
    found = watch.findings()
    return Findings(problems.lines() + found.problems, found.warnings)


def _check_episode(
    source: Source, number: int, watch: Watch, problems: Problems, progress: Callable[[int], object]
) -> None:
    episode, where, done = source.episodes[number], f"episode {number}", 0
    watch.begin(number)
    try:
        for block in source.blocks(number, image_size=source.image_size):
            count = _check_block(block, source.layout, where, done, problems)
            watch.add(block)
            done += count
            progress(count)
    except UserError:
        progress(episode.length - done)
        raise
    watch.end()
    if done != episode.length:
        problems.add(f"an episode has {done} frames, its description says {episode.length}", where)
    _check_segments(episode, where, problems)


def _check_block(
    block: Mapping[str, np.ndarray], layout: spec.Layout, where: str, start: int, problems: Problems
) -> int:
    """Keys, shapes, types, ranges; gives the number of frames."""
    length = len(block[spec.ACTION])
    if block.keys() != {*layout.cameras, *layout.vectors}:
        problems.add(f"frames have {sorted(block)}, not {sorted((*layout.cameras, *layout.vectors))}", where)
        return length
    for key, size in layout.vectors.items():
        values = block[key]
        if values.shape != (length, size):
            problems.add(f"{key} has shape {values.shape}, not {(length, size)}", where)
            continue
        problems.flag(f"{key} holds NaN or infinity", where, ~np.isfinite(values).all(1), start)
    problems.flag("action leaves [-1, 1]", where, (np.abs(block[spec.ACTION]) > MAX_ACTION).any(1), start)
    for camera in layout.cameras:
        flat = block[camera].reshape(length, -1)
        problems.flag(f"{camera} is of one level", where, np.asarray(np.ptp(flat, 1) == 0), start)
    if layout.vectors == spec.CALVIN.vectors:
        _check_calvin(block, where, start, problems)
    return length


def _check_calvin(block: Mapping[str, np.ndarray], where: str, start: int, problems: Problems) -> None:
    for name, (low, high) in RANGES.items():
        values = block[spec.ROBOT][:, spec.ROBOT_FIELDS[name]]
        wrong = np.any((values < low) | (values > high), axis=1)
        problems.flag(f"robot_obs: {name} is outside {low:.4g} to {high:.4g}", where, wrong, start)
    for name in LIGHTS:
        values = block[spec.SCENE][:, spec.SCENE_FIELDS[name]]
        problems.flag(f"scene_obs: {name} is neither 0 nor 1", where, (values != 0) & (values != 1), start)


def _check_segments(episode: Recording, where: str, problems: Problems) -> None:
    for segment in episode.segments:
        if not 0 <= segment.start < segment.stop <= episode.length:
            problems.add(f"a segment of {segment.task} leaves its episode", where)


def _check_times(source: Source, problems: Problems) -> None:
    """Times of a LeRobot set, by which it finds the frames of its videos."""
    for path in sorted((source.path / "data").rglob("*.parquet")):
        first, late = 0, set[int]()
        for rows in scan(path, ["timestamp", "frame_index", "episode_index"]):
            names = ("timestamp", "frame_index", "episode_index")
            seconds, frame, episode = (rows.vector(name)[:, 0] for name in names)
            wrong = ~(np.abs(seconds - frame / source.rate) < LATE)
            problems.flag(f"timestamp is not frame_index / {source.rate:g}", str(path), wrong, first)
            first += len(wrong)
            late.update(int(number) for number in np.unique(episode[wrong]))
        for number in sorted(late):
            problems.name("timestamps are not those of the frames", f"{path}, episode {number}")


def _check_store(store: PlayStore, problems: Problems) -> None:
    """Checksums, and previous actions that are the actions before."""
    try:
        store.verify()
    except UserError as error:
        problems.add(str(error), "")
    null = np.array(store.meta.layout.null_action, np.float32)
    for number, episode in enumerate(store.episodes):
        frames = store.frames[episode.start : episode.stop]
        before = np.concatenate([null[None], frames[spec.ACTION][:-1].numpy()])
        wrong = (frames[spec.PREVIOUS_ACTION].numpy() != before).any(1)
        problems.flag("previous_action is not the action before", f"episode {number}", wrong, 0)


# ---- checksums


@dataclass(frozen=True)
class _Manifest:
    """The file of checksums."""

    files: dict[str, FileSum]
    format: Literal["worldaction manifest 1"] = MANIFEST


def manifest(path: Path, file: Path) -> list[str]:
    """Write the checksums of every file of a set, or compare with those written before.

    Args:
        path: a folder or a file.
        file: the manifest; written if it does not exist.

    Returns:
        what differs, a line each.

    Raises:
        UserError: the manifest is damaged or cannot be written.
    """
    found = {name: FileSum(each.stat().st_size, sha256_of(each)) for name, each in _files(path, file)}
    if not file.exists():
        write_json(file, _Manifest(found))
        return []
    known = _known(file)
    changed = [f"{name} has changed" for name in found if name in known and found[name] != known[name]]
    missing = [f"{name} is missing" for name in known if name not in found]
    return [*changed, *missing, *(f"{name} is new" for name in found if name not in known)]


def _known(file: Path) -> dict[str, FileSum]:
    content: _Manifest = read_json(file, _Manifest, remedy="give another name to write one")
    return content.files


def _files(path: Path, besides: Path) -> Iterator[tuple[str, Path]]:
    """Every file of a set by its name in it, sorted; without the manifest itself."""
    if path.is_file():
        yield path.name, path
        return
    for each in sorted(path.rglob("*")):
        if each.is_file() and each.resolve() != besides.resolve():
            yield each.relative_to(path).as_posix(), each

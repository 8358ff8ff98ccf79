"""Where a LeRobotDataset v3.0 keeps what: names shared by its writer and its reader, and what it has no place for.

`meta/worldaction.json` is an extra file of ours, which the `lerobot` package never looks at:

    {"format": "worldaction extra 1", "layout": {...spec.Layout}, "source": "playtable", "renderer": "egl",
     "kind": ["play", ...], "split": ["training", ...], "scene": ["D", ...],
     "segments": [[{"task": "open_drawer", "start": 3, "stop": 60, "success": true}, ...], ...],
     "tasks": [["open the drawer", "play"], ...]}

with one entry an episode in each of the five lists. Segments count from their episode's first frame, stop exclusive;
`tasks` are those of the set itself, by which it is noticed that somebody changed them since.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json
from worldaction.play.layout import Segment, layout_problem
from worldaction.spec import Kind

VERSION: Final = "v3.0"
INFO: Final = "meta/info.json"
STATS: Final = "meta/stats.json"
TASKS: Final = "meta/tasks.parquet"
EXTRA: Final = "meta/worldaction.json"
EXTRA_FORMAT: Final[Literal["worldaction extra 1"]] = "worldaction extra 1"
CHUNK: Final = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES_PATH: Final = f"meta/episodes/{CHUNK}.parquet"
DATA_PATH: Final = f"data/{CHUNK}.parquet"
VIDEO_PATH: Final = f"videos/{{video_key}}/{CHUNK}.mp4"

CHUNK_FILES: Final = 1000
"""Files in a chunk."""

CAMERA: Final = "observation.images."
"""What the names of cameras begin with."""
VECTORS: Final = {spec.ROBOT: "observation.state", spec.SCENE: "observation.environment_state", spec.ACTION: "action"}
"""LeRobot's name of each vector."""
PLAY: Final = "play"
"""The task of frames that no segment holds, because LeRobot wants one for every frame."""
INDEXES: Final = {
    "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64",
}  # fmt: skip
"""What every row has beside the recorded numbers, and its type."""


def place(number: int) -> tuple[int, int]:
    """Chunk and file of the file of that number."""
    return divmod(number, CHUNK_FILES)


@dataclass(frozen=True)
class Extra:
    """What a store knows and LeRobot has no place for, one entry an episode in each sequence."""

    layout: spec.Layout
    kind: Sequence[Kind]
    split: Sequence[spec.Split]
    scene: Sequence[str]
    segments: Sequence[Sequence[Segment]]
    """Counted from the first frame of their episode."""
    source: str = ""
    """What made the frames."""
    renderer: str = "unknown"
    """What drew the images."""
    tasks: Sequence[Sequence[str]] = ()
    """LeRobot's own tasks of each episode; empty in files that are older than this entry."""


def write_extra(folder: Path, extra: Extra) -> None:
    """Write `meta/worldaction.json` into the folder of a set."""
    write_json(folder / EXTRA, {"format": EXTRA_FORMAT, **dataclasses.asdict(extra)})


def read_extra(folder: Path, lengths: Sequence[int | None]) -> Extra | None:
    """Read `meta/worldaction.json`; None if the set has none, as those that others wrote.

    Args:
        folder: of the set.
        lengths: frames of each episode of the set, which the file has to fit; None of one that is missing.

    Raises:
        UserError: the file is damaged, or belongs to another set.
    """
    path = folder / EXTRA
    if not path.exists():
        return None
    remedy = "delete it to do without kinds and segments"
    found: _Written = read_json(path, _Written, remedy=remedy)
    extra = Extra(**{field.name: getattr(found, field.name) for field in dataclasses.fields(Extra)})
    if problem := _contradiction(extra, lengths):
        raise UserError(f"{path}: {problem}; {remedy}")
    return extra


@dataclass(frozen=True)
class _Written(Extra):
    """`Extra` as it is in the file."""

    format: Literal["worldaction extra 1"] = EXTRA_FORMAT


def _contradiction(extra: Extra, lengths: Sequence[int | None]) -> str | None:
    """What is wrong with the values, if anything."""
    for name in ("kind", "split", "scene", "segments", *(["tasks"] if extra.tasks else [])):
        if (found := len(getattr(extra, name))) != len(lengths):
            return f"{name} has {found} entries, the set {len(lengths)} episodes"
    for number, length in enumerate(lengths):
        for one in extra.segments[number]:
            if not 0 <= one.start < one.stop or (length is not None and one.stop > length):
                return f"segment {one.task} ({one.start} to {one.stop}) lies outside episode {number}"
    return layout_problem(extra.layout)

"""Writes a LeRobotDataset v3.0, which the `lerobot` package loads, without that package.

Format: https://huggingface.co/docs/lerobot/lerobot-dataset-v3. What LeRobot has no place for goes into an extra file of
ours, `meta/worldaction.json`; see worldaction/play/lerobot_layout.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldaction import spec
from worldaction.errors import UserError, unknown
from worldaction.io.atomic import write_json
from worldaction.play.layout import Segment
from worldaction.play.lerobot_layout import (
    CAMERA,
    CHUNK_FILES,
    DATA_PATH,
    EPISODES_PATH,
    INDEXES,
    INFO,
    PLAY,
    STATS,
    TASKS,
    VECTORS,
    VERSION,
    VIDEO_PATH,
    Extra,
    place,
    write_extra,
)
from worldaction.play.readers.reading import need
from worldaction.play.writers.base import Begun, FolderWriter
from worldaction.play.writers.lerobot_stats import Stats, count_levels, image_stats, merge_all, vector_stats
from worldaction.play.writers.lerobot_video import CODECS, MEGABYTES, SECONDS, Place, VideoFiles

logger = logging.getLogger(__name__)

TABLE_MEGABYTES: Final = 100
"""Largest file of rows, as in `lerobot`."""
EPISODES_AT_ONCE: Final = 100
"""Descriptions of episodes that are held in memory."""


class LeRobotWriter(FolderWriter):
    """Writes a LeRobot set: for frames of any layout.

    `robot_obs` becomes `observation.state`, `scene_obs` `observation.environment_state`, a camera
    `observation.images.<name>`. A frame's task is the sentence of the segment that holds it and did not fail, the later
    one where two do, and "play" elsewhere. Images are encoded as video; vectors are kept as float32.

    Args:
        path: the folder to create; it must not exist.
        layout: what a frame holds.
        rate: frames per second.
        video: how images are encoded, a name in `lerobot_video.CODECS`; "lossless" keeps them to the bit.
        source: what made the frames.
        renderer: what drew the images.
        sentences: of each task, what a person would say where the recording does not say it; the task's name with
            spaces where none is given.

    Raises:
        UserError: `path` exists or cannot be written, the rate is no whole number, or PyAV or PyArrow is missing.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        layout: spec.Layout = spec.CALVIN,
        rate: float = spec.CONTROL_HZ,
        video: str = "h264",
        source: str = "",
        renderer: str = "unknown",
        sentences: Mapping[str, str] | None = None,
    ) -> None:
        if rate < 1 or rate != round(rate):
            raise UserError(f"{path}: LeRobot sets have a whole number of frames per second, not {rate}; give another")
        if video not in CODECS:
            raise unknown("video", video, CODECS)
        self._arrow: Any = need("pyarrow")
        self._parquet: Any = need("pyarrow.parquet")
        super().__init__(path, layout=layout)
        self._rate, self._codec, self._sentences = round(rate), CODECS[video], dict(sentences or {})
        self._made_by = {"source": source, "renderer": renderer}
        self._videos: dict[str, VideoFiles] = {}
        self._rows = _Tables(self.partial, DATA_PATH, self._arrow, self._parquet)
        self._described = _Tables(self.partial, EPISODES_PATH, self._arrow, self._parquet)
        self._waiting: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._stats: dict[str, Stats] = {}
        self._frames = 0
        self._begun: list[tuple[Begun, list[Segment]]] = []
        self._said: list[list[str]] = []
        self._forget()

    def _forget(self) -> None:
        self._vectors: dict[str, list[np.ndarray]] = {}
        self._levels: dict[str, np.ndarray] = {}
        self._places: dict[str, Place] = {}

    # ---- frames

    def _append(self, block: dict[str, np.ndarray]) -> None:
        if not self._videos:
            self._videos = {camera: self._video(camera, shape) for camera, shape in self.images.items()}
        if not self._places:
            self._places = {camera: video.begin() for camera, video in self._videos.items()}
        for camera, video in self._videos.items():
            video.write(block[camera])
            self._levels[camera] = self._levels.get(camera, 0) + count_levels(block[camera])
        for key in self.layout.vectors:
            self._vectors.setdefault(key, []).append(block[key].astype(np.float32))

    def _video(self, camera: str, shape: tuple[int, ...]) -> VideoFiles:
        return VideoFiles(self.partial, CAMERA + camera, shape=shape, rate=self._rate, codec=self._codec)

    def _end(self, episode: Begun, segments: Sequence[Segment]) -> None:
        if episode.length > SECONDS * self._rate:
            logger.warning(
                "episode %d lasts longer than %d s: load the set with a tolerance_s of 1e-3", self.episodes, SECONDS
            )
        columns = {VECTORS[key]: np.concatenate(parts) for key, parts in self._vectors.items()}
        tasks = self._tasks_of(episode.length, segments)
        columns |= self._outcomes(episode.length, segments) | self._indexes(episode.length, tasks)
        chunk, file = self._rows.write(self._table(columns))
        stats = {key: vector_stats(values.reshape(len(values), -1)) for key, values in columns.items()}
        stats |= {CAMERA + camera: image_stats(levels, episode.length) for camera, levels in self._levels.items()}
        self._stats = merge_all(self._stats, stats)
        names = {number: task for task, number in self._tasks.items()}
        said = [names[number] for number in dict.fromkeys(tasks.tolist())]
        row = {
            "episode_index": self.episodes,
            "tasks": said,
            "length": episode.length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + episode.length,
        }
        self._waiting.append(row | self._filmed() | _flat(stats))
        if len(self._waiting) == EPISODES_AT_ONCE:
            self._describe()
        self._begun.append((episode, list(segments)))
        self._said.append(said)
        self._frames += episode.length
        self._forget()

    def _tasks_of(self, length: int, segments: Sequence[Segment]) -> np.ndarray:
        """The number of each frame's task, [T] int64."""
        names = np.full(length, PLAY, dtype=object)
        for segment in sorted((s for s in segments if s.success is not False), key=lambda s: s.start):
            usual = self._sentences.get(segment.task, segment.task.replace("_", " "))
            names[segment.start : segment.stop] = segment.sentence or usual
        return np.array([self._tasks.setdefault(name, len(self._tasks)) for name in names], np.int64)

    def _outcomes(self, length: int, segments: Sequence[Segment]) -> dict[str, np.ndarray]:
        """Columns [T] that say how attempts ended: none, for the extra file does."""
        return {}

    def _indexes(self, length: int, tasks: np.ndarray) -> dict[str, np.ndarray]:
        frame = np.arange(length)
        values = {
            "timestamp": frame / self._rate,
            "frame_index": frame,
            "episode_index": np.full(length, self.episodes),
            "index": self._frames + frame,
            "task_index": tasks,
        }
        return {name: values[name].astype(dtype) for name, dtype in INDEXES.items()}

    def _filmed(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for camera, at in self._places.items():
            name = f"videos/{CAMERA}{camera}"
            found |= {f"{name}/chunk_index": at.chunk, f"{name}/file_index": at.file}
            found |= {f"{name}/from_timestamp": at.seconds, f"{name}/to_timestamp": self._videos[camera].seconds()}
        return found

    def _table(self, columns: Mapping[str, np.ndarray]) -> Any:
        """Columns as Arrow: a vector is a list of fixed size, one of a single number is a plain number."""
        arrays = {}
        for key, values in columns.items():
            flat = self._arrow.array(values.ravel())
            size = values.size // len(values)
            arrays[key] = flat if size == 1 else self._arrow.FixedSizeListArray.from_arrays(flat, size)
        return self._arrow.table(arrays)

    def _describe(self) -> None:
        """Write the descriptions of episodes that wait."""
        if self._waiting:
            chunk, file = self._described.next()
            here = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
            self._described.write(self._arrow.Table.from_pylist([row | here for row in self._waiting]))
            self._waiting = []

    # ---- the small files

    def _finish(self) -> None:
        self._describe()
        self._release()
        write_json(self.partial / INFO, self._info(), sealed=False)
        write_json(self.partial / STATS, self._stats, sealed=False)
        self._parquet.write_table(_indexed(self._arrow, self._tasks), self.partial / TASKS)
        self._write_extra()

    def _write_extra(self) -> None:
        """What LeRobot has no place for."""
        episodes = [episode for episode, _ in self._begun]
        extra = Extra(
            layout=self.layout,
            kind=[episode.kind for episode in episodes],
            split=[episode.split for episode in episodes],
            scene=[episode.scene for episode in episodes],
            segments=[segments for _, segments in self._begun],
            tasks=self._said,
            **self._made_by,
        )
        write_extra(self.partial, extra)

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": VERSION,
            "fps": self._rate,
            "features": self._features(),
            "total_episodes": self.episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": TABLE_MEGABYTES,
            "video_files_size_in_mb": MEGABYTES,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "robot_type": None,
            "splits": {"train": f"0:{self.episodes}"},
        }

    def _features(self) -> dict[str, Any]:
        names = {spec.ROBOT: _names(spec.ROBOT_FIELDS)} if self.layout.vectors == spec.CALVIN.vectors else {}
        features: dict[str, Any] = {}
        for camera, video in self._videos.items():
            shape = {"shape": list(self.images[camera]), "names": ["height", "width", "channels"]}
            features[CAMERA + camera] = {"dtype": "video", **shape, "info": video.info()}
        for key, size in self.layout.vectors.items():
            features[VECTORS[key]] = {"dtype": "float32", "shape": [size], "names": names.get(key)}
        return features | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEXES.items()}

    def _release(self) -> None:
        for table in (self._rows, self._described):
            table.close()
        for video in self._videos.values():
            video.close()


class _Tables:
    """Rows in Parquet files of bounded size, one group of rows a call."""

    def __init__(self, folder: Path, template: str, arrow: Any, parquet: Any) -> None:
        self._folder, self._template, self._arrow, self._parquet = folder, template, arrow, parquet
        self._number = -1
        self._path: Path | None = None
        self._writer: Any = None

    def next(self) -> tuple[int, int]:
        """Chunk and file of what is written next."""
        is_full = self._path is not None and self._path.stat().st_size >= TABLE_MEGABYTES * 2**20
        return place(max(self._number, 0) + is_full)

    def write(self, table: Any) -> tuple[int, int]:
        """Append rows; gives chunk and file."""
        chunk, file = self.next()
        path = self._folder / self._template.format(chunk_index=chunk, file_index=file)
        if path != self._path:
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path, self._number = path, self._number + 1
            self._writer = self._parquet.ParquetWriter(path, table.schema, compression="snappy")
        self._writer.write_table(table)
        return chunk, file

    def close(self) -> None:
        """Finish the file; once is enough."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _flat(stats: Mapping[str, Stats]) -> dict[str, Any]:
    """As columns `stats/<feature>/<statistic>`."""
    return {f"stats/{key}/{name}": value.tolist() for key, values in stats.items() for name, value in values.items()}


def _names(fields: Mapping[str, slice]) -> list[str]:
    """A name for each number."""
    return [f"{name}_{i}" if part.stop - part.start > 1 else name
            for name, part in fields.items() for i in range(part.stop - part.start)]  # fmt: skip


def _indexed(arrow: Any, tasks: Mapping[str, int]) -> Any:
    """Tasks as `lerobot` reads them with pandas: the sentence is the index of the rows, as this note says."""
    table = arrow.table({"task_index": arrow.array(list(tasks.values()), arrow.int64()), "task": list(tasks)})
    column = {"metadata": None, "field_name": "", "name": "", "pandas_type": "", "numpy_type": ""}
    columns = [
        {**column, "field_name": "task_index", "name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {**column, "field_name": "task", "name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    labels = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    note = {
        "index_columns": ["task"],
        "column_indexes": [{**labels, "metadata": {"encoding": "UTF-8"}}],
        "columns": columns,
        "creator": {"library": "pyarrow", "version": arrow.__version__},
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({b"pandas": json.dumps(note).encode()})

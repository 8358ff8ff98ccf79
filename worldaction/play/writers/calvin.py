"""Writes a CALVIN data set in the published layout, which upstream's loaders, LUMOS and DiWA read.

One `.npz` is one frame; see docs/data.md. Format: https://github.com/mees/calvin
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from worldaction import spec
from worldaction.errors import UserError
from worldaction.io.atomic import replacing
from worldaction.play.layout import Segment
from worldaction.play.writers.base import Begun, FolderWriter

logger = logging.getLogger(__name__)

ON_DISK: Final = {spec.ROBOT: "robot_obs", spec.SCENE: "scene_obs", spec.ACTION: "rel_actions"}
POSE: Final = 6
"""Numbers of a pose: position (m) and Euler angles (rad)."""
UNITS: Final = np.repeat([spec.METRES_PER_UNIT, spec.RADIANS_PER_UNIT], 3)
Embed = Callable[[Sequence[str]], np.ndarray]


class CalvinWriter(FolderWriter):
    """Writes a CALVIN set: for frames of CALVIN's layout.

    Frames are numbered in the order they come, in one line for both splits, so that each split has gaps. Vectors are
    float64 as in the published files, and keep every bit of what comes. `rel_actions` are the actions as they come.
    `actions`, the absolute ones, are what upstream records: the pose of the TCP in the next frame and the gripper's
    command. The last frame of an episode has no next one; its pose is that of this frame moved by `rel_actions`. Where
    these are commands and not the moves that were achieved, `actions` is where the robot came, which is not quite
    where it was sent.

    Annotated segments that succeeded become language annotations. What CALVIN has no place for is left out: the kind
    of an episode, failed segments, settings. Sentences are not embedded here: without `embed` the annotations have no
    `emb`, so that a loader which needs it says so instead of learning from empty vectors.

    Args:
        path: the folder to create; it must not exist.
        layout: what a frame holds; all but the cameras as in `spec.CALVIN`.
        sentences: of each task, what a person would say where the recording does not say it; the task's name with
            spaces where none is given.
        embed: sentences to vectors [N, 1, E] float32, such as upstream's MiniLM gives.

    Raises:
        UserError: `path` exists or cannot be written, or the layout is not CALVIN's.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        layout: spec.Layout = spec.CALVIN,
        sentences: Mapping[str, str] | None = None,
        embed: Embed | None = None,
    ) -> None:
        if layout.vectors != spec.CALVIN.vectors or spec.STATIC not in layout.cameras:
            raise UserError(f"{path}: a CALVIN set needs {spec.STATIC} and {spec.CALVIN.vectors}, not {layout.vectors}")
        super().__init__(path, layout=layout)
        self._sentences, self._embed = dict(sentences or {}), embed
        self._next = 0
        self._waiting: dict[str, np.ndarray] | None = None
        self._ranges: dict[str, list[tuple[int, int]]] = {split: [] for split in get_args(spec.Split)}
        self._windows: dict[str, list[Segment]] = {split: [] for split in get_args(spec.Split)}
        self._scenes: dict[str, tuple[int, int]] = {}
        self._scene = ""
        self._unknown = 0
        self._statistics = _Statistics()
        for split in self._ranges:
            (self.partial / split).mkdir()

    def _begin(self, episode: Begun) -> None:
        if episode.scene != self._scene and episode.scene in self._scenes:
            raise UserError(f"{self.path}: scene {episode.scene} comes twice; a CALVIN set holds a scene in one run")
        self._scene = episode.scene

    def _append(self, block: dict[str, np.ndarray]) -> None:
        """Every frame is written when the next one is known, because `actions` is taken from it."""
        if self._waiting is not None:
            block = {key: np.concatenate([self._waiting[key], block[key]]) for key in block}
        self._write(block, _reached(block))
        self._waiting = {key: array[-1:].copy() for key, array in block.items()}

    def _end(self, episode: Begun, segments: Sequence[Segment]) -> None:
        assert self._waiting is not None
        self._write(self._waiting, _moved(self._waiting))
        self._waiting = None
        first, last = self._next - episode.length, self._next - 1
        self._ranges[episode.split].append((first, last))
        if episode.scene:
            self._scenes[episode.scene] = (self._scenes.get(episode.scene, (first, 0))[0], last)
        done = [replace(s, start=first + s.start, stop=first + s.stop) for s in segments if s.success]
        self._windows[episode.split] += done
        if failed := sum(segment.success is False for segment in segments):
            logger.debug("episode %d: %d failed segments are left out", self.episodes, failed)
        self._unknown += sum(segment.success is None for segment in segments)

    def _write(self, block: Mapping[str, np.ndarray], actions: np.ndarray) -> None:
        """As many frames as there are actions."""
        assert self.current is not None
        folder = self.partial / self.current.split
        for row, action in enumerate(actions):
            images = {camera: block[camera][row] for camera in self.images}
            vectors = {name: block[key][row].astype(np.float64) for key, name in ON_DISK.items()}
            np.savez_compressed(folder / f"episode_{self._next:07d}.npz", actions=action, **vectors, **images)
            self._next += 1
        if self.current.split == "training" and len(actions):
            self._statistics.add({key: block[key][: len(actions)] for key in ON_DISK}, actions)

    def _finish(self) -> None:
        if self._unknown:
            logger.warning(
                "%s: %d segments are left out, as nobody says whether they succeeded; if they did, give "
                "--option unknown=success",
                self.path,
                self._unknown,
            )
        for split, ranges in self._ranges.items():
            if not ranges:
                logger.warning("%s has no episode for %s, which upstream's loaders need", self.path, split)
                (self.partial / split).rmdir()
                continue
            folder, ids = self.partial / split, np.array(ranges, np.int64)
            np.save(folder / "ep_start_end_ids.npy", ids)
            np.save(folder / "ep_lens.npy", ids[:, 1] - ids[:, 0] + 1)
            (folder / "statistics.yaml").write_text(self._statistics.text(), encoding="utf-8")
            _save_object(folder / "lang_annotations" / "auto_lang_ann.npy", self._annotations(self._windows[split]))
        if self._scenes and self._ranges["training"]:
            scenes = {scene: list(span) for scene, span in self._scenes.items()}
            _save_object(self.partial / "training" / "scene_info.npy", scenes)

    def _annotations(self, windows: Sequence[Segment]) -> dict[str, Any]:
        said = [s.sentence or self._sentences.get(s.task, s.task.replace("_", " ")) for s in windows]
        language: dict[str, Any] = {"ann": said, "task": [s.task for s in windows]}
        if self._embed is not None and windows:
            language["emb"] = self._embed(said)
        # upstream's windows include their last frame
        return {"language": language, "info": {"episodes": [], "indx": [(s.start, s.stop - 1) for s in windows]}}


def _reached(block: Mapping[str, np.ndarray]) -> np.ndarray:
    """Absolute actions of all frames but the last [T - 1, 7]: the pose in the next frame, and the gripper's command."""
    pose = block[spec.ROBOT][1:, :POSE]
    return np.concatenate([pose, block[spec.ACTION][:-1, POSE:]], 1).astype(np.float64)


def _moved(block: Mapping[str, np.ndarray]) -> np.ndarray:
    """Absolute actions [T, 7] of frames whose next ones are unknown: the pose moved by the relative action."""
    relative = block[spec.ACTION].astype(np.float64)
    pose = block[spec.ROBOT][:, :POSE] + relative[:, :POSE] * UNITS
    pose[:, 3:] = np.pi - (np.pi - pose[:, 3:]) % (2 * np.pi)
    return np.concatenate([pose, relative[:, POSE:]], 1)


def _save_object(path: Path, value: object) -> None:
    """A `.npy` with a pickled object, because upstream's code reads no other form. Writing one runs nothing; reading
    goes through worldaction/play/readers/restricted.py."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(value, dtype=object))
    with replacing(path) as temporary:
        temporary.write_bytes(_for_old_numpy(buffer.getvalue()))


def _for_old_numpy(content: bytes) -> bytes:
    """A pickle of NumPy 2 that NumPy 1, which CALVIN's users have, reads too: the module's old name is one shorter."""
    new, old = b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"
    # protocol 4, then the length of the first frame, in which the name is
    length = content.index(b"\x80\x04\x95") + 3
    if new not in content:
        return content
    frame = struct.pack("<Q", struct.unpack_from("<Q", content, length)[0] - 1)
    return content[:length] + frame + content[length + 8 :].replace(new, old, 1)


class _Statistics:
    """Of the training frames, for `statistics.yaml`: means, deviations, and the bounds of the absolute actions."""

    def __init__(self) -> None:
        self._count = 0
        self._sums = {key: np.zeros((2, spec.CALVIN.vectors[key])) for key in (spec.ROBOT, spec.SCENE)}
        self._bounds = np.array([[-np.inf], [np.inf]]).repeat(spec.ACTION_SIZE, 1)

    def add(self, block: Mapping[str, np.ndarray], actions: np.ndarray) -> None:
        self._count += len(actions)
        for key, sums in self._sums.items():
            values = block[key].astype(np.float64)
            sums += np.stack([values.sum(0), (values**2).sum(0)])
        self._bounds[0] = np.maximum(self._bounds[0], actions.max(0))
        self._bounds[1] = np.minimum(self._bounds[1], actions.min(0))

    def text(self) -> str:
        """In the form that upstream instantiates."""
        lines = []
        for key, sums in self._sums.items():
            mean, square = sums / max(self._count, 1)
            deviation = np.sqrt(np.maximum(square - mean**2, 0))
            lines += [f"{key}:", "  - _target_: calvin_agent.utils.transforms.NormalizeVector"]
            lines += [f"    mean: {_row(mean)}", f"    std: {_row(deviation)}"]
        lines += [f"act_max_bound: {_row(self._bounds[0])}", f"act_min_bound: {_row(self._bounds[1])}"]
        return "\n".join(lines) + "\n"


def _row(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.6f}" for value in values) + "]"

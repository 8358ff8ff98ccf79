"""Reads a Minari data set from its local folder, without the `minari` package.

`data/metadata.json` describes the spaces, `data/main_data.hdf5` holds `episode_<n>` with T actions and T + 1
observations. Format: https://minari.farama.org/content/dataset_standards/
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.images import area_mean, centre_square
from worldaction.play.layout import Segment
from worldaction.play.readers import hdf5
from worldaction.play.readers.reading import camera_name, check_vectors, layout_of, load_json, naming, need, piece
from worldaction.play.readers.source import Origin, Recording

_EPISODE = re.compile(r"episode_(\d+)")


@dataclass(frozen=True)
class Leaf:
    """One Box of the observation space."""

    path: str
    """Below `observations`, such as `robot/position`; empty where the space is one Box."""
    shape: tuple[int, ...]
    image: bool
    jpeg: bool = False
    """Whether every frame is a JPEG file."""

    @property
    def node(self) -> str:
        """Below the episode."""
        return f"observations/{self.path}" if self.path else "observations"


class MinariSource:
    """A Minari data set; see `Source`.

    Every observation is kept. The last one of an episode has no action, and gets the null action; the annotated range
    ends before it, so that nobody learns to act from it. Images in the observation space are cameras, all other
    numbers are proprioception, sorted by name.

    Args:
        path: the folder of a data set, which holds `data`, or that folder.
        success: the array in `infos` that says whether the task was done; without one, episodes count as successes.

    Raises:
        UserError: h5py is missing, the set is not in HDF5, actions are no Box, or a file is damaged.
    """

    format = "Minari"

    def __init__(self, path: Path | str, *, success: str = "success") -> None:
        self.path = Path(path)
        folder = _folder(self.path)
        self._file = folder / "main_data.hdf5"
        about_path = folder / "metadata.json"
        about = load_json(about_path)
        with naming(about_path):
            if about["data_format"] != "hdf5":
                raise UserError(
                    f"{about_path}: the data are in {about['data_format']!r}; record or export them as hdf5"
                )
            encoded = bool(about.get("jpeg_encoding", True))
            leaves = sorted(_leaves(_space(about, "observation_space"), encoded), key=lambda leaf: leaf.path)
            action = _space(about, "action_space")
            if action["type"] != "Box":
                raise UserError(f"{about_path}: actions are {action['type']}; only a Box of numbers can be learnt from")
            size = math.prod(int(n) for n in action["shape"])
            task, self.rate = _environment(about)
        self._vectors = [leaf for leaf in leaves if not leaf.image]
        self._cameras: dict[str, Leaf] = {}
        for leaf in (leaf for leaf in leaves if leaf.image):
            self._cameras[camera_name(leaf.path.replace("/", "_") or "image", self._cameras, about_path)] = leaf
        robot = sum(math.prod(leaf.shape) for leaf in self._vectors)
        self.layout = layout_of(self._cameras, robot=robot, scene=0, action=size)
        self.image_size = min((min(leaf.shape[:2]) for leaf in self._cameras.values()), default=0)
        hdf5.check(self._file)
        with hdf5.opened(self._file) as file:
            self._names = self._episode_names(file, about)
            self.episodes: Sequence[Recording] = [self._recording(file, name, task, success) for name in self._names]
        config = {"path": str(self.path.resolve()), "format": self.format, "environment": task}
        self.origin = Origin("minari", config=config | {"dataset": about.get("dataset_id")})

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like a Minari data set."""
        return any((path / part / "main_data.hdf5").is_file() for part in ("data", ""))

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        name, length = self._names[episode], self.episodes[episode].length
        where = f"{self._file}: {name}"
        cameras = self._cameras if image_size != 0 else {}
        size = piece(max((math.prod(leaf.shape) for leaf in cameras.values()), default=1))
        with hdf5.opened(self._file) as file:
            stored = file[name]
            parts = [(leaf.node, hdf5.array(stored, leaf.node, where)) for leaf in self._vectors]
            images = {key: hdf5.array(stored, leaf.node, where) for key, leaf in cameras.items()}
            actions = hdf5.array(stored, "actions", where)
            for first in range(start, length, size):
                last = min(first + size, length)
                block = {spec.ACTION: self._actions(actions, first, last, f"{where}/actions")}
                if parts:
                    block[spec.ROBOT] = hdf5.vectors(parts, first, last, where)
                for key, image in images.items():
                    pixels = self._images(image, cameras[key], first, last, f"{where}/{cameras[key].node}")
                    block[key] = area_mean(centre_square(pixels), image_size)
                yield block

    def _actions(self, actions: Any, first: int, last: int, where: str) -> np.ndarray:
        """[T, A] float32, with the null action after the last one."""
        known = actions[first:last].reshape(-1, self.layout.action)
        padded = np.tile(np.array(self.layout.null_action, np.float32), (last - first, 1))
        padded[: len(known)] = check_vectors(known, (len(known), self.layout.action), where)
        return padded

    def _images(self, stored: Any, leaf: Leaf, first: int, last: int, where: str) -> np.ndarray:
        if not leaf.jpeg:
            return hdf5.frames(stored, first, last, where)
        image_module = need("PIL.Image")
        pixels = np.empty((last - first, *leaf.shape), np.uint8)
        with naming(where, image_module.DecompressionBombError):
            for row, data in enumerate(stored[first:last]):
                image = image_module.open(io.BytesIO(data.tobytes()), formats=("JPEG",))
                # before anything is decoded: a small file can claim to be a huge image
                if (image.height, image.width) != leaf.shape[:2]:
                    raise ValueError(f"an image of {image.size} pixels")
                pixels[row] = image.convert("RGB")
        return pixels

    def _episode_names(self, file: Any, about: Mapping[str, Any]) -> list[str]:
        matches = sorted((m for name in file if (m := _EPISODE.fullmatch(name))), key=lambda m: int(m[1]))
        if not matches or len(matches) != int(about.get("total_episodes", len(matches))):
            said = about.get("total_episodes")
            raise UserError(f"{self._file} holds {len(matches)} episodes, the description says {said}; copy it again")
        return [match[0] for match in matches]

    def _recording(self, file: Any, name: str, task: str, success: str) -> Recording:
        where = f"{self._file}: {name}"
        stored = file[name]
        actions = hdf5.array(stored, "actions", where)
        steps = actions.shape[0] if actions.shape else 0
        if steps < 1 or hdf5.width(actions) != self.layout.action:
            raise UserError(f"{where} has actions {actions.shape}, not (T, {self.layout.action}); get the file anew")
        for leaf in (*self._vectors, *self._cameras.values()):
            found = hdf5.array(stored, leaf.node, where)
            if found.shape[:1] != (steps + 1,) or (not leaf.jpeg and found.shape[1:] != leaf.shape):
                wanted = (steps + 1, *leaf.shape)
                raise UserError(f"{where}: {leaf.node} is {found.shape}, not {wanted}; get the file anew")
        infos = stored.get("infos")
        said = [name for name in (success, f"is_{success}") if infos is not None and name in infos]
        done = not said or bool(np.any(hdf5.array(infos, said[0], f"{where}: infos")[()]))
        return Recording(steps + 1, where, "demo", segments=(Segment(task, 0, steps, done),))


def _folder(path: Path) -> Path:
    for folder in (path / "data", path):
        if (folder / "main_data.hdf5").exists() or (folder / "metadata.json").exists():
            return folder
    raise UserError(f"{path} is no Minari data set, it has no data/metadata.json; give the folder that holds data")


def _space(about: Mapping[str, Any], name: str) -> Any:
    """A space as it is written: JSON inside of JSON."""
    if name not in about:
        raise ValueError(f"it has no {name}")
    return json.loads(about[name]) if isinstance(about[name], str) else about[name]


def _leaves(space: Mapping[str, Any], encoded: bool, path: str = "") -> Iterator[Leaf]:
    """The Boxes of a space; text, such as an instruction, is left out."""
    if space["type"] in ("Dict", "Tuple"):
        inner = space["subspaces"]
        items = inner.items() if isinstance(inner, dict) else ((f"_index_{i}", item) for i, item in enumerate(inner))
        for name, item in items:
            yield from _leaves(item, encoded, f"{path}/{name}".lstrip("/"))
    elif space["type"] == "Box":
        shape = tuple(int(n) for n in space["shape"])
        image = len(shape) == 3 and shape[2] == 3 and space["dtype"] == "uint8"
        jpeg = encoded and _is_encoded(space, shape)
        if jpeg and not image:
            raise ValueError(f"the images {path or 'observations'} are {shape}, only colour images are read")
        yield Leaf(path, shape, image, jpeg)
    elif space["type"] != "Text":
        raise ValueError(f"the observation {path or 'space'} is {space['type']}, only boxes are read")


def _is_encoded(space: Mapping[str, Any], shape: tuple[int, ...]) -> bool:
    """Minari's own rule for what it keeps as JPEG files."""
    bytes_of_pixels = space["dtype"] == "uint8" and np.all(np.array(space["low"]) == 0)
    large = len(shape) in (2, 3) and min(shape[:2]) >= 32
    return bool(bytes_of_pixels and large and np.all(np.array(space["high"]) == 255))


def _environment(about: Mapping[str, Any]) -> tuple[str, float | None]:
    """The name of the task, and the frames per second where the environment says them."""
    described = json.loads(about["env_spec"]) if isinstance(about.get("env_spec"), str) else {}
    metadata = (described.get("kwargs") or {}).get("metadata") or {}
    rate = metadata.get("render_fps")
    return str(described.get("id") or about.get("dataset_id") or "task"), float(rate) if rate else None

"""Reads a Minari data set from its local folder, without the `minari` package.

`data/metadata.json` describes the spaces; episodes of T actions and T + 1 observations are beside it, in one of the
ways of `minari_storage`. Format: https://minari.farama.org/content/dataset_standards/
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldaction import spec
from worldaction.errors import UserError
from worldaction.interface import CAMERAS_RECORDED, recorded_cameras
from worldaction.play.images import fitted
from worldaction.play.labels import achieved, of_rewards
from worldaction.play.layout import Segment
from worldaction.play.readers import hdf5
from worldaction.play.readers.minari_storage import MAIN, ArrowStorage, Episode, Hdf5Storage
from worldaction.play.readers.reading import (
    Sound,
    camera_name,
    check_vectors,
    layout_of,
    load_json,
    naming,
    need,
    piece,
)
from worldaction.play.readers.source import Origin, Recording

SUCCESS: Final = "success"
SHAPES: Final[Mapping[str, Callable[[Mapping[str, Any]], tuple[int, ...]]]] = {
    "Box": lambda space: tuple(int(n) for n in space["shape"]),
    "Discrete": lambda space: (),
    "MultiDiscrete": lambda space: np.shape(space["nvec"]),
    "MultiBinary": lambda space: tuple(int(n) for n in np.atleast_1d(space["n"])),
}
"""The shape of each space of numbers."""
SIDE: Final = 8
"""What has two sides of so many bytes is a picture."""


@dataclass(frozen=True)
class Leaf:
    """One space of numbers in the observation space."""

    path: str
    """Below `observations`, such as `robot/position`; empty where the space is no other's part."""
    shape: tuple[int, ...]
    """As stored: of pictures [H, W, 3], [3, H, W], [H, W, 1], [1, H, W] or [H, W]."""
    image: bool
    jpeg: bool = False
    """Whether every frame is a JPEG file."""

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of a picture."""
        height, width, _ = _colour_last(np.empty((1, *self.shape), np.uint8)).shape[1:]
        return height, width


class MinariSource:
    """A Minari data set; see `Source`.

    Every observation is kept. The last one of an episode has no action, and gets the null action; the annotated range
    ends before it, so that nobody learns to act from it. Pictures in the observation space are cameras, all other
    numbers are proprioception, sorted by name.

    An attempt succeeded if the task is done after one of its steps and was not before it, by `infos`, or where nothing
    is said there if a reward is 1, in a set whose rewards are 0 and 1.

    Args:
        path: the folder of a data set, which holds `data`, or that folder.
        success: the array in `infos` that says whether the task was done.
        strict: refuse a set of which an episode is damaged or missing.

    Attributes:
        left_out: observations that are not read: text, graphs, pictures that are not in colour or in bytes.

    Raises:
        UserError: h5py or pyarrow is missing, actions are no Box, no episode can be read, or no `infos` are called so.
    """

    format = "Minari"

    def __init__(self, path: Path | str, *, success: str = SUCCESS, strict: bool = False) -> None:
        self.path = Path(path)
        folder = _folder(self.path)
        self._about = folder / "metadata.json"
        about = load_json(self._about)
        with naming(self._about):
            self._storage = _storage(folder, str(about["data_format"]))
            found = list(_leaves(_space(about, "observation_space"), bool(about.get("jpeg_encoding", True))))
            action = self._action_size(_space(about, "action_space"))
            task, self.rate = _environment(about)
        self.left_out = tuple(leaf for leaf in found if isinstance(leaf, str))
        leaves = sorted((leaf for leaf in found if isinstance(leaf, Leaf)), key=lambda leaf: leaf.path)
        self._vectors = [leaf for leaf in leaves if not leaf.image]
        self._cameras: dict[str, Leaf] = {}
        for leaf in (leaf for leaf in leaves if leaf.image):
            self._cameras[camera_name(leaf.path.replace("/", "_") or "image", self._cameras, self._about)] = leaf
        robot = sum(math.prod(leaf.shape) for leaf in self._vectors)
        self.layout = layout_of(self._cameras, robot=robot, scene=0, action=action)
        self.image_size = min((min(leaf.sides) for leaf in self._cameras.values()), default=0)
        self.episodes: Sequence[Recording] = self._recordings(about, task, success, Sound(strict=strict))
        config: dict[str, Any] = {"path": str(self.path.resolve()), "format": self.format, "environment": task}
        config["features"] = {spec.ROBOT: [leaf.path for leaf in self._vectors]}
        config[CAMERAS_RECORDED] = recorded_cameras({k: (leaf.path, leaf.sides) for k, leaf in self._cameras.items()})
        self.origin = Origin("minari", config=config | {"dataset": about.get("dataset_id")})

    def _action_size(self, space: Mapping[str, Any]) -> int:
        if space["type"] != "Box":
            raise UserError(f"{self._about}: actions are {space['type']}; only a Box of numbers can be learnt from")
        return math.prod(int(n) for n in space["shape"])

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a folder looks like a Minari data set."""
        return any(_holds_episodes(path / part) for part in ("data", ""))

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        name, length = self._names[episode], self.episodes[episode].length
        where = self._storage.where(name)
        cameras = self._cameras if image_size != 0 else {}
        size = piece(max((math.prod(leaf.sides) * 3 for leaf in cameras.values()), default=1))
        with self._storage.opened(name) as stored:
            parts = [(f"observations/{leaf.path}".rstrip("/"), _array(stored, leaf)) for leaf in self._vectors]
            images = {key: _array(stored, leaf) for key, leaf in cameras.items()}
            actions = stored.actions()
            for first in range(start, length, size):
                last = min(first + size, length)
                block = {spec.ACTION: self._actions(actions, first, last, f"{where}/actions")}
                if parts:
                    block[spec.ROBOT] = hdf5.vectors(parts, first, last, where)
                for key, image in images.items():
                    pixels = _images(image, cameras[key], first, last, f"{where}/observations/{cameras[key].path}")
                    block[key] = fitted(pixels, image_size)
                yield block

    def _actions(self, actions: Any, first: int, last: int, where: str) -> np.ndarray:
        """[T, A] float32, with the null action after the last one."""
        known = actions[first:last].reshape(-1, self.layout.action)
        padded = np.tile(np.array(self.layout.null_action, np.float32), (last - first, 1))
        padded[: len(known)] = check_vectors(known, (len(known), self.layout.action), where)
        return padded

    def _recordings(self, about: Mapping[str, Any], task: str, success: str, sound: Sound) -> list[Recording]:
        names = self._storage.names()
        with naming(self._about):
            said = int(about.get("total_episodes", len(names)))
        if not names or said != len(names):
            told = f"{self._storage.path} holds {len(names)} episodes, the description says {said}; copy it again"
            if not names:
                raise UserError(told)
            sound.skip(told)
        read = sound.each(names, lambda name: (name, *self._episode(name, success)))
        if success != SUCCESS and all(flags is None for _, _, flags, _ in read):
            raise UserError(f"{self.path}: no episode has infos/{success}; leave out --option success={success}")
        by_reward = of_rewards([rewards for *_, rewards in read])
        self._names, self.skipped = [name for name, *_ in read], sound.skipped
        found = []
        for (name, steps, flags, _), rewarded in zip(read, by_reward, strict=True):
            # an entry more than steps: the first is the reset's
            done = rewarded if flags is None else achieved(flags, from_reset=len(flags) == steps + 1)
            segments = (Segment(task, 0, steps, done),)
            found.append(Recording(steps + 1, self._storage.where(name), "demo", segments=segments))
        return found

    def _episode(self, name: str, success: str) -> tuple[int, np.ndarray | None, np.ndarray | None]:
        """Steps of an episode, what `infos` say of its success after each, and its rewards."""
        where = self._storage.where(name)
        with self._storage.opened(name) as stored:
            actions = stored.actions()
            steps = actions.shape[0] if actions.shape else 0
            if steps < 1 or hdf5.width(actions) != self.layout.action:
                raise UserError(
                    f"{where} has actions {actions.shape}, not (T, {self.layout.action}); get the file anew"
                )
            for leaf in (*self._vectors, *self._cameras.values()):
                found = _array(stored, leaf)
                shape = (len(found), *leaf.shape) if leaf.jpeg else found.shape
                if shape != (wanted := (steps + 1, *leaf.shape)):
                    raise UserError(f"{where}: observations/{leaf.path} is {shape}, not {wanted}; get the file anew")
            flags = stored.info(success)
            flags = stored.info(f"is_{success}") if flags is None else flags
            rewards = stored.rewards()
        flags = flags if flags is not None and flags.shape[:1] in ((steps,), (steps + 1,)) else None
        return steps, flags, rewards if rewards is not None and rewards.shape == (steps,) else None


def _array(stored: Episode, leaf: Leaf) -> Any:
    return stored.observed(leaf.path, None if leaf.jpeg else leaf.shape)


def _images(stored: Any, leaf: Leaf, first: int, last: int, where: str) -> np.ndarray:
    """[T, H, W, 3] uint8."""
    if not leaf.jpeg:
        pixels = np.asarray(stored[first:last])
        if pixels.shape != (last - first, *leaf.shape) or pixels.dtype != np.uint8:
            wanted = (last - first, *leaf.shape)
            raise UserError(f"{where} is {pixels.dtype} {pixels.shape}, not uint8 {wanted}; get it anew")
        return _colour_last(pixels)
    image_module = need("PIL.Image")
    pixels = np.empty((last - first, *leaf.sides, 3), np.uint8)
    with naming(where, image_module.DecompressionBombError):
        for row, data in enumerate(stored[first:last]):
            image = image_module.open(io.BytesIO(data.tobytes()), formats=("JPEG",))
            # before anything is decoded: a small file can claim to be a huge image
            if (image.height, image.width) != leaf.sides:
                raise ValueError(f"an image of {image.size} pixels")
            pixels[row] = image.convert("RGB")
    return pixels


def _colour_last(pixels: np.ndarray) -> np.ndarray:
    """[T, H, W, 3], from channels that come first, or from one grey one."""
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.shape[3] not in (1, 3):
        pixels = np.moveaxis(pixels, 1, 3)
    return pixels if pixels.shape[3] == 3 else pixels.repeat(3, axis=3)


def _storage(folder: Path, kind: str) -> Hdf5Storage | ArrowStorage:
    if kind == "hdf5":
        return Hdf5Storage(folder)
    if kind in ("arrow", "parquet"):
        return ArrowStorage(folder, kind)
    raise UserError(f"{folder / 'metadata.json'}: the data are in {kind!r}; record or export them as hdf5 or arrow")


def _holds_episodes(folder: Path) -> bool:
    """Whether episodes lie here as Minari keeps them."""
    numbered = (folder / "metadata.json").is_file() and any(
        child.is_dir() and child.name.isdecimal() for child in folder.iterdir()
    )
    return (folder / MAIN).is_file() or numbered


def _folder(path: Path) -> Path:
    for folder in (path / "data", path):
        if (folder / MAIN).exists() or (folder / "metadata.json").exists():
            return folder
    raise UserError(f"{path} is no Minari data set, it has no data/metadata.json; give the folder that holds data")


def _space(about: Mapping[str, Any], name: str) -> Any:
    """A space as it is written: JSON inside of JSON."""
    if name not in about:
        raise ValueError(f"it has no {name}")
    return json.loads(about[name]) if isinstance(about[name], str) else about[name]


def _leaves(space: Mapping[str, Any], encoded: bool, path: str = "") -> Iterator[Leaf | str]:
    """What a space consists of; of what is not read, such as an instruction, the name and why."""
    kind, name = space["type"], path or "observations"
    if kind in ("Dict", "Tuple"):
        inner = space["subspaces"]
        items = inner.items() if isinstance(inner, dict) else ((f"_index_{i}", item) for i, item in enumerate(inner))
        for part, item in items:
            yield from _leaves(item, encoded, f"{path}/{part}".lstrip("/"))
    elif kind not in SHAPES:
        yield f"{name} ({kind})"
    else:
        shape = SHAPES[kind](space)
        image = kind == "Box" and _is_picture(shape, space["dtype"])
        jpeg = kind == "Box" and encoded and _is_encoded(space, shape)
        if not image and (jpeg or _looks_like_pictures(shape, space.get("dtype"))):
            yield f"{name} ({space['dtype']} {shape}: only pictures of bytes with one or three channels are read)"
        else:
            yield Leaf(path, shape, image, jpeg)


def _is_picture(shape: tuple[int, ...], dtype: str) -> bool:
    """Bytes with one or three channels, first or last."""
    if dtype != "uint8" or len(shape) not in (2, 3):
        return False
    channels_first = len(shape) == 3 and shape[2] not in (1, 3) and shape[0] in (1, 3)
    sides = shape[1:] if channels_first else shape[:2]
    known = len(shape) == 2 or channels_first or shape[2] in (1, 3)
    return shape[2:] == (3,) or (known and min(sides) >= SIDE)


def _looks_like_pictures(shape: tuple[int, ...], dtype: str | None) -> bool:
    """Pictures that nobody wants as thousands of numbers of a robot's state."""
    large = sum(side >= SIDE for side in shape) >= 2
    has_channels = len(shape) == 3 and bool({1, 3, 4} & {shape[0], shape[2]})
    return large and (dtype == "uint8" or has_channels)


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

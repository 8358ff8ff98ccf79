"""Reads robomimic's HDF5 files: `data/demo_<n>` holds `actions` and `obs`, `mask` says which demos are for validation.

Format: https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldaction import spec
from worldaction.config import NonNegative
from worldaction.errors import UserError, unknown
from worldaction.interface import CAMERAS_RECORDED, recorded_cameras
from worldaction.io import typed_json
from worldaction.play.images import fitted
from worldaction.play.labels import of_rewards
from worldaction.play.layout import Segment
from worldaction.play.readers import hdf5
from worldaction.play.readers.reading import Sound, camera_name, layout_of, naming, piece
from worldaction.play.readers.source import Origin, Recording

_DEMO = re.compile(r"demo_(\d+)")


class RobomimicSource:
    """A robomimic file; see `Source`. Every demo is an attempt at the task that the file is about.

    It succeeded if a reward is 1, in a file whose rewards are 0 and 1; of shaped rewards nobody can tell.

    Args:
        path: the file.
        robot: names in `obs` that make up proprioception, separated by spaces, in this order; by default all vectors
            but `object`, sorted.
        scene: names in `obs` that make up the privileged state; by default `object`, where there is one.
        action: the array that serves as action.
        strict: refuse a file of which a demo is damaged, or looks unlike most of the others.

    Attributes:
        left_out: observations that are neither vectors nor called `*_image`.

    Raises:
        UserError: h5py is missing, no demo can be read, or one is both for training and for validation.
    """

    format = "robomimic HDF5"

    def __init__(
        self,
        path: Path | str,
        *,
        robot: str | None = None,
        scene: str = "object",
        action: str = "actions",
        strict: bool = False,
    ) -> None:
        self.path, self._action = Path(path), action
        hdf5.check(self.path)
        with hdf5.opened(self.path) as file:
            data = hdf5.group(file, "data", str(self.path))
            names = _demos(data, self.path)
            if not names:
                raise UserError(f"{self.path} holds no demos (data/demo_0 and so on); get the file anew")
            self._typical = _typical(data, names)
            self._cameras, self._robot, self._scene = self._sort(data[self._typical], robot, scene)
            task, self.rate, absolute = _environment(data, self.path)
            self._absolute = action.endswith("_abs") or absolute
            self.layout, self.image_size = self._describe(data[self._typical])
            obs = data[self._typical]["obs"]
            pictures = {key: (name, obs[name].shape[1:]) for key, name in self._cameras.items()}
            self.episodes: Sequence[Recording] = self._recordings(file, names, task, Sound(strict=strict))
        chosen = {spec.ROBOT: self._robot, spec.SCENE: self._scene, spec.ACTION: action}
        config = {"path": str(self.path.resolve()), "format": self.format, "features": chosen, "environment": task}
        config[CAMERAS_RECORDED] = recorded_cameras(pictures)
        self.origin = Origin("robomimic", config=config)

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a file looks like one of robomimic's."""
        return path.suffix.lower() in (".hdf5", ".h5") and hdf5.is_hdf5(path)

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        name, length = self._names[episode], self.episodes[episode].length
        where = f"{self.path}: data/{name}"
        cameras = self._cameras if image_size != 0 else {}
        with hdf5.opened(self.path) as file:
            demo = file["data"][name]
            obs = _observations(demo, where)
            images = {key: hdf5.array(obs, camera, where) for key, camera in cameras.items()}
            size = piece(max((hdf5.width(image) for image in images.values()), default=1))
            parts = self._parts(demo)
            for first in range(start, length, size):
                last = min(first + size, length)
                block = {key: hdf5.vectors(part, first, last, where) for key, part in parts.items()}
                for key, image in images.items():
                    pixels = hdf5.frames(image, first, last, f"{where}/obs/{cameras[key]}")
                    block[key] = fitted(pixels, image_size)
                yield block

    def _sort(self, demo: Any, robot: str | None, scene: str) -> tuple[dict[str, str], list[str], list[str]]:
        """Which of the observations are cameras, under the names of the store, and which make up the two states."""
        obs = _observations(demo, f"{self.path}: {demo.name}")
        self.left_out: tuple[str, ...] = ()
        cameras: dict[str, str] = {}
        states: list[str] = []
        for name in sorted(obs):
            if name.endswith("_image"):
                cameras[camera_name(name.removesuffix("_image"), cameras, self.path)] = name
            elif len(obs[name].shape) <= 2 and obs[name].dtype.kind in "fiub":
                states.append(name)
            else:
                self.left_out += (f"{name} ({obs[name].dtype} {obs[name].shape[1:]})",)
        scenes = [name for name in scene.split() if name in states or scene != "object"]
        chosen = [name for name in states if name not in scenes] if robot is None else robot.split()
        for name in (*chosen, *scenes):
            if name not in states:
                raise unknown(f"vector in {self.path}", name, states)
        return cameras, chosen, scenes

    def _parts(self, demo: Any) -> dict[str, list[tuple[str, Any]]]:
        """The arrays that make up each vector of a frame."""
        where = f"{self.path}: {demo.name.lstrip('/')}"
        obs = _observations(demo, where)
        parts = {spec.ROBOT: self._robot, spec.SCENE: self._scene}
        found = {
            key: [(f"obs/{name}", hdf5.array(obs, name, where)) for name in names]
            for key, names in parts.items()
            if names
        }
        return {**found, spec.ACTION: [(self._action, hdf5.array(demo, self._action, where))]}

    def _describe(self, demo: Any) -> tuple[spec.Layout, int]:
        sizes = {key: sum(hdf5.width(a) for _, a in part) for key, part in self._parts(demo).items()}
        robot, scene = sizes.get(spec.ROBOT, 0), sizes.get(spec.SCENE, 0)
        layout = layout_of(self._cameras, robot=robot, scene=scene, action=sizes[spec.ACTION], absolute=self._absolute)
        shapes = [demo["obs"][name].shape for name in self._cameras.values()]
        return layout, min((min(shape[1:3]) for shape in shapes), default=0)

    def _recordings(self, file: Any, names: Sequence[str], task: str, sound: Sound) -> list[Recording]:
        validation, data = self._validation(file, names, sound), file["data"]
        lengths = dict(sound.each(names, lambda name: (name, self._length(data, name))))
        done = of_rewards([_rewards(data[name], lengths[name]) for name in lengths])
        self._names, self.skipped = list(lengths), sound.skipped
        found = []
        for (name, length), success in zip(lengths.items(), done, strict=True):
            split: spec.Split = "validation" if name in validation else "training"
            segments = (Segment(task, 0, length, success),) if task else ()
            found.append(Recording(length, f"{self.path}: data/{name}", "demo", split, segments=segments))
        return found

    def _length(self, data: Any, name: str) -> int:
        """Frames of a demo, if it looks like the others."""
        where = f"{self.path}: data/{name}"
        with naming(where):
            demo = data[name]
            parts = self._parts(demo)
            images = [hdf5.array(demo["obs"], camera, where) for camera in self._cameras.values()]
            arrays = [array for part in parts.values() for _, array in part] + images
            lengths = {array.shape[0] if array.shape else 0 for array in arrays}
            if len(lengths) != 1 or 0 in lengths:
                raise UserError(f"{where} has arrays of {sorted(lengths)} frames; get the file anew")
            (length,) = lengths
            if (said := int(demo.attrs.get("num_samples", length))) != length:
                raise UserError(f"{where} says that it has {said} frames, its arrays have {length}; get the file anew")
            if self._describe(demo) != (self.layout, self.image_size):
                raise UserError(f"{where} has other sizes than data/{self._typical}; get the file anew")
        return length

    def _validation(self, file: Any, names: Sequence[str], sound: Sound) -> set[str]:
        """The demos that are held out."""
        training, validation = _masked(file, "train"), _masked(file, "valid")
        if both := sorted(training & validation):
            raise UserError(
                f"{self.path}: {', '.join(both[:5])} are in mask/train and in mask/valid; leave them out of one"
            )
        for name in sorted((training | validation) - set(names)):
            sound.skip(f"{self.path}: data/{name} is missing, a mask names it; copy the file again")
        return validation


def _demos(data: Any, path: Path) -> list[str]:
    """Names of the demos, in the order of their numbers."""
    if odd := [name for name in data if name.startswith("demo") and not _DEMO.fullmatch(name)]:
        raise UserError(f"{path}: data/{odd[0]} is called like no demo; rename it as demo_0, demo_1 and on")
    found = (match for name in data if (match := _DEMO.fullmatch(name)))
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]


def _typical(data: Any, names: Sequence[str]) -> str:
    """The first demo of those that most others look like: which observations it has, and how large they are."""
    looks = {}
    for name in names:
        obs = data[name].get("obs") if hasattr(data[name], "keys") else None
        if obs is not None and hasattr(obs, "keys"):
            looks[name] = tuple(sorted((key, obs[key].shape[1:]) for key in obs if hasattr(obs[key], "shape")))
    if not looks:
        return names[0]
    most, _ = Counter(looks.values()).most_common(1)[0]
    return next(name for name, look in looks.items() if look == most)


def _rewards(demo: Any, length: int) -> np.ndarray | None:
    """[T], where the demo has one for every frame."""
    rewards = demo.get("rewards")
    if not hasattr(rewards, "dtype") or rewards.shape != (length,) or rewards.external or rewards.is_virtual:
        return None
    return np.asarray(rewards[:])


def _observations(demo: Any, where: str) -> Any:
    """The group of observations, which raw recordings of robosuite have not got."""
    if "obs" not in demo:
        raise UserError(f"{where} has no observations (obs); make them with robomimic's dataset_states_to_obs script")
    return hdf5.group(demo, "obs", where)


@dataclass(frozen=True)
class _Arguments:
    control_freq: NonNegative | None = None
    controller_configs: Any = None


@dataclass(frozen=True)
class _Environment:
    """What the attribute `env_args` says, where there is one."""

    env_name: str = ""
    env_kwargs: _Arguments | None = None


def _environment(data: Any, path: Path) -> tuple[str, float | None, bool]:
    """The task, the control frequency where the file says it, and whether the controller was told poses."""
    source, remedy = f"{path}: data, env_args", "get the file anew"
    found = typed_json.parse(str(data.attrs.get("env_args", "{}")), source, remedy=remedy)
    about: _Environment = typed_json.typed(found, _Environment, source, remedy=remedy, others=True)
    arguments = about.env_kwargs or _Arguments()
    control = arguments.controller_configs
    absolute = isinstance(control, Mapping) and control.get("control_delta") is False
    return about.env_name, arguments.control_freq or None, absolute


def _masked(file: Any, name: str) -> set[str]:
    """The demos that a mask names."""
    if "mask" not in file or name not in file["mask"]:
        return set()
    names = hdf5.array(file["mask"], name, "mask")[:]
    return {item.decode() if isinstance(item, bytes) else str(item) for item in names}

"""Reads robomimic's HDF5 files: `data/demo_<n>` holds `actions` and `obs`, `mask` says which demos are for validation.

Format: https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldaction import spec
from worldaction.config import NonNegative
from worldaction.errors import UserError, unknown
from worldaction.io import typed_json
from worldaction.play.images import area_mean, centre_square
from worldaction.play.layout import Segment
from worldaction.play.readers import hdf5
from worldaction.play.readers.reading import camera_name, layout_of, piece
from worldaction.play.readers.source import Origin, Recording

_DEMO = re.compile(r"demo_(\d+)")


class RobomimicSource:
    """A robomimic file; see `Source`. Every demo is a demonstration of the task that the file is about.

    Args:
        path: the file.
        robot: names in `obs` that make up proprioception, separated by spaces, in this order; by default all vectors
            but `object`, sorted.
        scene: names in `obs` that make up the privileged state; by default `object`, where there is one.
        action: the array that serves as action.

    Raises:
        UserError: h5py is missing, the file is damaged, or one of its demos looks unlike the others.
    """

    format = "robomimic HDF5"

    def __init__(
        self, path: Path | str, *, robot: str | None = None, scene: str = "object", action: str = "actions"
    ) -> None:
        self.path = Path(path)
        self.rate: float | None = None
        hdf5.check(self.path)
        with hdf5.opened(self.path) as file:
            data = hdf5.group(file, "data", str(self.path))
            if odd := [name for name in data if name.startswith("demo") and not _DEMO.fullmatch(name)]:
                raise UserError(
                    f"{self.path}: data/{odd[0]} is called like no demo; rename it as demo_0, demo_1 and on"
                )
            found = (match for name in data if (match := _DEMO.fullmatch(name)))
            self._names = [match[0] for match in sorted(found, key=lambda match: int(match[1]))]
            if not self._names:
                raise UserError(f"{self.path} holds no demos (data/demo_0 and so on); get the file anew")
            self._action = action
            self._cameras, self._robot, self._scene = self._sort(data[self._names[0]], robot, scene)
            task, self.rate, absolute = _environment(data, self.path)
            self._absolute = action.endswith("_abs") or absolute
            self.layout, self.image_size = self._describe(data[self._names[0]])
            validation = _masked(file, "valid")
            self.episodes: Sequence[Recording] = [
                self._recording(data[name], name, task, "validation" if name in validation else "training")
                for name in self._names
            ]
        chosen = {spec.ROBOT: self._robot, spec.SCENE: self._scene, spec.ACTION: action}
        config = {"path": str(self.path.resolve()), "format": self.format, "features": chosen, "environment": task}
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
                    block[key] = area_mean(centre_square(pixels), image_size)
                yield block

    def _sort(self, demo: Any, robot: str | None, scene: str) -> tuple[dict[str, str], list[str], list[str]]:
        """Which of the observations are cameras, under the names of the store, and which make up the two states."""
        obs = _observations(demo, f"{self.path}: {demo.name}")
        cameras: dict[str, str] = {}
        states: list[str] = []
        for name in sorted(obs):
            if name.endswith("_image"):
                cameras[camera_name(name.removesuffix("_image"), cameras, self.path)] = name
            elif len(obs[name].shape) <= 2 and obs[name].dtype.kind in "fiub":
                states.append(name)
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

    def _recording(self, demo: Any, name: str, task: str, split: spec.Split) -> Recording:
        """One demo, if it looks like the first one."""
        where = f"{self.path}: data/{name}"
        parts = self._parts(demo)
        images = [hdf5.array(demo["obs"], camera, where) for camera in self._cameras.values()]
        arrays = [array for part in parts.values() for _, array in part] + images
        lengths = {array.shape[0] if array.shape else 0 for array in arrays}
        if len(lengths) != 1 or 0 in lengths:
            raise UserError(f"{where} has arrays of {sorted(lengths)} frames; get the file anew")
        if self._describe(demo) != (self.layout, self.image_size):
            raise UserError(f"{where} has other sizes than data/{self._names[0]}; get the file anew")
        success = "rewards" not in demo or bool((hdf5.array(demo, "rewards", where)[:] > 0).any())
        (length,) = lengths
        segments = (Segment(task, 0, length, success),) if task else ()
        return Recording(length, where, "demo", split, segments=segments)


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

"""Data sets: our stores and those of other formats, converted as `worldaction data convert` does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from experiments.campaign.base import Attack, Input
from experiments.campaign.damage import by_hand
from worldaction import spec
from worldaction.play.convert import convert
from worldaction.play.layout import Segment
from worldaction.play.readers.reading import need
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore, StoreWriter
from worldaction.play.writers.base import copy
from worldaction.play.writers.calvin import CalvinWriter
from worldaction.play.writers.lerobot import LeRobotWriter

SIDE = 16
LENGTHS = (5, 4)


def frames(seed: int, length: int) -> dict[str, np.ndarray]:
    """An episode of CALVIN's layout."""
    rng = np.random.default_rng(seed)
    vectors = {key: rng.uniform(-1, 1, (length, size)) for key, size in spec.CALVIN.vectors.items()}
    return vectors | {camera: rng.integers(0, 256, (length, SIDE, SIDE, 3), np.uint8) for camera in spec.CAMERAS}


def write_store(path: Path) -> PlayStore:
    """A store of two episodes, one of them a demonstration."""
    with StoreWriter(path, image_size=SIDE, source="campaign", renderer="none") as writer:
        for number, length in enumerate(LENGTHS):
            segments = [Segment("lift", 0, length, sentence="lift it")]
            writer.add_episode(frames(number, length), kind="demo", segments=segments)
    return PlayStore.open(path)


class _Set(Attack):
    """A data set, at `folder / "set"`."""

    @property
    def path(self) -> Path:
        """What `open_source` is given."""
        return self.folder / "set"

    def answer(self) -> Any:
        """The numbers of the store that it becomes, without where it came from."""
        out = self.folder / "out"
        for left in (out, out.with_name("out.partial")):
            shutil.rmtree(left, ignore_errors=True)
        try:
            store = convert(open_source(self.path), out, image_size=8, resume=False)
            store.verify()
            said = json.loads((out / "store.json").read_text())
            return {name: said[name] for name in ("frames", "layout", "checksums", "segments", "episodes")}
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def files(self) -> list[Path]:
        """Of the set alone."""
        return [path for path in super().files() if path.is_relative_to(self.path)]


class Store(_Set):
    """Our own, whose checksums are compared."""

    name = "play store"
    has_checksums = True

    def build(self) -> None:
        """See `Attack`."""
        write_store(self.path)


class StoreByHand(Store):
    """Its descriptions, edited by somebody."""

    name = "play store, edited"
    has_checksums = False

    def input(self, rng: np.random.Generator) -> Input:
        """See `Attack`."""
        return self.input_by(by_hand, rng, [self.path / "store.json", self.path / "frames" / "meta.json"])


class Calvin(_Set):
    """As our writer writes it."""

    name = "CALVIN set"

    def build(self) -> None:
        """See `Attack`."""
        write_store(self.folder / "store")
        source = open_source(self.folder / "store")
        with CalvinWriter(self.path, layout=source.layout) as writer:
            copy(source, writer, image_size=None)


class LeRobot(_Set):
    """Version 3.0, with videos."""

    name = "LeRobot set"
    needs = ("pyarrow", "av")

    def build(self) -> None:
        """See `Attack`."""
        write_store(self.folder / "store")
        source = open_source(self.folder / "store")
        with LeRobotWriter(self.path, layout=source.layout, rate=30.0, video="h264") as writer:
            copy(source, writer, image_size=None)


class Robomimic(_Set):
    """One HDF5 file."""

    name = "robomimic file"
    needs = ("h5py",)

    @property
    def path(self) -> Path:
        """See `_Set`."""
        return self.folder / "set.hdf5"

    def build(self) -> None:
        """See `Attack`."""
        with need("h5py").File(self.path, "w") as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
            for number, length in enumerate(LENGTHS):
                made, demo = frames(number, length), data.create_group(f"demo_{number}")
                demo["actions"], demo["rewards"] = made[spec.ACTION], np.eye(1, length, length - 1)[0]
                demo["obs/object"], demo["obs/eef"] = made[spec.SCENE], made[spec.ROBOT][:, :3]
                demo.create_dataset("obs/front_image", data=made[spec.STATIC], compression="gzip")
            file["mask/valid"] = np.array([b"demo_1"])


class Minari(_Set):
    """A description and one HDF5 file."""

    name = "Minari set"
    needs = ("h5py",)

    def build(self) -> None:
        """See `Attack`."""
        (self.path / "data").mkdir(parents=True)
        state = {"type": "Box", "dtype": "float64", "shape": [3], "low": [-9.0] * 3, "high": [9.0] * 3}
        about = {
            "total_episodes": len(LENGTHS), "data_format": "hdf5", "jpeg_encoding": False,
            "dataset_id": "campaign/reach-v0", "env_spec": json.dumps({"id": "Reach-v1", "kwargs": {}}),
            "observation_space": json.dumps({"type": "Dict", "subspaces": {"state": state}}),
            "action_space": json.dumps(state | {"dtype": "float32"}),
        }  # fmt: skip
        (self.path / "data/metadata.json").write_text(json.dumps(about))
        with need("h5py").File(self.path / "data/main_data.hdf5", "w") as file:
            for number, length in enumerate(LENGTHS):
                made, group = frames(number, length), file.create_group(f"episode_{number}")
                group["observations/state"] = made[spec.ROBOT][:, :3]
                group["actions"] = made[spec.ACTION][:-1, :3].astype(np.float32)
                group["infos/success"] = np.arange(length) == length - 1

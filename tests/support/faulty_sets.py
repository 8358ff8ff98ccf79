"""Small sets of every format, of which a test breaks something as users of others have reported it.

Every frame says which one it is: the picture is of one grey level, and state and action begin with the same number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from foreign_sets import box, png

from worldaction import spec
from worldaction.play.layout import Segment
from worldaction.play.writers.store import StoreWriter

FPS, LENGTH, SIDE, EPISODES = 30, 12, 16, 4
FORMATS = ("calvin", "store", "lerobot 2.1", "lerobot 3.0", "minari", "robomimic")
CAMERA = {"calvin": spec.STATIC, "store": spec.STATIC, "minari": "view", "robomimic": "view"}
DATA_30 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_30 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA_21 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"


class Frames(NamedTuple):
    """One episode."""

    level: np.ndarray
    """[T] uint8, of the picture."""
    state: np.ndarray
    """[T, 15] float32, of which the first is level / 255."""
    action: np.ndarray
    """[T, 7] float32, of which the first is level / 255."""

    @property
    def pictures(self) -> np.ndarray:
        """[T, SIDE, SIDE, 3] uint8."""
        return np.repeat(self.level, SIDE * SIDE * 3).reshape(-1, SIDE, SIDE, 3)


def frames(number: int, length: int = LENGTH) -> Frames:
    """What episode `number` consists of; every frame is another one."""
    rng, level = np.random.default_rng(number), np.uint8(20 + 2 * (number * length + np.arange(length)))
    state = rng.normal(size=(length, 15)).astype(np.float32)
    action = rng.uniform(-1, 1, (length, 7)).astype(np.float32)
    action[:, 6] = np.sign(action[:, 6])
    state[:, 0] = action[:, 0] = np.float32(level) / 255
    return Frames(level, state, action)


def write(kind: str, root: Path, *, which: Sequence[int] | None = None, validation: Sequence[int] = ()) -> Path:
    """A set, and what it is opened by.

    Args:
        kind: one of FORMATS.
        root: the folder to create.
        which: the content of each episode, by number; four different ones by default.
        validation: which episodes, by their place in `which`, are for validation, where the format can say so.
    """
    chosen = list(range(EPISODES)) if which is None else list(which)
    return WRITERS[kind](root, [frames(n) for n in chosen], list(validation))


def _calvin(root: Path, made: Sequence[Frames], validation: Sequence[int]) -> Path:
    ranges: dict[str, list[tuple[int, int]]] = {}
    first = 0
    for number, episode in enumerate(made):
        folder = root / ("validation" if number in validation else "training")
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(len(episode.level)):
            np.savez(
                folder / f"episode_{first + i:07d}.npz",
                rgb_static=episode.pictures[i],
                rgb_gripper=episode.pictures[i],
                robot_obs=np.float64(episode.state[i]),
                scene_obs=np.zeros(24),
                rel_actions=np.float64(episode.action[i]),
            )
        ranges.setdefault(folder.name, []).append((first, first + len(episode.level) - 1))
        first += len(episode.level)
    for split, of in ranges.items():
        np.save(root / split / "ep_start_end_ids.npy", np.array(of))
        language = {"task": ["lift"] * len(of), "ann": ["lift it"] * len(of)}
        annotated = {"language": language, "info": {"indx": of, "episodes": []}}
        (root / split / "lang_annotations").mkdir()
        np.save(root / split / "lang_annotations/auto_lang_ann.npy", np.array(annotated, dtype=object))
    return root


def _store(root: Path, made: Sequence[Frames], validation: Sequence[int]) -> Path:
    with StoreWriter(root, image_size=SIDE, source="test", renderer="none") as writer:
        for number, episode in enumerate(made):
            images = dict.fromkeys(spec.CAMERAS, episode.pictures)
            scene = np.zeros((len(episode.level), 24), np.float32)
            writer.add_episode(
                images | {spec.ROBOT: episode.state, spec.SCENE: scene, spec.ACTION: episode.action},
                kind="demo",
                split="validation" if number in validation else "training",
                segments=[Segment("lift", 0, len(episode.level))],
            )
    return root


def rows(episode: Frames, number: int, before: int, columns: Mapping[str, Any] | None = None) -> Any:
    """A LeRobot table."""
    pa = pytest.importorskip("pyarrow")
    length = len(episode.level)
    pictures = [{"bytes": png(picture), "path": ""} for picture in episode.pictures]
    return pa.table(
        {
            "observation.state": pa.array(list(episode.state), pa.list_(pa.float32(), 15)),
            "action": pa.array(list(episode.action), pa.list_(pa.float32(), 7)),
            "observation.images.view": pa.array(pictures),
            "timestamp": np.float32(np.arange(length) / FPS),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, number),
            "index": before + np.arange(length),
            "task_index": np.zeros(length, np.int64),
            **(columns or {}),
        }
    )


def _info(root: Path, made: Sequence[Frames], validation: Sequence[int], version: str, **more: Any) -> None:
    features = {
        "observation.state": {"dtype": "float32", "shape": [15], "names": None},
        "action": {"dtype": "float32", "shape": [7], "names": None},
        "observation.images.view": {"dtype": "image", "shape": [SIDE, SIDE, 3], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    splits = {"train": f"0:{len(made) - len(validation)}", "val": f"{len(made) - len(validation)}:{len(made)}"}
    about = {
        "codebase_version": version, "fps": FPS, "chunks_size": 1000, "total_episodes": len(made), "splits": splits,
        "total_frames": sum(len(e.level) for e in made), "features": features, **more,
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(about))


def _lerobot_21(root: Path, made: Sequence[Frames], validation: Sequence[int]) -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    _info(root, made, validation, "v2.1", data_path=DATA_21, video_path=None)
    lines = [{"episode_index": n, "length": len(e.level), "tasks": ["lift"]} for n, e in enumerate(made)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "lift"}))
    for number, episode in enumerate(made):
        table = rows(episode, number, number * LENGTH)
        parquet.write_table(table, root / f"data/chunk-000/episode_{number:06d}.parquet")
    return root


def _lerobot_30(root: Path, made: Sequence[Frames], validation: Sequence[int]) -> Path:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    _info(root, made, validation, "v3.0", data_path=DATA_30, video_path=VIDEO_30)
    tables = [rows(episode, number, number * LENGTH) for number, episode in enumerate(made)]
    parquet.write_table(pa.concat_tables(tables), root / "data/chunk-000/file-000.parquet")
    lines = [
        {"episode_index": n, "length": LENGTH, "tasks": ["lift"], "dataset_from_index": n * LENGTH,
         "data/chunk_index": 0, "data/file_index": 0}
        for n in range(len(made))
    ]  # fmt: skip
    parquet.write_table(pa.Table.from_pylist(lines), root / "meta/episodes/chunk-000/file-000.parquet")
    named = pa.table({"task_index": pa.array([0]), "task": pa.array(["lift"])})
    parquet.write_table(named, root / "meta/tasks.parquet")
    return root


def _minari(root: Path, made: Sequence[Frames], validation: Sequence[int]) -> Path:
    """The last action of an episode is not kept: the observation after it is its last frame."""
    h5py = pytest.importorskip("h5py")
    assert not validation
    (root / "data").mkdir(parents=True)
    spaces = {"view": box([SIDE, SIDE, 3], "uint8", 0, 255), "state": box([15], "float32")}
    about = {
        "total_episodes": len(made), "data_format": "hdf5", "env_spec": json.dumps({"id": "lift"}),
        "observation_space": json.dumps({"type": "Dict", "subspaces": spaces}),
        "action_space": json.dumps(box([7], "float32", -1, 1)),
    }  # fmt: skip
    (root / "data/metadata.json").write_text(json.dumps(about))
    with h5py.File(root / "data/main_data.hdf5", "w") as file:
        for number, episode in enumerate(made):
            group = file.create_group(f"episode_{number}")
            group["observations/view"], group["observations/state"] = episode.pictures, episode.state
            group["actions"] = episode.action[:-1]
    return root


def _robomimic(root: Path, made: Sequence[Frames], validation: Sequence[int]) -> Path:
    h5py = pytest.importorskip("h5py")
    root.mkdir(parents=True)
    with h5py.File(root / "demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "lift", "env_kwargs": {"control_freq": 20}})
        for number, episode in enumerate(made):
            demo = data.create_group(f"demo_{number}")
            demo["actions"], demo.attrs["num_samples"] = episode.action, len(episode.level)
            demo["obs/state"], demo["obs/view_image"] = episode.state, episode.pictures
        names = [f"demo_{n}".encode() for n in range(len(made))]
        file["mask/valid"] = np.array([names[n] for n in validation], dtype="S8")
        file["mask/train"] = np.array([name for n, name in enumerate(names) if n not in validation], dtype="S8")
    return root / "demo.hdf5"


WRITERS: dict[str, Callable[[Path, Sequence[Frames], Sequence[int]], Path]] = {
    "calvin": _calvin,
    "store": _store,
    "lerobot 2.1": _lerobot_21,
    "lerobot 3.0": _lerobot_30,
    "minari": _minari,
    "robomimic": _robomimic,
}


# ---- LeRobot 3.0 with one video


def filmed(root: Path, times: Sequence[float], *, frames_of_file: int = 60, index: Sequence[int] = (0, 20, 40)) -> Path:
    """Episodes of 20 frames in one video whose frame i has the grey level 10 + 4 i, at times given in frames."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    key, numbers = "observation.images.view", [n // 20 for n in index]
    for folder in ("meta/episodes/chunk-000", "data/chunk-000", f"videos/{key}/chunk-000"):
        (root / folder).mkdir(parents=True)
    film(root / f"videos/{key}/chunk-000/file-000.mp4", 10 + 4 * np.arange(frames_of_file))
    count = 20 * len(numbers)
    table = {
        "action": pa.array([[0.0] * 7] * count, pa.list_(pa.float32())),
        "frame_index": np.tile(np.arange(20), len(numbers)),
        "episode_index": np.repeat(numbers, 20),
        "index": np.arange(count),
    }
    parquet.write_table(pa.table(table), root / "data/chunk-000/file-000.parquet")
    lines = {
        "episode_index": numbers, "length": [20] * len(numbers), "tasks": [["lift"]] * len(numbers),
        "dataset_from_index": list(index), "data/chunk_index": [0] * len(numbers),
        "data/file_index": [0] * len(numbers), f"videos/{key}/chunk_index": [0] * len(numbers),
        f"videos/{key}/file_index": [0] * len(numbers),
        f"videos/{key}/from_timestamp": [time / FPS for time in times],
    }  # fmt: skip
    parquet.write_table(pa.table(lines), root / "meta/episodes/chunk-000/file-000.parquet")
    features = {key: {"dtype": "video", "shape": [64, 64, 3]}, "action": {"dtype": "float32", "shape": [7]}}
    about = {
        "codebase_version": "v3.0", "fps": FPS, "total_episodes": len(numbers), "total_frames": count,
        "data_path": DATA_30, "video_path": VIDEO_30, "features": features,
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(about))
    return root


def film(path: Path, levels: np.ndarray) -> None:
    """A video of grey pictures."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv420p", {"g": "2", "crf": "10"}
        for level in levels:
            picture = np.full((64, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())

"""Tiny data sets in the formats of others, written from scratch as their documentation says, for tests of readers.

Every builder returns what is in the set: per episode, the arrays that a reader has to find.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldaction import spec

Episodes = list[dict[str, np.ndarray]]
LENGTHS = (5, 3, 6)
TASKS = ("open the drawer", "push")


def ramp(seed: int, length: int, height: int, width: int) -> np.ndarray:
    """Smooth images [T, H, W, 3] that differ from frame to frame."""
    phase = np.random.default_rng(seed).uniform(0, 255, 3)
    rows, columns = np.mgrid[:height, :width]
    ground = (3 * rows + 2 * columns)[None, :, :, None] + phase
    return np.uint8((ground + 17 * np.arange(length)[:, None, None, None]) % 200 + 20)


def episodes(
    lengths: Sequence[int] = LENGTHS, *, robot: int = 4, scene: int = 2, action: int = 3, cameras: Any = None
) -> Episodes:
    """Episodes with random vectors and smooth images."""
    made = []
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(number)
        vectors = {
            spec.ROBOT: rng.normal(size=(length, robot)).astype(np.float32),
            spec.SCENE: rng.normal(size=(length, scene)).astype(np.float32),
            spec.ACTION: rng.uniform(-1, 1, (length, action)).astype(np.float32),
        }
        shapes = {"top": (16, 24), "wrist": (16, 16)} if cameras is None else cameras
        images = {name: ramp(100 * number + i, length, *shape) for i, (name, shape) in enumerate(shapes.items())}
        made.append({key: value for key, value in vectors.items() if value.shape[1]} | images)
    return made


# --- LeRobot ----------------------------------------------------------------------------------------------------------


def png(image: np.ndarray) -> bytes:
    """An image as a file in memory."""
    pillow = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    pillow.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def encode(path: Path, images: np.ndarray, rate: int, options: dict[str, str] | None = None) -> None:
    """A video without loss, which every frame of is decoded alike."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate, options=options or {"qp": "0", "g": "2"})
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "rgb24"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def features(made: Episodes, *, videos: bool) -> dict[str, Any]:
    """The features of `meta/info.json`."""
    first, kind = made[0], "video" if videos else "image"
    names = {"observation.state": spec.ROBOT, "observation.environment_state": spec.SCENE, "action": spec.ACTION}
    found: dict[str, Any] = {
        name: {"dtype": "float32", "shape": [first[key].shape[1]], "names": None} for name, key in names.items()
    }
    for camera in ("top", "wrist"):
        shape = list(first[camera].shape[1:])
        about = {"video.fps": 10.0, "video.codec": "h264", "video.is_depth_map": False, "has_audio": False}
        found[f"observation.images.{camera}"] = {
            "dtype": kind, "shape": shape, "names": ["height", "width", "channel"], "info": about,
        }  # fmt: skip
    found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        found[name] = {"dtype": "int64", "shape": [1], "names": None}
    return found


def table(made: Episodes, number: int, tasks: Sequence[int], *, videos: bool, rate: int) -> Any:
    """The rows of one episode."""
    pa = pytest.importorskip("pyarrow")
    episode = made[number]
    length, before = len(episode[spec.ACTION]), sum(len(e[spec.ACTION]) for e in made[:number])

    def lists(array: np.ndarray) -> Any:
        return pa.array(list(array), pa.list_(pa.float32(), array.shape[1]))

    columns = {
        "observation.state": lists(episode[spec.ROBOT]),
        "observation.environment_state": lists(episode[spec.SCENE]),
        "action": lists(episode[spec.ACTION]),
        "timestamp": pa.array(np.arange(length, dtype=np.float32) / rate),
        "frame_index": pa.array(np.arange(length)),
        "episode_index": pa.array(np.full(length, number)),
        "index": pa.array(before + np.arange(length)),
        "task_index": pa.array(list(tasks), pa.int64()),
    }
    for camera in () if videos else ("top", "wrist"):
        images = [{"bytes": png(image), "path": f"frame-{i:06d}.png"} for i, image in enumerate(episode[camera])]
        columns[f"observation.images.{camera}"] = pa.array(images)
    return pa.table(columns)


# which task each frame of each episode is about
FRAME_TASKS = ((0,) * 5, (0, 1, 1), (1,) * 6)


def info(made: Episodes, version: str, *, videos: bool, rate: int) -> dict[str, Any]:
    """`meta/info.json`."""
    frames = sum(len(e[spec.ACTION]) for e in made)
    return {
        "codebase_version": version, "robot_type": "so100", "total_episodes": len(made), "total_frames": frames,
        "total_tasks": 2, "chunks_size": 1000, "fps": rate, "splits": {"train": "0:2", "val": "2:3"},
        "features": features(made, videos=videos),
    }  # fmt: skip


def write_v21(root: Path, *, videos: bool = True, rate: int = 10) -> Episodes:
    """LeRobotDataset v2.1: one parquet file and one video a camera for every episode."""
    parquet = pytest.importorskip("pyarrow.parquet")
    made = episodes()
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    about = info(made, "v2.1", videos=videos, rate=rate) | {
        "total_chunks": 1,
        "total_videos": 6 if videos else 0,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(about))
    lines = []
    for number, episode in enumerate(made):
        part = table(made, number, FRAME_TASKS[number], videos=videos, rate=rate)
        parquet.write_table(part, root / f"data/chunk-000/episode_{number:06d}.parquet")
        tasks = [TASKS[i] for i in sorted(set(FRAME_TASKS[number]))]
        lines.append({"episode_index": number, "tasks": tasks, "length": len(episode[spec.ACTION])})
        for camera in ("top", "wrist") if videos else ():
            path = f"videos/chunk-000/observation.images.{camera}/episode_{number:06d}.mp4"
            encode(root / path, episode[camera], rate)
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    named = [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in named))
    (root / "meta/episodes_stats.jsonl").write_text("")
    return made


def write_v30(root: Path, *, videos: bool = True, rate: int = 10) -> Episodes:
    """LeRobotDataset v3.0: episodes 0 and 1 in the first file of rows, 2 in a second; all in one video a camera."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    made = episodes()
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    about = info(made, "v3.0", videos=videos, rate=rate) | {
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if videos else None,
    }
    (root / "meta/info.json").write_text(json.dumps(about))
    (root / "meta/stats.json").write_text("{}")
    parts = [table(made, number, FRAME_TASKS[number], videos=videos, rate=rate) for number in range(len(made))]
    with parquet.ParquetWriter(root / "data/chunk-000/file-000.parquet", parts[0].schema) as file:
        file.write_table(parts[0])
        file.write_table(parts[1])
    parquet.write_table(parts[2], root / "data/chunk-000/file-001.parquet")
    lines = []
    for number, episode in enumerate(made):
        length, before = len(episode[spec.ACTION]), sum(len(e[spec.ACTION]) for e in made[:number])
        line: dict[str, Any] = {
            "episode_index": number, "tasks": [TASKS[i] for i in sorted(set(FRAME_TASKS[number]))], "length": length,
            "data/chunk_index": 0, "data/file_index": number // 2,
            "dataset_from_index": before, "dataset_to_index": before + length,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, "stats/action/mean": [0.0],
        }  # fmt: skip
        for camera in ("top", "wrist") if videos else ():
            key = f"videos/observation.images.{camera}"
            line |= {f"{key}/chunk_index": 0, f"{key}/file_index": 0}
            line |= {f"{key}/from_timestamp": before / rate, f"{key}/to_timestamp": (before + length) / rate}
        lines.append(line)
    parquet.write_table(pa.Table.from_pylist(lines), root / "meta/episodes/chunk-000/file-000.parquet")
    # as pandas writes a frame whose index is called "task"
    named = pa.table({"task_index": pa.array([0, 1]), "task": pa.array(list(TASKS))})
    parquet.write_table(named, root / "meta/tasks.parquet")
    for camera in ("top", "wrist") if videos else ():
        path = root / f"videos/observation.images.{camera}/chunk-000/file-000.mp4"
        encode(path, np.concatenate([episode[camera] for episode in made]), rate)
    return made


# --- HDF5 -------------------------------------------------------------------------------------------------------------


def write_robomimic(path: Path) -> Episodes:
    """robomimic: demos 0, 2 and 10, of which the last is for validation and was no success."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    made = episodes(cameras={"agentview": (16, 24), "robot0_eye_in_hand": (16, 16)})
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        arguments = {"env_name": "Lift", "env_type": 1, "env_kwargs": {"control_freq": 20}}
        data.attrs["env_args"] = json.dumps(arguments)
        data.attrs["total"] = sum(LENGTHS)
        for name, episode in zip(("demo_0", "demo_2", "demo_10"), made, strict=True):
            demo = data.create_group(name)
            length = len(episode[spec.ACTION])
            demo.attrs["num_samples"] = length
            demo["actions"] = episode[spec.ACTION].astype(np.float64)
            demo["states"] = np.zeros((length, 9))
            demo["rewards"] = np.eye(1, length, length - 1)[0] * (name != "demo_10")
            demo["dones"] = demo["rewards"][:].astype(np.int64)
            obs = demo.create_group("obs")
            obs["robot0_eef_pos"] = episode[spec.ROBOT][:, :3].astype(np.float64)
            obs["robot0_gripper_qpos"] = episode[spec.ROBOT][:, 3:].astype(np.float64)
            obs["object"] = episode[spec.SCENE].astype(np.float64)
            for camera in ("agentview", "robot0_eye_in_hand"):
                obs.create_dataset(f"{camera}_image", data=episode[camera], compression="gzip")
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
        file["mask/valid"] = np.array([b"demo_10"])
    return made


def box(shape: Sequence[int], dtype: str = "float64", low: float = -9, high: float = 9) -> dict[str, Any]:
    """A Box as Minari writes it."""
    bounds = {name: np.full(shape, value).tolist() for name, value in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **bounds}


def write_minari(root: Path) -> Episodes:
    """Minari: T actions and T + 1 observations; the first episode is no success."""
    h5py = pytest.importorskip("h5py")
    (root / "data").mkdir(parents=True)
    made = episodes(scene=0, cameras={"pixels": (16, 24)})
    spaces = {"goal": box([1]), "pixels": box([16, 24, 3], "uint8", 0, 255), "state": box([3])}
    about = {
        "total_episodes": 3, "total_steps": sum(LENGTHS) - 3, "data_format": "hdf5", "jpeg_encoding": True,
        "observation_space": json.dumps({"type": "Dict", "subspaces": spaces}),
        "action_space": json.dumps(box([3], "float32", -1, 1)),
        "env_spec": json.dumps({"id": "Reach-v1", "kwargs": {}}), "dataset_id": "tests/reach-v0",
    }  # fmt: skip
    (root / "data/metadata.json").write_text(json.dumps(about))
    with h5py.File(root / "data/main_data.hdf5", "w", track_order=True) as file:
        for number, episode in enumerate(made):
            group = file.create_group(f"episode_{number}")
            group["observations/goal"] = episode[spec.ROBOT][:, :1].astype(np.float64)
            group["observations/state"] = episode[spec.ROBOT][:, 1:].astype(np.float64)
            group["observations/pixels"] = episode["pixels"]
            group["actions"] = episode[spec.ACTION][:-1]
            steps = len(episode[spec.ACTION]) - 1
            for name in ("rewards", "terminations", "truncations"):
                group[name] = np.zeros(steps)
            group["infos/success"] = np.arange(steps + 1) == (-1 if number == 0 else steps)
    for episode in made:
        episode[spec.ACTION][-1] = 0
    return made

"""What feeds the networks: steps of the simulator, and windows of recorded play read from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gymnasium
import numpy as np
from torchrl.data import LazyMemmapStorage, SliceSampler, TensorDictReplayBuffer

import envs
from experiments.bench.base import Windows, Work
from worldaction.play.store import PlayStore
from worldaction.play.windows import window_batches
from worldaction.play.writers.store import StoreWriter
from worldaction.spec import ACTION, ROBOT, ROBOT_SIZE, SCENE, SCENE_SIZE, STATIC

STEPS = 50
"""Steps of an episode that are timed together with its reset."""


def simulator(*, image: int, seed: int = 0) -> Mapping[str, Work]:
    """The play table with two cameras, and without any; amounts in control steps.

    Args:
        image: side of both images.
        seed: of the actions and start states.
    """
    actions = np.random.default_rng(seed).uniform(-1, 1, (STEPS, 7)).astype(np.float32)

    def work(cameras: bool) -> Work:
        table = gymnasium.make(envs.PLAY_TABLE_ID, image_size=image, max_steps=10 * STEPS, cameras=cameras)

        def run() -> None:
            table.reset(seed=seed)
            for action in actions:
                table.step(action)

        drawn_by = table.unwrapped.renderer  # type: ignore[attr-defined]
        about = f"two cameras of {image} x {image} pixels, {drawn_by}" if cameras else "without cameras"
        return Work(run, STEPS, f"PlayTable, {about}; random actions, resets included", True, "-")

    return {"ours, with pixels": work(True), "ours, without pixels": work(False)}


def loading(folder: Path, windows: Windows, *, episodes: int = 20, length: int = 200) -> Mapping[str, Work]:
    """Windows of one camera from the same frames: by this library's store and by TorchRL's replay; amounts in frames.

    Args:
        folder: empty, for the frames of both.
        windows: batch, length and image size.
        episodes: how many there are.
        length: frames of each.
    """
    store = _store(folder / "store", windows, episodes=episodes, length=length)
    batches = window_batches(store, batch=windows.batch, length=windows.length, seed=windows.seed)
    sampler = SliceSampler(slice_len=windows.length, traj_key="episode", init_key=None, truncated_key=None)
    buffer = TensorDictReplayBuffer(
        storage=LazyMemmapStorage(episodes * length, scratch_dir=str(folder / "replay")),
        sampler=sampler,
        batch_size=windows.frames,
    )
    buffer.extend(store.frames.clone())
    frames = f"{windows.batch} windows of {windows.length} frames, memory-mapped"
    return {
        "ours": Work(batches.sample, windows.frames, f"its WindowSampler: {frames}", True, "-"),
        "TorchRL": Work(buffer.sample, windows.frames, f"its SliceSampler, LazyMemmapStorage: {frames}", False, "-"),
    }


def _store(path: Path, windows: Windows, *, episodes: int, length: int) -> PlayStore:
    rng, side = np.random.default_rng(windows.seed), windows.image
    with StoreWriter(path, image_size=side, source="benchmark", renderer="none") as out:
        for _ in range(episodes):
            frames: dict[str, np.ndarray] = {
                STATIC: rng.integers(0, 256, (length, side, side, 3), dtype=np.uint8),
                ROBOT: np.zeros((length, ROBOT_SIZE), np.float32),
                SCENE: np.zeros((length, SCENE_SIZE), np.float32),
                ACTION: rng.uniform(-1, 1, (length, 7)).astype(np.float32),
            }
            out.add_episode(frames, kind="play")
    return PlayStore.open(path)

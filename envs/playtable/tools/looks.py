"""Can a small network tell the table's states apart in small images? How far are the images from CALVIN's own?

worldaction table looks
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.playtable.env import PlayTableEnv
from envs.playtable.scenes import SCENES
from envs.playtable.stress import stressed
from envs.tasks import RANGES, get_task
from worldaction.config import StressConfig
from worldaction.errors import UserError
from worldaction.io.pictures import contact_sheet
from worldaction.play.images import area_mean
from worldaction.play.readers.npz import open_npz
from worldaction.spec import CAMERAS, ROBOT, SCENE

Images = NDArray[np.uint8]

STATES: Final = {
    "drawer open": "open_drawer",
    "slider left": "move_slider_left",
    "bulb on": "turn_on_lightbulb",
    "led on": "turn_on_led",
}
"""What is asked of an image, and the task that makes it so."""
EPOCHS, BATCH, LR = 12, 64, 2e-3
HELD_OUT: Final = 0.25
SWITCHES: Final[tuple[dict[str, Any], ...]] = (
    {}, {"positions": 1.0}, {"distractors": 0.5}, {"distractors": 1.0}, {"colours": 0.5}, {"colours": 1.0},
)  # fmt: skip
SHEET: Final = 200
"""Side of a picture on the contact sheet (pixels)."""


def draw_values(scene: str, label: Sequence[bool], rng: np.random.Generator) -> dict[str, float]:
    """Values of slider, drawer, switch (m) and led: where a task has been done, or where it starts.

    Args:
        scene: name of the scene.
        label: for each of `STATES`, whether it holds.
        rng: draws the values.
    """
    values = {}
    for name, done in zip(STATES.values(), label, strict=True):
        task = get_task(name, scene)
        low, high = task.start
        if done:
            # done from every start; a light is on beyond the trigger of its joint
            end = RANGES[task.joint] + task.extra
            low, high = (high + task.delta, end) if task.joint == task.field else (0.08, 0.088)
        values[task.joint] = float(done) if task.joint == "led" else float(rng.uniform(low, high))
    return values


def draw_states(scene: str, count: int, *, size: int, seed: int, renderer: str = "auto") -> tuple[Images, NDArray[Any]]:
    """Images of random states: every state of every part, the arm and the blocks where episodes start.

    Args:
        scene: name of the scene.
        count: how many images N.
        size: their side (pixels).
        seed: names the states.
        renderer: what draws them.

    Returns:
        images [N, size, size, 3] of the static camera, and labels [N, 4] bool in the order of `STATES`.
    """
    env = PlayTableEnv(image_size=size, renderer=renderer, scene=scene)
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=(count, len(STATES))).astype(bool)
    images = []
    for number, label in enumerate(labels):
        values = draw_values(scene, label, rng)
        # a number of its own for every state, apart for every seed
        start = {"scene": values, "task": "open_drawer"}
        images.append(env.reset(seed=seed * count + number, options=start)[0][CAMERAS[0]])
    return np.stack(images), labels


def network(outputs: int) -> nn.Module:
    """Three convolutions and a linear layer, for images [B, 3, 64, 64]."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 4, 2, 1),
        nn.ReLU(), nn.Flatten(), nn.LazyLinear(outputs),
    )  # fmt: skip


def told_apart(images: Images, labels: NDArray[Any], *, seed: int) -> dict[str, float]:
    """Trains the network on a part of the images and reads the others.

    Args:
        images: [N, H, W, 3].
        labels: [N, L] bool.
        seed: of the network and of the order.

    Returns:
        share of the held-out images read rightly, for each of `STATES`.

    Raises:
        UserError: too few images to learn from.
    """
    if len(images) * (1 - HELD_OUT) < BATCH:
        raise UserError(f"{len(images)} images are too few to learn from; give 100 or more")
    torch.manual_seed(seed)
    # [N, 3, H, W]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5
    target = torch.from_numpy(labels).float()
    held_out = round(len(images) * HELD_OUT)
    model = _fit(pixels[held_out:], target[held_out:], torch.Generator().manual_seed(seed))
    with torch.no_grad():
        right = (model(pixels[:held_out]) > 0) == target[:held_out].bool()
    return dict(zip(STATES, right.float().mean(0).tolist(), strict=True))


def _fit(pixels: Tensor, target: Tensor, generator: torch.Generator) -> nn.Module:
    model = network(target.shape[1])
    model(pixels[:1])
    steps = EPOCHS * (len(pixels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(pixels), (BATCH,), generator=generator)
        loss = nn.functional.binary_cross_entropy_with_logits(model(pixels[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def draw_scenes(path: Path, *, renderer: str = "auto") -> None:
    """Writes the contact sheet: each scene at rest, with everything changed, small, and from the gripper."""
    frames, names = [], []
    for name in SCENES:
        for label, size, camera, what in (
            (False, SHEET, 0, "at rest"),
            (True, SHEET, 0, "changed"),
            (True, 64, 0, "64 pixels"),
            (False, SHEET, 1, "gripper"),
        ):
            env = PlayTableEnv(image_size=size, renderer=renderer, scene=name)
            values = draw_values(name, [label] * len(STATES), np.random.default_rng(0))
            image = env.reset(seed=3, options={"scene": values, "task": "open_drawer"})[0][CAMERAS[camera]]
            # [SHEET, SHEET, 3], pixels repeated
            nearest = np.arange(SHEET) * size // SHEET
            frames.append(image[nearest][:, nearest])
            names.append(f"{name}: {what}")
    contact_sheet(np.stack(frames), path, names=names, columns=4, count=len(frames))


def draw_switches(path: Path, *, renderer: str = "auto") -> None:
    """Writes what the stress switches that are seen do to three starts of scene D."""
    frames, names = [], []
    for switch in SWITCHES:
        config = StressConfig(**switch)
        for seed in range(1, 4):
            env = stressed(PlayTableEnv(image_size=SHEET, renderer=renderer), config)
            frames.append(env.reset(seed=seed)[0][CAMERAS[0]])
            names.append(", ".join(f"{name} {value}" for name, value in switch.items()) or "all off")
    contact_sheet(np.stack(frames), path, names=names, columns=6, count=len(frames))


class Likeness(NamedTuple):
    """How like two images are, on average over states."""

    error: float
    """Mean absolute difference (levels of 255)."""
    correlation: float
    """Of all pixels and colours of an image."""


def beside_calvin(folder: Path, *, every: int = 12, renderer: str = "auto") -> dict[str, Likeness]:
    """Our images of recorded states of scene D beside the recorded ones.

    Args:
        folder: with CALVIN's episode_*.npz in it or below, images as CALVIN stores them.
        every: frames from one to the next.
        renderer: what draws ours.

    Returns:
        likeness of each camera's images.

    Raises:
        UserError: there are no frames.
    """
    paths = sorted(folder.rglob("episode_*.npz"))[::every]
    if not paths:
        raise UserError(f"no episode_*.npz in {folder}; give a data set of CALVIN")
    likenesses: dict[str, list[Likeness]] = {camera: [] for camera in CAMERAS}
    env = PlayTableEnv(image_size=SHEET, renderer=renderer)
    for path in paths:
        with open_npz(path) as frame:
            ours = env.reset(seed=0, options={ROBOT: frame[ROBOT], SCENE: frame[SCENE]})[0]
            for camera in CAMERAS:
                small, theirs = area_mean(ours[camera][None], len(frame[camera]))[0].astype(float), frame[camera]
                correlation = np.corrcoef(small.ravel(), theirs.ravel())[0, 1]
                likenesses[camera].append(Likeness(np.abs(small - theirs).mean(), correlation))
    return {camera: Likeness(*np.mean(values, axis=0).tolist()) for camera, values in likenesses.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, and writes the pictures if asked to."""
    parser = argparse.ArgumentParser(
        prog="worldaction table looks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--states", type=int, default=2400, help="images per scene, a quarter of them held out")
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), help="scenes to read")
    parser.add_argument("--picture", type=Path, help="write a contact sheet of the scenes to this PNG")
    parser.add_argument("--switches", type=Path, help="write one of the stress switches to this PNG")
    parser.add_argument("--beside", type=Path, help="a recording of CALVIN's scene D to compare with, and nothing else")
    parser.add_argument("--every", type=int, default=12, help="frames of the recording from one to the next")
    options = parser.parse_args(arguments)
    if options.picture is not None:
        draw_scenes(options.picture)
    if options.switches is not None:
        draw_switches(options.switches)
    if options.beside is not None:
        for camera, likeness in beside_calvin(options.beside, every=options.every).items():
            print(f"{camera:<12} differs by {likeness.error:.1f} of 255, correlation {likeness.correlation:.3f}")
        return
    print(f"{'scene':<6} " + " ".join(f"{name:>12}" for name in STATES))
    for scene in options.scenes:
        rates = told_apart(*draw_states(scene, options.states, size=options.size, seed=0), seed=0)
        print(f"{scene:<6} " + " ".join(f"{rate:>12.2%}" for rate in rates.values()))

"""world model --> fidelity: what a trained world model is worth, measured on play that it was not trained on.

docs/metrics.md says what each number means.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from experiments.report.video import open_loop_video
from experiments.stages.world_model import open_world_model
from experiments.study.checks import CONTEXT, measured
from experiments.study.run import Run
from worldaction.metrics.fidelity import fidelity
from worldaction.metrics.open_loop import OpenLoop, Rolls, open_loop
from worldaction.metrics.state_probes import probed
from worldaction.play.store import PlayStore
from worldaction.play.windows import WindowSampler
from worldaction.spec import ACTION
from worldaction.world_model.model import DECODER, WorldModel


def measure_world_model(run: Run, seed: int) -> None:
    """Everything that is known of a world model before a policy is trained in it, and a film."""
    artefact = run.fidelity(seed)
    if artefact.complete:
        return
    # claimed before the work, for two runs may share a cache
    folder, options = artefact.folder, run.study.evaluation
    store = PlayStore.open(run.play().path / "store")
    model = open_world_model(run, seed, losses=DECODER)
    rolls = roll_out(model, store, count=options.probes, horizon=options.horizon, seed=seed)
    results = fidelity(rolls, seed=seed)
    if model.draws_images() and model.config.cameras:
        _film(folder, rolls)
    artefact.finish(results)
    run.publish(f"seed{seed}/fidelity", artefact)


def roll_out(model: WorldModel, store: PlayStore, *, count: int, horizon: int, seed: int) -> Rolls:
    """Filter windows of both splits and imagine them open loop.

    Args:
        model: the frozen world model.
        store: play data.
        count: windows of each split.
        horizon: frames imagined.
        seed: of the choice of windows and of the samples.
    """

    def roll(starts: Tensor, context: int) -> OpenLoop:
        return open_loop(model, store.frames, starts, context=context, horizon=horizon, seed=seed)

    length = CONTEXT + horizon
    training, validation = (
        roll(windows(store, split, length, count, seed), CONTEXT) for split in ("training", "validation")
    )
    begins = [e.start for e in store.episodes if e.split == "validation" and e.length > horizon][:count]
    dreams = roll(torch.tensor(begins), 1) if begins else None
    return Rolls(model, store.frames, training, validation, dreams)


def windows(store: PlayStore, split: str, length: int, count: int, seed: int) -> Tensor:
    """First frames of windows of play drawn from a split, [count]."""
    episodes = measured(store.episodes, split)
    sampler = WindowSampler(episodes, length=length, seed=seed)
    index, _ = sampler.sample(None, count * length)
    return index.view(count, length)[:, 0]


def _apart(order: Tensor, frames: Tensor, *, count: int) -> Tensor:
    """The first windows of `order` that share no frame.

    Args:
        order: of windows, [W].
        frames: of each window, consecutive, [W, T].
        count: how many at most.
    """
    chosen: list[int] = []
    for window in order.tolist():
        if all((frames[window, 0] - frames[other, 0]).abs() >= frames.shape[1] for other in chosen):
            chosen.append(window)
    return torch.tensor(chosen[:count])


def _film(folder: Path, rolls: Rolls) -> None:
    """True, imagined and error of the windows in which most happens."""
    model, roll, frames = rolls.model, rolls.validation, rolls.frames
    state = frames[probed(model.config.layout) or ACTION][roll.episodes.frame]
    moved = (state[:, -1] - state[:, CONTEXT]).abs()
    # in shares of what each number has moved at most
    moved = moved / moved.amax(0).clamp_min(1e-6)
    pick = _apart(moved.sum(-1).argsort(descending=True), roll.episodes.frame, count=3)
    pictures = model.decode(model.feature(roll.imagined.index(pick.to(roll.imagined.belief.device))))
    for camera, imagined in pictures.items():
        true = frames[camera][roll.episodes.frame[pick].flatten()].unflatten(0, (len(pick), -1))
        path = folder / f"open_loop-{camera}.mp4"
        names = [f"window {i + 1}" for i in range(len(pick))]
        open_loop_video(true.numpy(), imagined.cpu().numpy(), path, context=CONTEXT, labels=names)

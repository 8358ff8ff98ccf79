"""world model --> fidelity: what a trained world model is worth, measured on play that it was not trained on.

docs/metrics.md says what each number means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from experiments.checks import CONTEXT
from experiments.play import measured
from experiments.run import Run, device
from experiments.video import open_loop_video
from worldaction.metrics.open_loop import (
    SEEN,
    Band,
    OpenLoop,
    image_fidelity,
    open_loop,
)
from worldaction.metrics.probes import auroc, predict, r2, ridge
from worldaction.metrics.tcp_error import (
    dead_reckoning,
    decode_proprio,
    decodes_proprio,
    distance,
    spread,
    tcp_position,
)
from worldaction.play.store import PlayStore
from worldaction.play.windows import WindowSampler
from worldaction.spec import ACTION, CALVIN, ROBOT, SCENE, SCENE_FIELDS, Layout
from worldaction.world_model import WorldModel

PENALTY: Final = 30.0
"""Of the linear probes' squared weights."""


@dataclass(frozen=True)
class Measured:
    """A world model beside play that it was trained on, which probes are fitted on, and play that it was not."""

    model: WorldModel
    store: PlayStore
    training: OpenLoop
    validation: OpenLoop
    dreams: OpenLoop | None
    """Validation episodes of any kind from their first frame, as a dream begins; None if all are too short."""

    @cached_property
    def fitted(self) -> Band:
        """Filtered latents of training play."""
        return self.training.bands(self.model, settled=0)[SEEN]

    @cached_property
    def read(self) -> dict[str, Band]:
        """Latents of validation play."""
        return self.validation.bands(self.model)

    def state(self, key: str, frame: Tensor) -> Tensor:
        """What the store holds for some frames [...], as [..., P]; where the latents are."""
        return self.store.frames[key][frame].to(self.fitted.feature.device)

    def probe(self, key: str) -> Tensor:
        """Weights of a linear probe of something that the store holds."""
        return ridge(self.fitted.feature.flatten(0, 1), self.state(key, self.fitted.frame.flatten()), penalty=PENALTY)


@torch.no_grad()
def measure_world_model(folder: Path, seed: int) -> None:
    """Everything that is known of a world model before a policy is trained in it, and a film."""
    run = Run.open(folder)
    artefact = run.fidelity(seed)
    if artefact.complete:
        return
    options = run.study.evaluation
    store = PlayStore.open(run.play().path / "store")
    model = WorldModel.load(run.world_model(seed).path, losses=("reconstruction",)).to(device(run.study))
    result = measure(model, store, windows_of=options.probes, horizon=options.horizon, seed=seed)
    results = figures(result, seed=seed)
    if model.draws_images() and model.config.cameras:
        _film(run, model, store, result.validation, seed)
    artefact.finish(results)


def measure(model: WorldModel, store: PlayStore, *, windows_of: int, horizon: int, seed: int) -> Measured:
    """Filter windows of both splits and imagine them open loop.

    Args:
        model: the frozen world model.
        store: play data.
        windows_of: windows of each split.
        horizon: frames imagined.
        seed: of the choice of windows and of the samples.
    """

    def roll(starts: Tensor, context: int) -> OpenLoop:
        return open_loop(model, store.frames, starts, context=context, horizon=horizon, seed=seed)

    training, validation = (
        roll(windows(store, split, CONTEXT + horizon, windows_of, seed), CONTEXT)
        for split in ("training", "validation")
    )
    held_out = [e.start for e in store.episodes if e.split == "validation" and e.length > horizon][:windows_of]
    return Measured(model, store, training, validation, roll(torch.tensor(held_out), 1) if held_out else None)


def figures(result: Measured, *, seed: int) -> dict[str, Any]:
    """All measurements, ready for JSON; docs/metrics.md is their schema.

    Args:
        result: see `measure`.
        seed: of what is fitted or drawn at random.
    """
    found: dict[str, Any] = {"probes": _probes(result), "tcp_error": _tcp_error(result)}
    if result.model.draws_images() and result.model.config.cameras:
        fidelity = image_fidelity(result.model, result.store.frames, result.validation)
        found |= {name: {c: v.tolist() for c, v in scores.items()} for name, scores in fidelity.items()}
    return found


def windows(store: PlayStore, split: str, length: int, count: int, seed: int) -> Tensor:
    """First frames of windows of play drawn from a split, [count]."""
    episodes = measured(store.episodes, split)
    sampler = WindowSampler(episodes, length=length, seed=seed)
    index, _ = sampler.sample(None, count * length)
    return index.view(count, length)[:, 0]


def _probes(result: Measured) -> dict[str, dict[str, float]]:
    """What a linear probe reads off latents: seen, imagined up to 8 frames ahead, and the rest of the horizon."""
    if not (key := _probed(result.store)):
        return {}
    weights = result.probe(key)
    return {
        name: _read(weights, band.feature, result.store.frames[key][band.frame], result.store.meta.layout)
        for name, band in result.read.items()
    }


def _tcp_error(result: Measured) -> dict[str, Any]:
    """How far the hand is from where it is believed to be, in mm."""
    if (where := tcp_position(result.store.meta.layout)) is None:
        return {"skipped": "the layout does not say where in robot_obs the position of the hand is"}
    weights = result.probe(ROBOT)[:, where]
    readers: dict[str, Callable[[Tensor], Tensor]] = {"probe": lambda feature: predict(weights, feature)}
    if decodes_proprio(result.model):
        readers["decoder"] = lambda feature: decode_proprio(result.model, feature)[..., where]

    def errors(roll: OpenLoop, bands: Mapping[str, Band]) -> dict[str, Any]:
        true = result.state(ROBOT, roll.episodes.frame)[..., where]
        found = {
            reader: {name: spread(distance(read(band.feature), true[:, band.span])) for name, band in bands.items()}
            for reader, read in readers.items()
        }
        actions, last = result.state(ACTION, roll.episodes.frame), roll.context - 1
        # two guesses that need no model: it stays where it was, and it does at once what it is told; [M, T, 3]
        guesses = {
            "hold": true[:, last, None].expand_as(true),
            "dead_reckoning": torch.cat([true[:, : last + 1], dead_reckoning(true[:, last], actions[:, last:-1])], 1),
        }
        for guess, places in guesses.items():
            ahead = {name: distance(places, true)[:, band.span] for name, band in bands.items() if name != SEEN}
            found[guess] = {name: spread(error) for name, error in ahead.items()}
        return found

    found = errors(result.validation, result.read)
    if (dreams := result.dreams) is not None:
        found["dreams"] = {"episodes": len(dreams.episodes), **errors(dreams, dreams.bands(result.model))}
    return found


def _probed(store: PlayStore) -> str:
    """What the probes read: the privileged state where there is more of it than success, else the proprioception."""
    layout = store.meta.layout
    if layout.scene > 1 or (layout.scene and not layout.robot):
        return SCENE
    return ROBOT if layout.robot else ""


def _read(weights: Tensor, feature: Tensor, true: Tensor, layout: Layout) -> dict[str, float]:
    read, true = predict(weights, feature).flatten(0, 1).cpu(), true.flatten(0, 1)
    if layout.scene != CALVIN.scene:
        return {"r2": float(np.mean([r2(read[:, i], true[:, i]) for i in range(true.shape[1])]))}
    scores = {
        f"r2_{name}": r2(read[:, SCENE_FIELDS[name]], true[:, SCENE_FIELDS[name]])
        for name in ("slider", "drawer", "switch")
    }
    for name in ("lightbulb", "led"):
        scores[f"auroc_{name}"] = auroc(read[:, SCENE_FIELDS[name]], true[:, SCENE_FIELDS[name]] > 0.5)
    return scores


def _film(run: Run, model: WorldModel, store: PlayStore, roll: OpenLoop, seed: int) -> None:
    """True, imagined and error of the windows in which most happens."""
    state = store.frames[_probed(store) or ACTION][roll.episodes.frame]
    moved = (state[:, -1] - state[:, CONTEXT]).abs()
    # in shares of what each number has moved at most
    moved = moved / moved.amax(0).clamp_min(1e-6)
    pick = moved.sum(-1).argsort(descending=True)[:3]
    pictures = model.decode(model.feature(roll.imagined.index(pick.to(roll.imagined.belief.device))))
    for camera, imagined in pictures.items():
        true = store.frames[camera][roll.episodes.frame[pick].flatten()].unflatten(0, (len(pick), -1))
        path = run.folder / "videos" / f"open_loop-seed{seed}-{camera}.mp4"
        names = [f"window {i + 1}" for i in range(len(pick))]
        open_loop_video(true.numpy(), imagined.cpu().numpy(), path, context=CONTEXT, labels=names)

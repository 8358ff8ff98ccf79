"""world model --> fidelity: what a trained world model is worth, measured on play that it was not trained on.

docs/metrics.md says what each number means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from experiments.checks import CONTEXT
from experiments.play import measured
from experiments.run import Run, device
from experiments.video import open_loop_video
from worldaction.metrics.open_loop import image_fidelity, open_loop
from worldaction.metrics.probes import auroc, predict, r2, ridge
from worldaction.play.store import PlayStore
from worldaction.play.windows import WindowSampler
from worldaction.rssm import Latent
from worldaction.spec import ACTION, CALVIN, ROBOT, SCENE, SCENE_FIELDS, Layout
from worldaction.world_model import WorldModel


def measure_world_model(folder: Path, seed: int) -> None:
    """Open-loop fidelity, probes and a film, on play that the model was not trained on."""
    run = Run.open(folder)
    artefact = run.fidelity(seed)
    if artefact.complete:
        return
    options = run.study.evaluation
    store = PlayStore.open(run.play().path / "store")
    model = WorldModel.load(run.world_model(seed).path, losses=("reconstruction",)).to(device(run.study))
    length = CONTEXT + options.horizon
    starts = {split: windows(store, split, length, options.probes, seed) for split in ("training", "validation")}
    rolls = {
        split: open_loop(model, store.frames, where, context=CONTEXT, horizon=options.horizon, seed=seed)
        for split, where in starts.items()
    }
    results: dict[str, Any] = {"probes": _probes(model, store, rolls) if _probed(store) else {}}
    if model.draws_images() and model.config.cameras:
        fidelity = image_fidelity(model, store.frames, rolls["validation"])
        results |= {name: {c: v.tolist() for c, v in scores.items()} for name, scores in fidelity.items()}
        _film(run, model, store, rolls["validation"], seed)
    artefact.finish(results)


def windows(store: PlayStore, split: str, length: int, count: int, seed: int) -> Tensor:
    """First frames of windows of play drawn from a split, [count]."""
    episodes = measured(store.episodes, split)
    sampler = WindowSampler(episodes, length=length, seed=seed)
    index, _ = sampler.sample(None, count * length)
    return index.view(count, length)[:, 0]


def _probes(model: WorldModel, store: PlayStore, rolls: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What a linear probe reads off latents: seen, imagined up to 8 frames ahead, and the rest of the horizon."""
    fitted = rolls["training"]
    # a probe is fitted on filtered latents of training play and read on validation play; [M * T, F]
    seen = model.feature(Latent(*(part[0] for part in fitted.episodes.latent))).flatten(0, 1)
    state = store.frames[_probed(store)]
    weights = ridge(seen, state[fitted.episodes.frame.flatten()].to(seen.device), penalty=30.0)
    test = rolls["validation"]
    filtered = model.feature(Latent(*(part[0] for part in test.episodes.latent)))
    dreamed = model.feature(test.imagined)
    parts = {
        "seen": (filtered, slice(CONTEXT // 2, None)),
        "imagined_8": (dreamed, slice(CONTEXT, CONTEXT + 8)),
        "imagined_late": (dreamed, slice(CONTEXT + 8, None)),
    }
    return {
        name: _read(weights, feature[:, span], state[test.episodes.frame[:, span]], store.meta.layout)
        for name, (feature, span) in parts.items()
        # a short horizon has no late part
        if feature[:, span].shape[1]
    }


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


def _film(run: Run, model: WorldModel, store: PlayStore, roll: Any, seed: int) -> None:
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

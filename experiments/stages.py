"""One function for every arrow: play data --> world model --> latents --> BC --> imagination --> PPO --> evaluation.

Each reads artefacts of the arrows before it, writes its own, does nothing if that is complete, and goes on if it was
interrupted. `conduct` calls them in order; nothing else knows the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs import CALVIN_ID
from experiments.checks import CONTEXT, check_lengths, check_study, model_config, seen_by
from experiments.learn import learn_task
from experiments.play import make_play, measured, open_play
from experiments.pool import run_jobs
from experiments.presets import Study
from experiments.report import console_table, write_report
from experiments.run import LOGGER, Run, device, learns
from experiments.summary import summarise
from experiments.video import open_loop_video
from worldaction.fit import Fit, Interrupted, check_finite, linear_decay
from worldaction.metrics.open_loop import image_fidelity, open_loop
from worldaction.metrics.probes import auroc, predict, r2, ridge
from worldaction.play.store import PlayStore
from worldaction.play.windows import WindowSampler, window_batches
from worldaction.record import Recorder, progress, setup_logging, write_csv
from worldaction.rssm import Latent
from worldaction.spec import (
    ACTION,
    ACTION_MASK,
    CALVIN,
    IS_INIT,
    PREVIOUS_ACTION,
    ROBOT,
    SCENE,
    SCENE_FIELDS,
    Layout,
)
from worldaction.world_model import WorldModel, total

LOG_EVERY = 25
SHARES_EVERY = 250
"""A multiple of LOG_EVERY."""


def conduct(study: Study, resume: Path | None) -> None:
    """Run a study to its report.

    Args:
        study: the settings.
        resume: an existing run to go on with, of these settings.
    """
    asked = study.world_model.cameras
    if resume is None:
        study = seen_by(study)
        check_study(study)
    run = Run.open(resume) if resume is not None else Run.create(study)
    setup_logging(run.log)
    LOGGER.info("run folder %s", run.folder)
    if (cameras := study.world_model.cameras) != asked:
        LOGGER.info("%s is seen through %s", study.play, ", ".join(cameras) or "no camera: it has numbers alone")
    try:
        _stages(run)
    except (Interrupted, KeyboardInterrupt):
        LOGGER.warning("interrupted, nothing is lost; go on with: %s", run.command)
        raise KeyboardInterrupt from None


def _stages(run: Run) -> None:
    study = run.study
    make_play(run)
    check_lengths(study, PlayStore.open(run.play().path / "store").episodes)
    models = [partial(train_world_model, run.folder, s) for s in study.seeds if not run.world_model(s).complete]
    run_jobs(models, _side_by_side(run), log=run.log)
    measurements = [partial(measure_world_model, run.folder, s) for s in study.seeds if not run.fidelity(s).complete]
    run_jobs(measurements, study.workers, log=run.log)
    if learns(study):
        todo = [(s, t) for s in study.seeds for t in study.tasks if not run.task(s, t, "evaluation").complete]
        run_jobs([partial(learn_task, run.folder, seed, task) for seed, task in todo], study.workers, log=run.log)
    else:
        LOGGER.info("recorded play: the world model is measured; policies are trained with --env %s", CALVIN_ID)
    write_csv(run.folder)
    summary = summarise(run)
    write_report(run.folder)
    LOGGER.info("\n%s", console_table(summary))
    LOGGER.info("report: %s", run.folder / "report.html")


def _side_by_side(run: Run) -> int:
    """Processes for world models: on a GPU one after the other, on a CPU one for each seed."""
    return 1 if device(run.study).type == "cuda" else min(run.study.workers, len(run.study.seeds))


# World model ----------------------------------------------------------------------------------------------------------


def train_world_model(folder: Path, seed: int) -> None:
    """play data --> world model."""
    run = Run.open(folder)
    artefact = run.world_model(seed)
    if artefact.complete:
        return
    torch.set_num_threads(run.threads)
    sizes, where = run.study.world_model, device(run.study)
    store = open_play(run)
    torch.manual_seed(seed)
    model = WorldModel(model_config(run.study, store.meta.layout))
    if store.meta.layout.robot:
        model.standardise(store.frames[ROBOT])
    model.to(where)
    keys = [*model.config.observed, PREVIOUS_ACTION, ACTION, IS_INIT]
    keys += [ACTION_MASK] if store.frames.get(ACTION_MASK, None) is not None else []
    batches = window_batches(store, batch=sizes.batch, length=sizes.length, seed=seed, keys=keys)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=sizes.lr, weight_decay=sizes.weight_decay, eps=sizes.eps, fused=True
    )
    fit = Fit(
        model,
        optimizer,
        steps=sizes.steps,
        factor=partial(linear_decay, steps=sizes.steps, warmup=sizes.warmup, decay_from=sizes.decay_from),
        clip=sizes.clip,
        checkpoint=artefact.folder / "checkpoint.safetensors",
        save_every=sizes.save_every,
        also={"batches": batches},
    )

    def loss(step: int) -> tuple[Tensor, Any]:
        batch = as_episode_starts(batches.sample(), store.meta.layout.null_action).to(where, non_blocking=True)
        with torch.autocast(where.type, dtype=torch.bfloat16, enabled=sizes.bf16 and where.type == "cuda"):
            terms, metrics, latents = model.losses_of(batch)
        check_finite(terms, step, batch, artefact.folder)
        # counted as the record counts, by finished steps, or what is computed here would not be recorded
        if step == 0 or (step + 1) % SHARES_EVERY == 0:
            metrics |= model.shares(terms, latents)
        return total(terms), lambda: {key: float(value) for key, value in metrics.items()}

    fit.resume()
    with (
        Recorder(run.folder, f"seed{seed}-world_model") as recorder,
        progress(sizes.steps, f"world model, seed {seed}", "step", initial=fit.step) as bar,
    ):
        recorder.rewind(f"seed{seed}/world_model", fit.step)

        def report(step: int, figures: Mapping[str, float]) -> None:
            for one in model.each_loss().values():
                one.after_step()
            bar.update(1)
            if step % LOG_EVERY == 0 or step == 1:
                recorder.log(step, figures, prefix=f"seed{seed}/world_model")

        fit.run(loss, report)
    model.save(artefact.folder)
    artefact.finish(
        {"parameters": sum(p.numel() for p in model.parameters()), "skipped_frames": batches.skipped_frames}
    )
    fit.discard()


def as_episode_starts(batch: Any, null_action: Sequence[float]) -> Any:
    """Windows [B, T] as if an episode began with each of them: as every dream and every evaluation does."""
    batch[PREVIOUS_ACTION] = batch[PREVIOUS_ACTION].clone()
    batch[PREVIOUS_ACTION][:, 0] = torch.tensor(null_action)
    return batch


# Fidelity -------------------------------------------------------------------------------------------------------------


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

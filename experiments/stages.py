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
from experiments.benchmarks import Benchmark, open_benchmark
from experiments.learn import learn_task
from experiments.play import make_play, open_play
from experiments.pool import run_jobs
from experiments.presets import Study
from experiments.report import console_table, write_report
from experiments.run import LOGGER, Run, device, learns
from experiments.summary import summarise
from experiments.video import open_loop_video
from worldaction.errors import UserError
from worldaction.fit import Fit, Interrupted, check_finite, linear_decay
from worldaction.metrics.open_loop import image_fidelity, open_loop
from worldaction.metrics.probes import auroc, predict, r2, ridge
from worldaction.play.source import open_source
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
from worldaction.world_model import ModelConfig, WorldModel, total

LOG_EVERY = 25
SHARES_EVERY = 250
"""A multiple of LOG_EVERY."""
CONTEXT = 8
"""Frames that are seen before open-loop imagination begins."""


def conduct(study: Study, resume: Path | None) -> None:
    """Run a study to its report.

    Args:
        study: the settings.
        resume: an existing run to go on with, of these settings.
    """
    _check(study, resuming=resume is not None)
    run = Run.open(resume) if resume is not None else Run.create(study)
    setup_logging(run.log)
    LOGGER.info("run folder %s", run.folder)
    try:
        _stages(run)
    except (Interrupted, KeyboardInterrupt):
        LOGGER.warning("interrupted, nothing is lost; go on with: %s", run.command)
        raise KeyboardInterrupt from None


def _check(study: Study, *, resuming: bool) -> None:
    """What cannot work is refused before any data are made."""
    benchmark = open_benchmark(study)
    for task in study.tasks:
        benchmark.check(task)
    if study.play is None:
        benchmark.jobs(study.data, study.tasks)
        # built once for nothing: sizes and losses may not fit
        WorldModel(model_config(study, benchmark.layout))
    elif not resuming:
        WorldModel(model_config(study, open_source(study.play).layout))
    if learns(study):
        _check_start_states(study, benchmark)


def _check_start_states(study: Study, benchmark: Benchmark) -> None:
    """A policy is not tested on the start states of its own curve, nor on another task's."""
    episodes, curve = study.evaluation.episodes, study.evaluation.curve_episodes
    for task in study.tasks:
        total = len(benchmark.starts(task))
        if not 1 <= episodes <= total - curve:
            raise UserError(
                f"--evaluation.episodes {episodes}: give 1 to {total - curve}, "
                f"for there are {total} start states of {task} and the curve takes {curve} "
                "(--evaluation.curve-episodes)"
            )


def _stages(run: Run) -> None:
    study = run.study
    make_play(run)
    _check_lengths(run)
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


def _check_lengths(run: Run) -> None:
    """Episodes are as long as the windows of training and of the measurements, which may be hours later."""
    episodes, horizon = PlayStore.open(run.play().path / "store").episodes, run.study.evaluation.horizon
    play = [e for e in episodes if e.kind == "play"]
    training, validation = ([e for e in play if e.split == split] for split in ("training", "validation"))
    length = run.study.world_model.length
    for option, needed, split, found in (
        (f"--world-model.length {length}", length, "training", [e for e in episodes if e.split == "training"]),
        (f"--evaluation.horizon {horizon}", CONTEXT + horizon, "training", training),
        (f"--evaluation.horizon {horizon}", CONTEXT + horizon, "validation", validation),
    ):
        longest = max((e.length for e in found), default=0)
        if longest < needed:
            raise UserError(
                f"{option} needs episodes of {needed} frames, the longest for {split} has {longest}; "
                "lower it, or take more and longer play"
            )


def _side_by_side(run: Run) -> int:
    """Processes for world models: on a GPU one after the other, on a CPU one for each seed."""
    return 1 if device(run.study).type == "cuda" else min(run.study.workers, len(run.study.seeds))


# World model ----------------------------------------------------------------------------------------------------------


def model_config(study: Study, layout: Layout) -> ModelConfig:
    """The sizes of the study's world model.

    Args:
        study: the settings.
        layout: what a frame of the play data holds.
    """
    sizes = study.world_model
    missing = [camera for camera in sizes.cameras if camera not in layout.cameras]
    if missing:
        cameras = ", ".join(layout.cameras) or "no cameras"
        raise UserError(f"the play data have no {missing[0]!r}; they have {cameras}: set --world-model.cameras")
    return ModelConfig(
        cameras=sizes.cameras,
        image_size=study.table.image_size,
        deter=sizes.deter,
        groups=sizes.groups,
        classes=sizes.classes,
        hidden=sizes.hidden,
        embed=sizes.embed,
        depth=sizes.depth,
        patch=sizes.patch,
        unimix=sizes.unimix,
        burn_in=sizes.burn_in,
        losses=study.losses,
        layout=layout,
    )


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
    results: dict[str, Any] = {"probes": _probes(model, store, rolls)}
    if model.draws_images() and model.config.cameras:
        fidelity = image_fidelity(model, store.frames, rolls["validation"])
        results |= {name: {c: v.tolist() for c, v in scores.items()} for name, scores in fidelity.items()}
        _film(run, model, store, rolls["validation"], seed)
    artefact.finish(results)


def windows(store: PlayStore, split: str, length: int, count: int, seed: int) -> Tensor:
    """First frames of windows of play drawn from a split, [count]."""
    episodes = [e for e in store.episodes if e.split == split and e.kind == "play"]
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
    return SCENE if layout.scene > 1 or not layout.robot else ROBOT


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
    state = store.frames[_probed(store)][roll.episodes.frame]
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

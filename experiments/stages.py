"""One function for every arrow: play data --> world model --> latents --> BC --> imagination --> PPO --> evaluation.

Each reads artefacts of the arrows before it, writes its own, does nothing if that is complete, and goes on if it was
interrupted. `conduct` calls them in order; nothing else knows the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs import CALVIN_ID
from experiments.checks import check_lengths, check_study, model_config, seen_by
from experiments.learn import learn_task
from experiments.measure import measure_world_model
from experiments.play import make_play, open_play
from experiments.pool import run_jobs
from experiments.presets import Study
from experiments.report import console_table, write_report
from experiments.reuse import adopt, unlike
from experiments.run import LOGGER, Run, device, learns
from experiments.summary import summarise
from worldaction.fit import Fit, Interrupted, check_finite, linear_decay
from worldaction.play.store import PlayStore
from worldaction.play.windows import window_batches
from worldaction.record import Recorder, progress, setup_logging, write_csv
from worldaction.spec import (
    ACTION,
    ACTION_MASK,
    IS_INIT,
    PREVIOUS_ACTION,
    ROBOT,
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
    if study.reuse:
        _tell_reused(run)
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
    adopt(run.folder, run.borrowed())
    write_csv(run.folder)
    summary = summarise(run)
    write_report(run.folder)
    LOGGER.info("\n%s", console_table(summary))
    LOGGER.info("report: %s", run.folder / "report.html")


def _tell_reused(run: Run) -> None:
    """Say what need not be made, and where nothing fits, why: hours depend on it."""
    if found := run.borrowed():
        LOGGER.info("read from other runs: %s", ", ".join(found))
    for name in run.study.reuse:
        if not any(origin.is_relative_to(name) for origin in found.values()):
            LOGGER.warning("%s: %s", name, unlike(Path(name), run.artefacts()))


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

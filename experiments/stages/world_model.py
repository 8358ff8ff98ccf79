"""Play data --> world model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial

import torch

from experiments.stages.play import training_play
from experiments.study.run import Run
from worldaction.cuda_graph import Graph
from worldaction.fit import Fit, linear_decay
from worldaction.io.recorder import Recorder, progress
from worldaction.play.prefetch import Ahead, Here
from worldaction.play.windows import window_batches
from worldaction.spec import (
    ACTION,
    ACTION_MASK,
    IS_INIT,
    PREVIOUS_ACTION,
    ROBOT,
)
from worldaction.world_model.model import WorldModel
from worldaction.world_model.training import ModelStep, as_episode_starts

LOG_EVERY = 25
SHARES_EVERY = 250
"""A multiple of LOG_EVERY."""


def train_world_model(run: Run, seed: int) -> None:
    """play data --> world model."""
    artefact = run.world_model(seed)
    if artefact.complete:
        return
    torch.set_num_threads(run.threads)
    sizes, where = run.study.world_model, run.resolved.device
    store = training_play(run)
    torch.manual_seed(seed)
    model = WorldModel(run.resolved.model)
    if store.meta.layout.robot:
        model.standardise(store.frames[ROBOT])
    model.to(where)
    keys = [*model.config.observed, PREVIOUS_ACTION, ACTION, IS_INIT]
    keys += [ACTION_MASK] if store.frames.get(ACTION_MASK, None) is not None else []
    keys += sorted(set().union(*(loss.reads for loss in model.each_loss().values())))
    windows = window_batches(store, batch=sizes.batch, length=sizes.length, seed=seed, keys=keys)
    starts = partial(as_episode_starts, null_action=store.meta.layout.null_action)
    graph = Graph(where) if sizes.graph else None
    step = ModelStep(
        model,
        Ahead(windows, starts, where) if where.type == "cuda" else Here(windows, starts),
        steps=sizes.steps,
        blind=sizes.blind,
        bf16=sizes.bf16,
        looks_every=SHARES_EVERY,
        graphed=graph is not None,
    )
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
        also={"batches": step.batches},
        graph=graph,
    )
    fit.resume()
    with (
        closing(step.batches),
        Recorder(artefact.folder, boards=run.boards) as recorder,
        progress(sizes.steps, f"world model, seed {seed}", "step", initial=fit.step) as bar,
    ):
        recorder.rewind(f"seed{seed}/world_model", fit.step)

        def report(done: int, figures: Mapping[str, float]) -> None:
            for one in model.each_loss().values():
                one.after_step()
            bar.update(1)
            if done % LOG_EVERY == 0 or done == 1:
                recorder.log(done, figures, prefix=f"seed{seed}/world_model")

        fit.run(step.loss, report, draw=step.draw, alike=step.alike)
    model.save(artefact.folder)
    artefact.finish(
        {"parameters": sum(p.numel() for p in model.parameters()), "skipped_frames": windows.skipped_frames}
    )
    fit.discard()

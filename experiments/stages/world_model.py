"""Play data --> world model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from experiments.stages.play import training_play
from experiments.study.run import Run
from worldaction.io.artefact import CHECKPOINT
from worldaction.io.recorder import Recorder, progress
from worldaction.losses.registry import parse
from worldaction.world_model.model import WorldModel
from worldaction.world_model.train import Training

LOG_EVERY = 25
"""Steps between two lines of the record; divides the training's `SHARES_EVERY`."""


def train_world_model(run: Run, seed: int) -> None:
    """play data --> world model."""
    artefact = run.world_model(seed)
    if artefact.complete:
        return
    torch.set_num_threads(run.threads)
    options = run.study.world_model
    if run.before is not None:
        options = replace(options, steps=max(1, round(run.study.real.share * options.steps)))
    training = Training(
        training_play(run, seed),
        run.resolved.model,
        options,
        seed=seed,
        begin=None if run.before is None else open_world_model(run.before, seed, losses=_names(run)),
        device=run.resolved.device,
        checkpoint=artefact.folder / CHECKPOINT,
    )
    name = f"world model, {'juror' if run.held_out else 'seed'} {seed}"
    with (
        Recorder(artefact.folder, boards=run.boards) as recorder,
        progress(options.steps, name, "step", initial=training.step) as bar,
    ):
        recorder.rewind(f"{run.prefix}seed{seed}/world_model", training.step)

        def report(done: int, figures: Mapping[str, float]) -> None:
            bar.update(1)
            if done % LOG_EVERY == 0 or done == 1:
                recorder.log(done, figures, prefix=f"{run.prefix}seed{seed}/world_model")

        training.run(report)
    model = training.model
    model.save(artefact.folder)
    artefact.finish(
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "skipped_frames": training.windows.skipped_frames,
            **({"skipped_steps": training.skipped} if training.skipped else {}),
        }
    )
    training.discard()


def _names(run: Run) -> tuple[str, ...]:
    """Of all losses, whose networks go on, too."""
    return tuple(parse(text).target for text in run.study.losses)


def open_world_model(run: Run, seed: int, *, losses: tuple[str, ...] = ()) -> WorldModel:
    """The trained world model of a run, frozen, where the run computes.

    Args:
        run: whose settings name the core, which is imported if it is the user's own.
        seed: which of its models.
        losses: the losses whose networks are wanted, see `WorldModel.load`.
    """
    folder, core = run.world_model(seed).path, run.study.world_model.core
    return WorldModel.load(folder, losses=losses, core=core).to(run.resolved.device)

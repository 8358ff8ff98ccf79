"""The first arrow: play data, generated in the simulator or read from a recorded data set of any format."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from envs.episodes import Job
from envs.labels import done_instead
from experiments.study.pool import run_jobs
from experiments.study.resolve import naming_model
from experiments.study.run import LOGGER, Run
from experiments.study.settings import Study
from worldaction.errors import UserError
from worldaction.io.recorder import progress
from worldaction.play.action_masking import hide_actions
from worldaction.play.convert import convert, frames
from worldaction.play.held_out import split_attempts
from worldaction.play.outcomes import other_side
from worldaction.play.store import PlayStore, concatenate
from worldaction.pseudo_labels import label_actions
from worldaction.spec import ACTION_MASK, Split

AnyEpisode = TypeVar("AnyEpisode", bound=Any)
SHARD_FRAMES = 4_000
"""About how many frames one shard holds: what is lost at most when generation is interrupted."""
TYPICAL_FRAMES = {"near_miss": 86, "demo": 80}


def make_play(run: Run, *, workers: int) -> None:
    """Make the play store of a run in so many processes, unless it is there."""
    artefact = run.play()
    if artefact.complete:
        return
    path = artefact.folder / "store"
    if run.study.play is not None:
        shutil.rmtree(path, ignore_errors=True)
        source = run.resolved.source
        assert source is not None
        with progress(frames(source), "reading play", "frame") as bar:
            size = run.study.table.image_size
            store = convert(source, path, image_size=size, progress=bar.update, judge=done_instead)
    else:
        store = _generate(run, artefact.folder, path, workers)
    if len(store) == 0:
        raise UserError(f"{run.study.play or path} holds no frames; record some, or give another --play")
    kinds = {kind: sum(e.length for e in store.episodes if e.kind == kind) for kind in ("play", "near_miss", "demo")}
    artefact.finish(
        {"frames": len(store), "kinds": kinds, "renderer": store.meta.renderer, "source": store.meta.source}
    )
    LOGGER.info("play: %d frames, drawn by %s", len(store), store.meta.renderer)


def open_play(run: Run, seed: int | None = None) -> PlayStore:
    """The play store of a run as those see it who learn from it: hidden actions are hidden, and jurors learn from what
    others do not.

    Args:
        run: the run, or a side of it.
        seed: whose, where policies have been recorded.
    """
    store = PlayStore.open(run.play(seed).path / "store")
    store = other_side(store) if run.held_out else store
    return hide_actions(store, run.study.stress.hidden_actions, seed=run.study.data.seed)


def training_play(run: Run, seed: int | None = None) -> PlayStore:
    """What a world model is trained on: play as it is seen, its unknown actions named if a model is to name them.

    Raises:
        UserError: there is no such model, or nothing to name.
    """
    store, folder = open_play(run, seed), run.study.world_model.named_by
    if folder is None:
        return store
    if store.frames.get(ACTION_MASK, None) is None:
        raise UserError(
            f"--world-model.named-by {folder}: all actions of this play are known; leave it out, or hide some with"
            " --stress.hidden-actions"
        )
    return label_actions(store, naming_model(run.study).to(run.resolved.device), trusted=True)


def _generate(run: Run, folder: Path, path: Path, workers: int) -> PlayStore:
    """Make shards side by side, then join them; a shard that is whole is never made twice."""
    study = run.study
    benchmark = run.resolved.benchmark
    shards = _shards(benchmark.jobs(study.data, study.tasks))
    paths = [folder / "shards" / f"{number:04d}" for number in range(len(shards))]
    if not path.exists():
        # made ready once, here: all shards must be drawn alike
        benchmark = benchmark.ready(folder, study.tasks)
        jobs = [
            partial(benchmark.generate, where, jobs, data=study.data)
            for where, jobs in zip(paths, shards, strict=True)
            if not where.exists()
        ]
        with progress(len(shards), "play data", "shard", initial=len(shards) - len(jobs)) as bar:
            run_jobs(jobs, workers, stage="play data", done=lambda _: bar.update(1), log=run.log)
        joined = concatenate(made := [PlayStore.open(where) for where in paths], path, splits=_splits(study, made))
    else:
        joined = PlayStore.open(path)
    shutil.rmtree(folder / "shards", ignore_errors=True)
    return joined


def _splits(study: Study, made: Sequence[PlayStore]) -> list[Split]:
    """Splits of all episodes: some attempts are held out before anything is trained."""
    outcomes = [{store.episode_of(s.start).start: (s.task, s.success) for s in store.segments} for store in made]
    return split_attempts(
        [episode for store in made for episode in store.episodes],
        [found.get(e.start, ("", False)) for store, found in zip(made, outcomes, strict=True) for e in store.episodes],
        share=study.success.held_out,
        demos=study.held_out_demos,
        seed=study.data.seed,
    )


def _shards(jobs: list[Job]) -> list[list[Job]]:
    """Jobs in groups of about equal work, in order; those of play may be of one task, and then a group is."""
    shards: list[list[Job]] = []
    frames = SHARD_FRAMES
    for job in jobs:
        if frames >= SHARD_FRAMES or (job.task and shards[-1][0].task and job.task != shards[-1][0].task):
            shards.append([])
            frames = 0
        shards[-1].append(job)
        frames += job.frames or TYPICAL_FRAMES[job.kind]
    return shards

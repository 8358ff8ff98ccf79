"""The first arrow: play data, generated in the embedded table or read from a recorded CALVIN data set."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from envs.playtable.generate import Job, embedded_table, generate_shard, plan
from envs.playtable.render import choose
from experiments.pool import run_jobs
from experiments.run import LOGGER, Run
from worldaction.config import Renderer
from worldaction.errors import UserError
from worldaction.play.calvin import find_calvin, read_calvin
from worldaction.play.hidden import hide_actions
from worldaction.play.store import PlayStore, concatenate
from worldaction.record import progress

SHARD_FRAMES = 4_000
"""About how many frames one shard holds: what is lost at most when generation is interrupted."""
TYPICAL_FRAMES = {"near_miss": 60, "demo": 80}


def make_play(run: Run) -> None:
    """Make the play store of a run, unless it is there."""
    artefact = run.play()
    if artefact.complete:
        return
    path = artefact.folder / "store"
    if run.study.play is not None:
        shutil.rmtree(path, ignore_errors=True)
        source = Path(run.study.play)
        with progress(len(find_calvin(source)), "reading play", "frame") as bar:
            store = read_calvin(source, path, image_size=run.study.table.image_size, progress=bar.update)
    else:
        store = _generate(run, artefact.folder, path)
    if len(store) == 0:
        raise UserError(f"{run.study.play or path} holds no frames; record some, or give another --play")
    kinds = {kind: sum(e.length for e in store.episodes if e.kind == kind) for kind in ("play", "near_miss", "demo")}
    artefact.finish(
        {"frames": len(store), "kinds": kinds, "renderer": store.meta.renderer, "source": store.meta.source}
    )
    LOGGER.info("play: %d frames, drawn by %s", len(store), store.meta.renderer)


def open_play(run: Run) -> PlayStore:
    """The play store of a run as those see it who learn from it: hidden actions are hidden."""
    store = PlayStore.open(run.play().path / "store")
    return hide_actions(store, run.study.stress.hidden_actions, seed=run.study.data.seed)


def _generate(run: Run, folder: Path, path: Path) -> PlayStore:
    """Make shards side by side, then join them; a shard that is whole is never made twice."""
    shards = _shards(plan(run.study.data, run.study.tasks))
    paths = [folder / "shards" / f"{number:04d}" for number in range(len(shards))]
    study = run.study
    if not path.exists():
        # chosen once, here: all shards must be drawn alike
        table = replace(study.table, renderer=cast(Renderer, choose(study.table.renderer)))
        make = partial(embedded_table, stress=study.stress)
        jobs = [
            partial(generate_shard, where, jobs, table, seed=study.data.seed, config=study.data, make=make)
            for where, jobs in zip(paths, shards, strict=True)
            if not where.exists()
        ]
        with progress(len(shards), "play data", "shard", initial=len(shards) - len(jobs)) as bar:
            run_jobs(jobs, study.workers, done=lambda _: bar.update(1), log=run.log)
        joined = concatenate([PlayStore.open(where) for where in paths], path)
    else:
        joined = PlayStore.open(path)
    shutil.rmtree(folder / "shards", ignore_errors=True)
    return joined


def _shards(jobs: list[Job]) -> list[list[Job]]:
    """Jobs in groups of about equal work, in order."""
    shards: list[list[Job]] = []
    frames = SHARD_FRAMES
    for job in jobs:
        if frames >= SHARD_FRAMES:
            shards.append([])
            frames = 0
        shards[-1].append(job)
        frames += job.frames or TYPICAL_FRAMES[job.kind]
    return shards

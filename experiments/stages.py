"""One function for every arrow: play data --> world model --> latents --> BC --> imagination --> PPO --> evaluation.

Each reads artefacts of the arrows before it, writes its own, does nothing if that is complete, and goes on if it was
interrupted. `conduct` calls them in order; nothing else knows the order.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from envs import CALVIN_ID
from experiments.arms import arms_of
from experiments.checks import check_lengths, check_study, model_config, seen_by
from experiments.cli import load_study
from experiments.comparison import compare, console_tables
from experiments.learn import TaskRun, clone_policy, finetune, learn_success, learn_task
from experiments.measure import measure_world_model
from experiments.play import make_play, training_play
from experiments.pool import Job, run_jobs
from experiments.presets import Study
from experiments.report import console_table, write_report
from experiments.reuse import adopt, is_run, unlike
from experiments.run import LOGGER, Run, device, learns
from experiments.summary import summarise
from worldaction.artefact import Artefact, read_json
from worldaction.fit import Fit, Interrupted, linear_decay
from worldaction.graphed import Graph
from worldaction.kernels import VARIABLE, implementations
from worldaction.play.ahead import Ahead, Here
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
from worldaction.training import ModelStep, as_episode_starts
from worldaction.world_model import WorldModel

SHARED = {"success": learn_success, "clone": clone_policy, "ppo": finetune}
"""Stages of a task that several runs may have in common, in order."""
LOG_EVERY = 25
SHARES_EVERY = 250
"""A multiple of LOG_EVERY."""


def conduct(study: Study, resume: Path | None, *, models_only: bool = False) -> Path:
    """Run a study to its report.

    Args:
        study: the settings.
        resume: an existing run to go on with, of these settings.
        models_only: train and measure the world models alone; what goes on with them later finds them.

    Returns:
        the run's folder.
    """
    asked = study.world_model.cameras
    if resume is None:
        study = seen_by(study)
        for one in [arm.study for arm in arms_of(study)] or [study]:
            check_study(one)
    if study.kernels:
        # in the environment, so that the processes of a study have it, too
        os.environ[VARIABLE] = study.kernels
        # refused here, if it cannot run, and not after an hour
        implementations()
    run = Run.open(resume) if resume is not None else Run.create(study)
    setup_logging(run.log)
    LOGGER.info("run folder %s", run.folder)
    if (cameras := study.world_model.cameras) != asked:
        LOGGER.info("%s is seen through %s", study.play, ", ".join(cameras) or "no camera: it has numbers alone")
    try:
        _stages(run, models_only=models_only)
    except (Interrupted, KeyboardInterrupt):
        LOGGER.warning("interrupted, nothing is lost; go on with: %s", run.command)
        raise KeyboardInterrupt from None
    return run.folder


def _stages(run: Run, *, models_only: bool) -> None:
    """All stages, of the run or of the arms that it compares, side by side."""
    arms = {name: Run.at(arm.folder, arm.study) for name, arm in run.arms().items()}
    parts = arms or {"": run}
    for name, part in parts.items() if run.study.reuse else ():
        with saying(name):
            _tell_reused(part)
    _learn_all(parts, workers=run.study.workers, log=run.log, models_only=models_only)
    for part in parts.values():
        finish(part)
    closing = console_tables(compare(run)) if arms else console_table(read_json(run.folder / "summary.json"))
    write_report(run.folder)
    LOGGER.info("\n%s", closing)
    LOGGER.info("report: %s", run.folder / "report.html")


def finish(run: Run) -> None:
    """The verdict and the page of a run, or of an arm, as far as it is."""
    adopt(run.folder, run.borrowed())
    write_csv(run.folder)
    summarise(run)
    write_report(run.folder)


def refresh(folder: Path) -> None:
    """Summarise a study whose arms are still at work, or were left so, as far as they are; others are left alone.

    Args:
        folder: of a run.
    """
    summary = folder / "summary.json"
    if not is_run(folder) or not read_json(folder / "config.json").get("arms"):
        return
    if summary.exists() and "unfinished" not in read_json(summary):
        return
    # not opened, for a page can be written where its run could not go on
    run = Run(load_study(folder), folder)
    arms = {name: arm for name, arm in run.arms().items() if is_run(arm.folder)}
    for arm in arms.values():
        if arm.play().complete:
            finish(arm)
    compare(run)


def _tell_reused(run: Run) -> None:
    """Say what need not be made, and where nothing fits, why: hours depend on it."""
    if found := run.borrowed():
        LOGGER.info("read from other runs: %s", ", ".join(found))
    for name in run.study.reuse:
        if not any(origin.is_relative_to(name) for origin in found.values()):
            LOGGER.warning("%s: %s", name, unlike(Path(name), run.artefacts()))


# The order of the work -----------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """An artefact, and the work that makes it."""

    artefact: Artefact
    job: Job


def _learn_all(runs: Mapping[str, Run], *, workers: int, log: Path, models_only: bool) -> None:
    """Do all stages of some runs; what they have in common is made once.

    Args:
        runs: by the name that their log lines begin with; all of the same seeds and tasks.
        workers: processes, whatever the runs themselves say.
        log: the file that log lines go to.
        models_only: train and measure the world models alone.
    """
    parts = list(runs.items())
    first = parts[0][1]
    for name, run in parts:
        with saying(name):
            make_play(Run(replace(run.study, workers=workers), run.folder))
            check_lengths(run.study, PlayStore.open(run.play().path / "store").episodes)
    seeded = [(seed, name, run) for seed in first.study.seeds for name, run in parts]
    models = [Wanted(r.world_model(s), _job(name, train_world_model, r, s)) for s, name, r in seeded]
    run_jobs(unmade(models), _side_by_side(first, workers), log=log)
    measurements = [Wanted(r.fidelity(s), _job(name, measure_world_model, r, s)) for s, name, r in seeded]
    run_jobs(unmade(measurements), workers, log=log)
    if models_only:
        return
    if not learns(first.study):
        LOGGER.info("recorded play: the world model is measured; policies are trained with --env %s", CALVIN_ID)
        return
    tasked = [(s, task, name, run) for s in first.study.seeds for task in first.study.tasks for name, run in parts]
    for stage in SHARED:
        wanted = [Wanted(r.task(s, t, stage), _job(name, learn_stage, r, s, t, stage)) for s, t, name, r in tasked]
        run_jobs(unmade(wanted, shared=True), workers, log=log)
    policies = [Wanted(r.task(s, t, "evaluation"), _job(name, learn_task, r, s, t)) for s, t, name, r in tasked]
    run_jobs(unmade(policies), workers, log=log)


def unmade(wanted: Sequence[Wanted], *, shared: bool = False) -> list[Job]:
    """The work that is left: one job for all that want the same artefact, in the order of the first of them.

    Args:
        wanted: by one stage.
        shared: only what two or more want.
    """
    left = [one for one in wanted if not one.artefact.complete]
    count = Counter(one.artefact.digest for one in left)
    jobs: dict[str, Job] = {}
    for one in left:
        if not shared or count[one.artefact.digest] > 1:
            jobs.setdefault(one.artefact.digest, one.job)
    return list(jobs.values())


def learn_stage(folder: Path, seed: int, task: str, stage: str) -> None:
    """One of the stages of a task alone, after those before it."""
    here = TaskRun(folder, seed, task)
    with Recorder(folder, f"seed{seed}-{task}") as recorder:
        SHARED[stage](here, recorder)


def _side_by_side(run: Run, workers: int) -> int:
    """Processes for world models: on a GPU one after the other, on a CPU as many as leave each its threads."""
    return 1 if device(run.study).type == "cuda" else max(1, workers // run.threads)


def _job(name: str, stage: Callable[..., None], run: Run, *args: Any) -> Job:
    return partial(said_by, name, partial(stage, run.folder, *args))


def said_by(name: str, job: Job) -> Any:
    """Do some work whose log lines begin with a name."""
    with saying(name):
        return job()


@contextmanager
def saying(name: str) -> Iterator[None]:
    """Log lines of this process begin with a name, if there is one."""
    make = logging.getLogRecordFactory()

    def named(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.msg = f"{name.replace('%', '%%')}: {record.msg}"
        return record

    if name:
        logging.setLogRecordFactory(named)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


# World model ----------------------------------------------------------------------------------------------------------


def train_world_model(folder: Path, seed: int) -> None:
    """play data --> world model."""
    run = Run.open(folder)
    artefact = run.world_model(seed)
    if artefact.complete:
        return
    torch.set_num_threads(run.threads)
    sizes, where = run.study.world_model, device(run.study)
    store = training_play(run)
    torch.manual_seed(seed)
    model = WorldModel(model_config(run.study, store.meta.layout))
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
        Recorder(run.folder, f"seed{seed}-world_model") as recorder,
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

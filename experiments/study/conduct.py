"""One function for every arrow: play data --> world model --> latents --> BC --> imagination --> PPO --> evaluation.

Each reads artefacts of the arrows before it, writes its own, does nothing if that is complete, and goes on if it was
interrupted. `conduct` calls them in order; nothing else knows the order.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from envs import CALVIN_ID
from experiments.report.comparison import compare, console_tables
from experiments.report.run_page import console_table, write_report
from experiments.report.summary import summarise
from experiments.stages.all_of_task import learn_task
from experiments.stages.bc import clone_policy
from experiments.stages.fidelity import measure_world_model
from experiments.stages.improve import improve
from experiments.stages.play import make_play
from experiments.stages.success import learn_success
from experiments.stages.task_run import TaskRun
from experiments.stages.world_model import train_world_model
from experiments.study.arms import arms_of
from experiments.study.checks import check_lengths, check_study, seen_by
from experiments.study.pool import Job, run_jobs
from experiments.study.reuse import adopt, is_run, unlike
from experiments.study.run import LOGGER, Run, device, learns
from experiments.study.settings import Study, load_study
from worldaction.fit import Interrupted
from worldaction.io.artefact import Artefact, read_json
from worldaction.io.recorder import Recorder, setup_logging, write_csv
from worldaction.kernels import VARIABLE, implementations
from worldaction.play.store import PlayStore

SHARED = {"success": learn_success, "clone": clone_policy, "ppo": improve}
"""Stages of a task that several runs may have in common, in order."""


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
    task_run = TaskRun(folder, seed, task)
    with Recorder(folder, f"seed{seed}-{task}") as recorder:
        SHARED[stage](task_run, recorder)


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

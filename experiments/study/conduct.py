"""The order of the work: play --> world models --> fidelity --> success, BC, improvement --> evaluation --> report.

Each stage reads artefacts of the stages before it, writes its own, does nothing if that is complete, and goes on if it
was interrupted.
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

from envs.benchmark import benchmark_class
from experiments.real.go_on import check_trained
from experiments.real.rounds import join_play, record_policy
from experiments.report.comparison import compare, console_tables
from experiments.report.pages.run_page import console_table, write_report
from experiments.report.summary import summarise
from experiments.stages.all_of_task import STAGES, learn_stage, learn_task
from experiments.stages.fidelity import measure_world_model
from experiments.stages.judge import judge
from experiments.stages.play import make_play
from experiments.stages.world_model import train_world_model
from experiments.study.arms import arms_of
from experiments.study.checks import check_judges, check_lengths
from experiments.study.finished import mended, was_finished
from experiments.study.pool import Job, run_jobs
from experiments.study.resolve import check_resolved, resolve, seen_through, source_of
from experiments.study.run import Run, is_run
from experiments.study.sessions import session
from experiments.study.settings import Study, load_study
from worldaction.errors import Unfinished
from worldaction.io.artefact import Artefact
from worldaction.io.disk import disk_errors
from worldaction.io.recorder import FILE_ALONE, log_prefix, setup_logging, write_csv
from worldaction.io.sealed_json import read_json
from worldaction.kernels import VARIABLE, implementations
from worldaction.play.store import PlayStore
from worldaction.signals import Interrupted, number_of

LOGGER = logging.getLogger("worldaction")


def conduct(study: Study, resume: Path | None, *, models_only: bool = False) -> Path:
    """Run a study to its report.

    Args:
        study: the settings.
        resume: an existing run to go on with, of these settings.
        models_only: train and measure the world models alone; what goes on with them later finds them.

    Returns:
        the run's folder.
    """
    with chosen_kernels(study.kernels):
        return _conduct(study, resume, models_only=models_only)


@contextmanager
def chosen_kernels(text: str) -> Iterator[None]:
    """The implementations that are asked for, in the environment, so that the processes of a study have them, too."""
    before = os.environ.get(VARIABLE)
    if text:
        os.environ[VARIABLE] = text
        # refused here, if one cannot run, and not after an hour
        implementations()
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def _conduct(study: Study, resume: Path | None, *, models_only: bool) -> Path:
    run = Run.open(resume) if resume is not None else _begin(study)
    with session(run.folder):
        setup_logging(run.log)
        return _all_of(run, study, resumed=resume is not None, models_only=models_only)


def _all_of(run: Run, study: Study, *, resumed: bool, models_only: bool) -> Path:
    LOGGER.info("run folder %s", run.folder)
    if (cameras := run.study.world_model.cameras) != study.world_model.cameras:
        LOGGER.info("%s is seen through %s", study.play, ", ".join(cameras) or "no camera: it has numbers alone")
    try:
        with disk_errors():
            _stages(run, resumed=resumed, models_only=models_only)
    except KeyboardInterrupt as error:
        raise _told(run, error) from None
    except Unfinished as error:
        ended = Unfinished(f"{error}; what is finished is kept, go on with: {run.command}")
        LOGGER.error("%s", ended, extra=FILE_ALONE)
        raise ended from None
    return run.folder


def _told(run: Run, error: KeyboardInterrupt) -> Interrupted:
    """The interruption, with how to go on; the log knows it, too, for a terminal may be closed."""
    ended = Interrupted(f"nothing is lost; go on with: {run.command}", number_of(error))
    LOGGER.warning("%s; %s", ended.what, ended.how, extra=FILE_ALONE)
    return ended


def _begin(study: Study) -> Run:
    """A new run of settings that have been checked, those of all arms as well."""
    source = None if study.play is None else source_of(study)
    if source is not None:
        study = seen_through(study, source.layout)
    # the study's own settings as well, if by these the jurors of its arms are made
    arms = [arm.study for arm in arms_of(study)]
    judges = [replace(study, arms=(), run_dir=None)] if arms and not benchmark_class(study.env).simulates else []
    for one in [*arms, *judges] or [study]:
        known = resolve(one, source=source)
        check_resolved(one, known)
    if study.from_run is not None:
        check_trained(Run(study, Path()))
    return Run.create(study, None if study.arms else known)


def _check_judges(run: Run) -> None:
    """Refuse to go on where another simulator has policies to judge and is not there; a new run is checked before."""
    study = run.study
    wanted = [(s, t, env) for s in study.seeds for t in study.tasks for env in study.evaluate_in]
    if not all(run.judged(*one).complete for one in wanted):
        check_judges(study, run.resolved.layout)


def _stages(run: Run, *, resumed: bool, models_only: bool) -> None:
    """All stages, of the run or of the arms that it compares, side by side."""
    arms = {name: mended(Run.at(arm.folder, arm.study)) for name, arm in run.arms().items()}
    parts = arms or {"": mended(run)}
    for part in parts.values() if resumed else ():
        _check_judges(part)
    for name, part in parts.items() if run.study.cache else ():
        with log_prefix(name):
            _say_what_is_there(part)
    _learn_all(parts, workers=run.study.workers, log=run.log, models_only=models_only)
    for part in parts.values():
        finish(part)
    closing = console_tables(compare(run)) if arms else console_table(read_json(run.folder / "summary.json"))
    write_report(run.folder)
    LOGGER.info("\n%s", closing)
    LOGGER.info("report: %s", run.folder / "report.html")


def finish(run: Run) -> None:
    """The verdict and the page of a run, or of an arm, as far as it is."""
    for place, artefact in run.artefacts().items():
        if artefact.complete:
            run.publish(place, artefact)
    write_csv(run.folder)
    summarise(run)
    write_report(run.folder)


def refresh(folder: Path) -> None:
    """Summarise a study whose arms are still at work, or were left so, as far as they are; others are left alone.

    Args:
        folder: of a run.
    """
    if not is_run(folder) or not read_json(folder / "config.json").get("arms"):
        return
    if was_finished(folder):
        return
    # not opened, for a page can be written where its run could not go on
    run = Run(load_study(folder), folder)
    arms = {name: arm for name, arm in run.arms().items() if is_run(arm.folder)}
    for arm in arms.values():
        if arm.play().complete:
            finish(arm)
    compare(run)


def _say_what_is_there(run: Run) -> None:
    """What the cache has, and where nothing fits, why: hours depend on it."""
    found = [place for place, artefact in run.artefacts().items() if artefact.complete]
    if not run.cache.folder.exists():
        LOGGER.info("the cache %s is new", run.cache.folder)
    elif found:
        LOGGER.info("in the cache already: %s", ", ".join(found))
    elif why := run.cache.why_not("play", run.play()):
        LOGGER.warning("nothing in %s fits, %s", run.cache.folder, why)


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
        with log_prefix(name):
            make_play(run, workers=workers)
            check_lengths(run.study, PlayStore.open(run.play().path / "store").episodes)
    for name, run in parts:
        for side in list(run.jurors().values())[:1]:
            with log_prefix(name):
                make_play(side, workers=workers)
    models = [
        Wanted(r.world_model(s), _job(name, train_world_model, r, s)) for name, r in parts for s in r.study.model_seeds
    ]
    models += [
        Wanted(side.world_model(s), _job(name, train_world_model, side, s))
        for name, r in parts
        for s, side in r.jurors().items()
    ]
    run_jobs(unmade(models), _side_by_side(first, workers), stage="world models", log=log)
    seeded = [(seed, name, run) for seed in first.study.seeds for name, run in parts]
    measurements = [Wanted(r.fidelity(s), _job(name, measure_world_model, r, s)) for s, name, r in seeded]
    run_jobs(unmade(measurements), workers, stage="measurements of world models", log=log)
    if models_only:
        return
    if not first.resolved.learns:
        LOGGER.info(
            "recorded play: the world model is measured; policies are trained where its robot can be simulated, "
            "such as CALVIN's with --env worldaction/Calvin-v0"
        )
        return
    tasked = [(s, task, name, run) for s in first.study.seeds for task in first.study.tasks for name, run in parts]
    # what jurors know of a task is there before any of them is asked
    known = [
        Wanted(r.task(s, t, "success"), _job(name, learn_stage, r, s, t, "success"))
        for name, r in parts
        if r.study.update.jury
        for s in r.study.model_seeds
        for t in r.study.tasks
    ]
    known += [
        Wanted(side.task(s, t, "success"), _job(name, learn_stage, side, s, t, "success"))
        for name, r in parts
        for s, side in r.jurors().items()
        for t in r.study.tasks
    ]
    run_jobs(unmade(known), workers, stage="success", log=log)
    for stage in STAGES:
        wanted = [Wanted(r.task(s, t, stage), _job(name, learn_stage, r, s, t, stage)) for s, t, name, r in tasked]
        run_jobs(unmade(wanted, shared=True), workers, stage=stage, log=log)
    policies = [Wanted(r.task(s, t, "evaluation"), _job(name, learn_task, r, s, t)) for s, t, name, r in tasked]
    run_jobs(unmade(policies), workers, stage="policies and evaluation", log=log)
    _go_on(parts, workers=workers, log=log)
    judged = [
        Wanted(r.judged(s, t, env), _job(name, judge, r, s, t, env))
        for env in first.study.evaluate_in
        for s, t, name, r in tasked
    ]
    run_jobs(unmade(judged), workers, stage="evaluation in another simulator", log=log)


def _go_on(parts: Sequence[tuple[str, Run]], *, workers: int, log: Path) -> None:
    """Record the policies of runs that ask for it, and go on with what was recorded, round by round."""
    rounds = [(name, side) for name, run in parts for side in run.rounds()]
    for number in sorted({side.round for _, side in rounds}):
        sides = [(name, side) for name, side in rounds if side.round == number]
        tasked = [(n, r, s, t) for n, r in sides for s in r.study.seeds for t in r.study.tasks]
        recorded = [Wanted(r.recorded(s, t), _job(n, record_policy, r, s, t)) for n, r, s, t in tasked]
        run_jobs(unmade(recorded), workers, stage="episodes of policies", log=log)
        seeded = [(n, r, s) for n, r in sides for s in r.study.seeds]
        # the play is an artefact of its own: damaged, it is made again though the model that learned from it is whole
        plays = [Wanted(r.play(s), _job(n, join_play, r, s)) for n, r, s in seeded]
        run_jobs(unmade(plays), workers, stage="play of a round", log=log)
        models = [Wanted(r.world_model(s), _job(n, train_world_model, r, s)) for n, r, s in seeded]
        run_jobs(unmade(models), _side_by_side(sides[0][1], workers), stage="world models go on", log=log)
        policies = [Wanted(r.task(s, t, "evaluation"), _job(n, learn_task, r, s, t)) for n, r, s, t in tasked]
        run_jobs(unmade(policies), workers, stage="policies after real episodes", log=log)


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


def _side_by_side(run: Run, workers: int) -> int:
    """Processes for world models: on a GPU one after the other, on a CPU as many as leave each its threads."""
    return 1 if run.resolved.device.type == "cuda" else max(1, workers // run.threads)


def _job(name: str, stage: Callable[..., None], run: Run, *args: Any) -> Job:
    return partial(_named, name, partial(stage, run, *args))


def _named(name: str, job: Job) -> Any:
    """Do some work whose log lines begin with a name."""
    with log_prefix(name):
        return job()

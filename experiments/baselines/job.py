"""One baseline, task and seed: learned, tested at the run's start states, and written to one file when all is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.baselines.base import Baseline, demonstrated, policy_of
from experiments.baselines.registry import find
from experiments.report.statistics import success_rate
from experiments.stages.rollout import evaluate
from experiments.stages.task_run import TaskRun
from experiments.study.run import LOGGER, Run
from worldaction.errors import UserError
from worldaction.io.artefact import plain, read_json, versions, write_json
from worldaction.io.recorder import Recorder, progress

LOG_EVERY = 50
"""Gradient steps of cloning between two recorded ones."""


@dataclass(frozen=True)
class Job:
    """What is to be learned, and how it is tested."""

    run: Path
    method: str
    task: str
    seed: int
    episodes: int
    """Start states, the first ones of the run's evaluation."""
    budget: int
    """Control steps, for baselines that try things out."""

    @property
    def folder(self) -> Path:
        """Where results of all baselines lie."""
        return self.run / "baselines"

    @property
    def path(self) -> Path:
        """The file of this one."""
        return self.folder / f"{find(self.method).name}-{self.task}-seed{self.seed}.json"

    def made_by(self, run: Run) -> dict[str, Any]:
        """Everything that determines the result."""
        baseline = find(self.method)
        values: dict[str, Any] = {
            "method": self.method,
            "task": self.task,
            "seed": self.seed,
            "run": run.task(self.seed, self.task, "evaluation").digest,
            "episodes": self.episodes,
            **baseline.settings,
        }
        return values if baseline.acts_in == "nothing" else values | {"steps": self.budget}

    def done(self, run: Run) -> bool:
        """Whether the file exists.

        Raises:
            UserError: it was made with other settings.
        """
        if not self.path.exists():
            return False
        found, wanted = read_json(self.path).get("made_by", {}), plain(self.made_by(run))
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                had, has = found.get(name, "not set"), wanted.get(name, "not set")
                raise UserError(f"{self.path} was made with {name} = {had}, not {has}; delete it to make it again")
        return True


def work(job: Job) -> None:
    """Learn, test, and write the file; nothing is left of a job that is interrupted."""
    task_run, baseline = TaskRun(Run.open(job.run), job.seed, job.task), find(job.method)()
    name = f"{baseline.name} {job.task}, seed {job.seed}"
    prefix = f"seed{job.seed}/{job.task}/{baseline.name}"
    made_by = job.made_by(task_run.run)
    with Recorder(job.folder / job.path.stem, boards=job.folder / "tensorboard") as recorder:
        recorder.rewind(prefix, -1)

        def record(step: int, figures: Mapping[str, float]) -> None:
            if baseline.acts_in != "nothing" or step % LOG_EVERY == 0:
                recorder.log(step, figures, prefix=prefix)

        LOGGER.info("%s: learning", name)
        before = time.process_time()
        learned = baseline.learn(task_run, budget=job.budget, record=record)
        seconds = time.process_time() - before
    policy = policy_of(task_run, learned)
    parallel = task_run.study.evaluation.parallel
    with progress(job.episodes, name, "episode") as bar:
        result = evaluate(
            policy, task_run.benchmark, indices=range(job.episodes), parallel=parallel, progress=bar.update
        )
    found = success_rate(result.success)
    write_json(
        job.path,
        {
            "method": baseline.name,
            "task": job.task,
            "seed": job.seed,
            "sees": baseline.sees,
            "acts_in": baseline.acts_in,
            "rate": found.value,
            "interval": found.interval,
            "evaluation": result.to_dict(),
            "recorded_frames": recorded_frames(task_run, baseline),
            "real_steps": learned.real_steps,
            "imagined_steps": learned.imagined_steps,
            "gradient_steps": learned.gradient_steps,
            "cpu_seconds": round(seconds, 3),
            "stages": list(baseline.stages),
            "made_by": made_by,
            "versions": versions(),
        },
    )
    LOGGER.info("%s: %.0f %% of %d episodes", name, 100 * found.value, job.episodes)


def recorded_frames(task_run: TaskRun, baseline: Baseline) -> int:
    """Frames that somebody recorded before, and this baseline has learned from."""
    if baseline.data == "play":
        return len(task_run.store)
    return len(demonstrated(task_run).frame) if baseline.data == "demonstrations" else 0

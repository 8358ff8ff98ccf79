"""One baseline, task and seed: learned, tested at the run's start states, and written when all is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.policies.base import PolicyHead
from experiments.baselines import BASELINES
from experiments.baselines.base import Baseline, demonstrated_frames, policy_of
from experiments.report.statistics import success_rate
from experiments.stages.rollout import evaluate
from experiments.stages.samplers import better, compared
from experiments.stages.task_run import TaskRun, samplers
from experiments.study.run import LOGGER, Run
from worldaction.io.artefact import Artefact
from worldaction.io.fingerprint import code_of
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

    def artefact(self, run: Run) -> Artefact:
        """Where the result is or will be, below the run's folder `baselines`.

        Raises:
            UserError: there is one that was made with other settings.
        """
        baseline: type[Baseline] = BASELINES.find(self.method)
        made_by: dict[str, Any] = {
            "method": self.method,
            "task": self.task,
            "seed": self.seed,
            "run": run.task(self.seed, self.task, "evaluation").digest,
            "episodes": self.episodes,
            **baseline.settings,
        }
        if ":" in self.method:
            made_by["code"] = code_of(self.method.partition(":")[0])
        if baseline.acts_in != "nothing":
            made_by["steps"] = self.budget
        return Artefact(self.run / "baselines" / f"{baseline.name}-{self.task}-seed{self.seed}", made_by=made_by)


def work(job: Job) -> None:
    """Learn, test, and write what came out; nothing is left of a job that is interrupted."""
    task_run, baseline = TaskRun(Run.open(job.run), job.seed, job.task), BASELINES.find(job.method)()
    artefact, name = job.artefact(task_run.run), f"{baseline.name} {job.task}, seed {job.seed}"
    prefix = f"seed{job.seed}/{job.task}/{baseline.name}"
    task_run.store.verify()
    beside = artefact.path.parent
    with Recorder(beside / "metrics" / artefact.path.name, boards=beside / "tensorboard") as recorder:
        recorder.rewind(prefix, -1)

        def record(step: int, figures: Mapping[str, float]) -> None:
            if baseline.acts_in != "nothing" or step % LOG_EVERY == 0:
                recorder.log(step, figures, prefix=prefix)

        LOGGER.info("%s: learning", name)
        before = time.process_time()
        learned = baseline.learn(task_run, budget=job.budget, record=record)
        seconds = time.process_time() - before
    # a clone is as good as its better sampler, as the run's own is
    known = samplers(learned.actor) if isinstance(learned.actor, PolicyHead) else ()
    choice = compared(task_run, known, lambda sampler: policy_of(task_run, learned, sampler=sampler))
    sampler = better({name: result.rate for name, result in choice.items()})
    policy, options = policy_of(task_run, learned, sampler=sampler), task_run.study.evaluation
    indices = range(options.first, options.first + job.episodes)
    with progress(job.episodes, name, "episode") as bar:
        result = evaluate(policy, task_run.benchmark, indices=indices, parallel=options.parallel, progress=bar.update)
    found = success_rate(result.success)
    artefact.finish(
        {
            "method": baseline.name,
            "task": job.task,
            "seed": job.seed,
            "sees": baseline.sees,
            "sampler": sampler,
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
        }
    )
    LOGGER.info("%s: %.0f %% of %d episodes", name, 100 * found.value, job.episodes)


def recorded_frames(task_run: TaskRun, baseline: Baseline) -> int:
    """Frames that somebody recorded before, and this baseline has learned from."""
    if baseline.data == "play":
        return len(task_run.store)
    return len(demonstrated_frames(task_run).frame) if baseline.data == "demonstrations" else 0

"""Cloned policy --> imagination --> improved policy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agents.imagination import Actor, FirstFrames, Starts
from agents.jury import Juror, Jury, judged_dream
from agents.policies.base import Decision, PolicyHead
from agents.updates.base import Update
from envs.benchmark import Observation
from experiments.stages.bc import load_actor, save_actor
from experiments.stages.rollout import evaluate, stack
from experiments.stages.success import dreams_of, load_classifier
from experiments.stages.task_run import TaskRun, samplers
from experiments.study.checks import start_states
from worldaction.io.artefact import CHECKPOINT
from worldaction.io.atomic import load_checkpoint, save_checkpoint
from worldaction.io.recorder import Recorder, progress
from worldaction.random import Use, branch
from worldaction.success import SuccessClassifier

STAGE = "ppo"
"""The stage's name in the run folder, whatever the update: folders of earlier runs bear it."""


def dream_starts(task_run: TaskRun, *, measured: int = 0) -> tuple[FirstFrames, FirstFrames]:
    """Start scenes of dreams, none of which is evaluated in the simulator.

    Args:
        task_run: the task and seed.
        measured: how many scenes dreams are measured in.

    Returns:
        the scenes that policies learn in, and others to measure them in.
    """
    learned, others = task_run.first_frames(task_run.study.update.starts, measured)
    return as_starts(task_run, learned), as_starts(task_run, others)


@torch.no_grad()
def as_starts(task_run: TaskRun, seen: Sequence[Observation]) -> FirstFrames:
    """First frames as the world model of a run sees them; of none, no scenes."""
    model = task_run.model
    embed = model.embed(stack(seen, model)) if seen else model.proprio_mean.new_zeros(0, model.encoder.size)
    return FirstFrames(model, embed)


def decisions_of(task_run: TaskRun) -> int:
    """Decisions of a dream that is learned from."""
    return task_run.study.dream_steps // task_run.study.policy.chunk


def improve(task_run: TaskRun, recorder: Recorder) -> None:
    """BC --> imagination --> improved policy, by the update that the study names."""
    artefact = task_run.run.task(task_run.seed, task_run.task, STAGE)
    if artefact.complete:
        return
    classifier = load_classifier(task_run)
    frames = task_run.first_frames(task_run.study.update.starts, task_run.study.evaluation.dreams)
    starts, others = (as_starts(task_run, part) for part in frames)
    jury, jury_of_others = _juries(task_run, frames)
    cloned, (cls, options) = load_actor(task_run, "clone"), task_run.update
    assert isinstance(cloned, PolicyHead)
    update = cls(
        task_run.model,
        cloned,
        classifier,
        starts,
        options,
        decisions=decisions_of(task_run),
        threshold=task_run.study.success.threshold,
        seed=task_run.seed,
        jury=jury,
    )
    imagined = partial(_imagined, task_run, classifier=classifier, starts=others, jury=jury_of_others)
    calibration = {"bc": imagined(update.policy)}
    if "deterministic" in samplers(cloned):
        calibration["bc_deterministic"] = imagined(Deterministic(cloned))
    checkpoint = artefact.folder / CHECKPOINT
    curve: list[dict[str, Any]] = []
    if checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        update.load_state_dict(saved.state)
        curve = saved.extra["curve"]
    recorder.rewind(task_run.prefix, update.iteration)
    # apart, for a point is measured before its iteration and kept only by that iteration's checkpoint
    recorder.rewind(f"{task_run.prefix}/real", curve[-1]["iteration"] if curve else -1)
    name = f"{task_run.study.improved.upper()} {task_run.task}, seed {task_run.seed}"
    refused = "no_go" if task_run.study.success.stop_on_no_go and dreams_of(task_run).no_go else ""
    with progress(options.iterations, name, "iteration", initial=update.iteration) as bar:
        while not (refused or update.finished):
            _real_point(task_run, update, curve, recorder)
            with task_run.model.rssm.imagining_in(torch.bfloat16 if task_run.study.update.bf16 else torch.float32):
                metrics = update.iterate()
            recorder.log(update.iteration, metrics, prefix=task_run.prefix)
            bar.update(1, imagined=metrics["imagined/success"])
            save_checkpoint(checkpoint, update.state_dict(), extra={"curve": curve})
    calibration[task_run.study.improved] = imagined(update.policy)
    save_actor(artefact.folder, update.policy)
    artefact.finish(
        {
            "imagined": calibration,
            "iterations": update.iteration,
            "kept": update.kept,
            "stop_reason": refused or update.stopped or "all iterations done",
            "curve": curve,
        }
    )
    checkpoint.unlink(missing_ok=True)


def _juries(task_run: TaskRun, frames: Sequence[Sequence[Observation]]) -> list[Jury | None]:
    """The world models that say what dreams are worth, for each list of first frames; None where nobody is asked."""
    others = [TaskRun(task_run.run, seed, task_run.task) for seed in task_run.study.jurors(task_run.seed)]
    if not others:
        return [None for _ in frames]
    # of each juror, its starts in every list
    jurors = [jurors_of(one, frames) for one in others]
    return [Jury(of_list, threshold=task_run.study.success.threshold) for of_list in zip(*jurors, strict=True)]


def jurors_of(task_run: TaskRun, frames: Sequence[Sequence[Observation]]) -> list[Juror]:
    """A run's world model with what it knows of the task, once for each list of first frames."""
    success = load_classifier(task_run)
    return [Juror(task_run.model, success, as_starts(task_run, seen)) for seen in frames]


def _real_point(task_run: TaskRun, update: Update, curve: list[dict[str, Any]], recorder: Recorder) -> None:
    """A point of the curve of real success, for the reader's eyes only: nothing is decided by it."""
    every, episodes = task_run.study.update.evaluate_every, task_run.study.evaluation.curve_episodes
    if not (every and episodes) or update.iteration % every or any(p["iteration"] == update.iteration for p in curve):
        return
    options = task_run.study.evaluation
    # apart from the final evaluation's start states, which stay unseen
    indices = start_states(options, len(task_run.benchmark.starts(task_run.task))).curve
    result = evaluate(task_run.policy(update.policy), task_run.benchmark, indices=indices, parallel=options.parallel)
    curve.append({"iteration": update.iteration, **result.to_dict()})
    recorder.log(update.iteration, {"success": result.rate}, prefix=f"{task_run.prefix}/real")


class Deterministic:
    """A head as its deterministic sampler acts, for dreams: an `Actor` that explores nothing.

    Args:
        head: with such a sampler.
    """

    def __init__(self, head: PolicyHead) -> None:
        self.head, self.chunk, self.noise_shape = head, head.chunk, head.noise_shape

    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """One decision for every row, of which nothing is stored."""
        return Decision(self.head.sample(feature, noise, deterministic=True), {})


def _imagined(
    task_run: TaskRun, actor: Actor, *, classifier: SuccessClassifier, starts: Starts, jury: Jury | None
) -> dict[str, Any]:
    """Success in dreams without exploration, one from every start: compare with real success before trusting it.

    All policies are measured with the same samples and noise, in scenes that none has learned in.

    Returns:
        "success", the share that succeeds; "limit", the control steps of these dreams, as many as the simulator gives
        an episode; "success_step", of each dream, 0 if it never succeeds; "scene", where it began; and
        "jury", where there is one, the mean of what all models say.
    """
    rows, limit = torch.arange(task_run.study.evaluation.dreams, device=task_run.device), task_run.study.table.max_steps
    seed = branch(task_run.seed, Use.MEASURED_DREAMS)
    # one dream in each scene, but for recordings, which have few
    scene = rows % len(starts)
    rollouts = judged_dream(
        task_run.model,
        actor,
        classifier,
        starts,
        scene,
        jury=jury,
        decisions=limit // task_run.study.policy.chunk,
        threshold=task_run.study.success.threshold,
        seed=seed,
        rows=rows,
    )
    told = rollouts.summary()
    found = {
        "success": told["imagined/success"],
        "limit": limit,
        "success_step": rollouts.success_step.tolist(),
        "scene": scene.tolist(),
    }
    return found if jury is None else found | {"jury": told["imagined/reward"]}

"""Policies --> jury: what world models in which none of them has dreamed say of what each policy dreams.

Of a run with several seeds these are the models of the other seeds. Of a study without a simulator they are models that
have learned from the held-out episodes alone, and what they say is the study's evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from agents.imagination import Actor, Starts, imagined_frame
from agents.jury import Juror, dreamed_actions
from agents.policies.base import PolicyHead
from agents.policy import Policy
from envs.benchmark import Observation
from experiments.report.summary import seed_of
from experiments.report.video import Rollout, rollout_video
from experiments.stages.bc import load_actor
from experiments.stages.improve import STAGE, Deterministic, as_starts, jurors_of
from experiments.stages.rollout import Evaluation
from experiments.stages.samplers import STAGE as SAMPLER
from experiments.stages.success import load_classifier
from experiments.stages.task_run import TaskRun
from experiments.stages.world_model import open_world_model
from experiments.study.run import Run
from worldaction.interface import interface_of
from worldaction.play.outcomes import attempts_at
from worldaction.random import Use, branch
from worldaction.spec import CONTROL_HZ
from worldaction.world_model.model import DECODER, WorldModel


class Heard(NamedTuple):
    """One policy, by three judges; shares of successes."""

    task: str
    seed: int
    policy: str
    real: float
    """In the simulator."""
    own: float
    """In dreams of the model that it acts on."""
    jury: float
    """Of the same dreams, in replays by the models of all other seeds."""
    jurors: tuple[float, ...]
    """By each of these."""


def hear(run: Run, task: str) -> list[Heard]:
    """The clones and improved policies of all seeds.

    Args:
        run: finished, of two seeds or more.
        task: one of its tasks.
    """
    # what is seen first is the same to all: the scenes in which the run measured its dreams
    learned, measured = run.study.update.starts, run.study.evaluation.dreams
    runs = [TaskRun(run, seed, task) for seed in run.study.seeds]
    _, seen = runs[0].first_frames(learned, measured)
    judges = {one.seed: jurors_of(one, [seen])[0] for one in runs}
    return [_heard(one, judges, name) for one in runs for name in ("bc", run.study.improved)]


def _heard(task_run: TaskRun, judges: Mapping[int, Juror], name: str) -> Heard:
    study, own = task_run.study, judges[task_run.seed]
    # as the dreams of which the run says how many succeed
    drawn = branch(task_run.seed, Use.MEASURED_DREAMS)
    rows = torch.arange(study.evaluation.dreams, device=task_run.device)
    which = rows % len(own.starts)
    actions = _dreamed(task_run, _actor(task_run, name), own.starts, which, seed=drawn, rows=rows)
    replays = [
        judge.replay(actions, which, threshold=study.success.threshold, seed=drawn, rows=rows)
        for seed, judge in judges.items()
        if seed != task_run.seed
    ]
    jurors = tuple(_share(done_at) for done_at in replays)
    told = seed_of(task_run.run, task_run.task, task_run.seed)
    return Heard(
        task_run.task,
        task_run.seed,
        name,
        real=told[name],
        own=told[f"imagined_{name}"],
        jury=sum(jurors) / len(jurors),
        jurors=jurors,
    )


@dataclass(frozen=True)
class Replays:
    """Dreams of some policies from the held-out first frames, and what jurors see in their replays of them."""

    seen: list[Observation]
    """The first frames."""
    which: Tensor
    """[B] int64, the first frame of each dream."""
    seed: int
    """Of the dreams, and of their replays."""
    jurors: tuple[int, ...]
    """Numbers of the jurors, J."""
    actions: dict[str, Tensor]
    """Of each policy, [B, T, A]."""
    done_at: dict[str, Tensor]
    """Of each policy, [J, B] int64: actions until the juror sees success, 0 without."""

    def evaluations(self, limit: int) -> dict[str, Evaluation]:
        """Of each policy; a replay by a juror is an episode.

        Args:
            limit: control steps of a replay without success.
        """
        index, juror = np.tile(self.which.cpu().numpy(), len(self.jurors)), np.repeat(self.jurors, len(self.which))
        steps = {name: done_at.flatten().cpu().numpy() for name, done_at in self.done_at.items()}
        return {
            name: Evaluation(index, taken > 0, np.where(taken > 0, taken, limit), juror=juror)
            for name, taken in steps.items()
        }


def replays_by_jurors(task_run: TaskRun, compared: Mapping[str, Policy]) -> Replays:
    """Dreams of each policy from the held-out first frames, each replayed by every juror.

    Args:
        task_run: the task and seed, of a study without a simulator.
        compared: the policies, by name.
    """
    study, sides = task_run.study, task_run.run.jurors()
    _, seen = task_run.first_frames(study.update.starts, study.evaluation.dreams)
    each = math.ceil(study.evaluation.episodes / (len(seen) * len(sides)))
    rows, drawn = torch.arange(len(seen) * each, device=task_run.device), branch(task_run.seed, Use.EVALUATED_DREAMS)
    threshold = next(iter(sides.values())).study.success.threshold
    jurors = [_held_out_juror(TaskRun(side, seed, task_run.task), len(seen)) for seed, side in sides.items()]
    own, which = as_starts(task_run, seen), rows % len(seen)
    actions, done_at = dict[str, Tensor](), dict[str, Tensor]()
    for name, policy in compared.items():
        dreamed = actions[name] = _dreamed(task_run, as_it_acts(policy), own, which, seed=drawn, rows=rows)
        replays = [juror.replay(dreamed, which, threshold=threshold, seed=drawn, rows=rows) for juror in jurors]
        done_at[name] = torch.stack(replays)
    return Replays(seen, which, drawn, tuple(sides), actions, done_at)


def _held_out_juror(side: TaskRun, count: int) -> Juror:
    """A juror, and the first of the held-out first frames, from which it has learned, as it sees them."""
    seen, _ = side.first_frames(count, 0)
    return jurors_of(side, [seen])[0]


# Films ----------------------------------------------------------------------------------------------------------------


def film_dreams(path: Path, task_run: TaskRun, replays: Replays, names: Sequence[str], *, count: int) -> None:
    """Recordings, and beside each what policies dream from its first frame on; nothing of a model that cannot draw.

    Args:
        path: the MP4; stills are written beside it.
        task_run: the task and seed.
        replays: of its policies.
        names: of the policies that are shown.
        count: recordings, at most; the first ones.
    """
    model = open_world_model(task_run.run, task_run.seed, losses=DECODER)
    if not (count and model.config.cameras and model.draws_images()):
        return
    attempts = attempts_at(task_run.store, task_run.task, "validation", known=False)
    rollouts = []
    for number, attempt in enumerate(attempts[: min(count, len(replays.seen))]):
        frames = _side_by_side(task_run.store.frames[attempt.start : attempt.stop], model.config.cameras)
        rollouts.append(Rollout(f"recorded, attempt {number}", frames, attempt.success))
        rollouts += [_filmed(task_run, model, replays, name, number) for name in names]
    rate = interface_of(task_run.store.meta).rate or CONTROL_HZ
    rollout_video(rollouts, path, columns=1 + len(names), fps=round(rate))


@torch.no_grad()
def _filmed(task_run: TaskRun, model: WorldModel, replays: Replays, name: str, number: int) -> Rollout:
    """A policy's first dream from a first frame, as the model that it acts on draws it, until that sees success."""
    row, scene = torch.tensor([number], device=task_run.device), as_starts(task_run, replays.seen[number : number + 1])
    latent, classifier = scene.draw(torch.zeros_like(row), seed=replays.seed, rows=row), load_classifier(task_run)
    features, success = [model.feature(latent)], False
    for step, action in enumerate(replays.actions[name][row].unbind(1)):
        latent = imagined_frame(model, latent, action, seed=replays.seed, rows=row, step=step)
        features.append(model.feature(latent))
        success = bool(classifier.probability(features[-1]) >= task_run.study.success.threshold)
        if success:
            break
    agreeing = int((replays.done_at[name][:, number] > 0).sum())
    label = f"{name.upper()} dreamed, seen by {agreeing} of {len(replays.jurors)} jurors"
    return Rollout(label, _side_by_side(model.decode(torch.cat(features)), model.config.cameras), success)


def _side_by_side(frames: Mapping[str, Tensor] | TensorDictBase, cameras: Sequence[str]) -> np.ndarray:
    """What all cameras see, [T, H, W times their number, 3]."""
    return torch.cat([frames[camera] for camera in cameras], 2).cpu().numpy()


def _dreamed(task_run: TaskRun, actor: Actor, starts: Starts, which: Tensor, *, seed: int, rows: Tensor) -> Tensor:
    """What a policy does in dreams of its own model, as long as an episode: [B, T, A]."""
    first, decisions = starts.draw(which, seed=seed, rows=rows), task_run.study.table.max_steps // actor.chunk
    return dreamed_actions(task_run.model, actor, first, decisions=decisions, seed=seed, rows=rows)


def as_it_acts(policy: Policy) -> Actor:
    """The head of a policy, which dreams by the policy's sampler."""
    if policy.sampler == "deterministic":
        assert isinstance(policy.actor, PolicyHead)
        return Deterministic(policy.actor)
    actor: Actor = policy.actor
    return actor


def _actor(task_run: TaskRun, name: str) -> Actor:
    """As it acts in the simulator."""
    if name != "bc":
        return as_it_acts(task_run.policy(load_actor(task_run, STAGE)))
    sampler = task_run.run.task(task_run.seed, task_run.task, SAMPLER).results["sampler"]
    return as_it_acts(task_run.policy(load_actor(task_run, "clone"), sampler=sampler))


def _share(done_at: Tensor) -> float:
    return float((done_at > 0).double().mean())

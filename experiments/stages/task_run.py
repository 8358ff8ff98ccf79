"""One task and seed of a run: what the stages of a task share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from agents.policies.base import SAMPLERS, Sampler
from agents.policy import Actor, Policy
from envs.benchmark import Observation, open_benchmark
from experiments.stages.play import open_play
from experiments.stages.world_model import open_world_model
from experiments.study.run import Run
from worldaction.config import to_dict
from worldaction.interface import interface_of
from worldaction.play.outcomes import attempts_at, frames_of_success
from worldaction.spec import SCENE, Split
from worldaction.world_model.latent import Latent


class TaskRun:
    """One task and seed of a run: what its stages share."""

    def __init__(self, run: Run, seed: int, task: str) -> None:
        self.run, self.seed, self.task = run, seed, task
        self.study, self.device = run.study, run.resolved.device
        self.prefix = f"{run.prefix}seed{seed}/{task}"
        self.head, self.update = run.resolved.head, run.resolved.update
        self.store = open_play(self.run, seed)
        # images of another renderer would be foreign to the model; where this one is missing, the table says so
        drawn_by = self.store.meta.renderer if self.study.play is None else None
        self.benchmark = open_benchmark(self.study.env_config, renderer=drawn_by)
        self.told_by_recording = self.study.play is not None and not self.benchmark.labels_scenes
        """Whether the recording says how attempts ended; else their scenes do."""
        self.model = open_world_model(self.run, seed)

    @cached_property
    def before(self) -> TaskRun | None:
        """The same task and seed of the run that this one goes on from; None if it begins with nothing."""
        return None if self.run.before is None else TaskRun(self.run.before, self.seed, self.task)

    @property
    def recorded_from(self) -> int:
        """The frame of the store from which on it is episodes of the study's own policies."""
        frame: int = self.run.play(self.seed).results["recorded_from"] if self.run.round else len(self.store)
        return frame

    def attempts(self, split: Split) -> list[tuple[int, int]]:
        """Frames (start, stop) of the attempts at the task to learn from, or of those that nothing learns from."""
        if self.told_by_recording:
            return [(s.start, s.stop) for s in attempts_at(self.store, self.task, split)]
        found = (s for s in self.store.segments if s.task == self.task)
        return [(s.start, s.stop) for s in found if self.store.episode_of(s.start).split == split]

    def label(self, frame: Tensor) -> Tensor:
        """Whether the task is done in frames [M, T] of the store, as the simulator says of episodes that begin in the
        first frame of each row; or as the recording says; [M, T] bool.
        """
        if self.told_by_recording:
            return frames_of_success(self.store, self.task, last=self.study.recorded.last)[frame]
        scene = self.store.frames[SCENE][frame.flatten()].unflatten(0, frame.shape).numpy()
        return torch.from_numpy(self.benchmark.label(self.task, scene, scene[:, :1]))

    def first_frames(self, learned: int, measured: int) -> tuple[list[Observation], list[Observation]]:
        """What is seen where dreams begin: in so many scenes to learn in, and in others to measure in.

        Of a recording they are the first frames of attempts, as far as there are so many: those to measure in are held
        out.
        """
        if self.benchmark.simulates:
            seen = self.benchmark.first_frames(self.task, learned + measured)
            return seen[:learned], seen[learned:]
        return self._first_of("training", learned), self._first_of("validation", measured)

    def _first_of(self, split: Split, count: int) -> list[Observation]:
        """First frames of recorded attempts, however they ended."""
        frames = [s.start for s in attempts_at(self.store, self.task, split, known=False)][:count]
        rows = self.store.frames[torch.tensor(frames, dtype=torch.int64)]
        return [{key: rows[key][i].numpy() for key in self.model.config.observed} for i in range(len(frames))]

    def policy(self, actor: Actor, *, sampler: Sampler = "stochastic") -> Policy:
        """An actor as it is used in the simulator."""
        return Policy(
            self.model,
            actor.to(self.device),
            task=self.task,
            seed=self.seed,
            sampler=sampler,
            env=to_dict(self.study.env_config) if self.benchmark.simulates else None,
            interface=interface_of(self.store.meta),
        )


def samplers(actor: Actor) -> tuple[Sampler, ...]:
    """The samplers that a policy has, the one that it was trained for first."""
    return SAMPLERS if actor.has_deterministic else SAMPLERS[:1]


def without_prefix(stage: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures without the stage's name, which the prefix says already."""
    return {key.removeprefix(stage): value for key, value in figures.items()}


def pick(latent: Latent, mask: Tensor) -> Latent:
    return Latent(latent.belief[mask], latent.code[mask])

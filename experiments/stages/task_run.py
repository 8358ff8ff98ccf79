"""One task and seed of a run: what the stages of a task share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.policies.base import SAMPLERS, Sampler
from agents.policy import Actor, Policy
from envs.benchmark import open_benchmark
from experiments.stages.play import open_play
from experiments.stages.world_model import open_world_model
from experiments.study.run import Run
from worldaction.config import to_dict
from worldaction.interface import interface_of
from worldaction.spec import SCENE, Split
from worldaction.world_model.latent import Latent


class TaskRun:
    """One task and seed of a run: what its stages share."""

    def __init__(self, run: Run, seed: int, task: str) -> None:
        self.run, self.seed, self.task = run, seed, task
        self.study, self.device = run.study, run.resolved.device
        self.prefix = f"seed{seed}/{task}"
        self.head, self.update = run.resolved.head, run.resolved.update
        self.store = open_play(self.run)
        # images of another renderer would be foreign to the model; where this one is missing, the table says so
        drawn_by = self.store.meta.renderer if self.study.play is None else None
        self.benchmark = open_benchmark(self.study.env_config, renderer=drawn_by)
        self.model = open_world_model(self.run, seed)

    def attempts(self, split: Split) -> list[tuple[int, int]]:
        """Frames (start, stop) of the attempts at the task to learn from, or of those that nothing learns from."""
        found = (s for s in self.store.segments if s.task == self.task)
        return [(s.start, s.stop) for s in found if self.store.episode_of(s.start).split == split]

    def label(self, frame: Tensor) -> Tensor:
        """Whether the task is done in frames [M, T] of the store, as the simulator says of episodes that begin in the
        first frame of each row; [M, T] bool.
        """
        scene = self.store.frames[SCENE][frame.flatten()].unflatten(0, frame.shape).numpy()
        return torch.from_numpy(self.benchmark.label(self.task, scene, scene[:, :1]))

    def policy(self, actor: Actor, *, sampler: Sampler = "stochastic") -> Policy:
        """An actor as it is used in the simulator."""
        env = to_dict(self.study.env_config)
        return Policy(
            self.model,
            actor.to(self.device),
            task=self.task,
            seed=self.seed,
            sampler=sampler,
            env=env,
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

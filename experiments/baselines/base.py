"""What a baseline is: it learns one task from what a finished run has, and says what that took."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from agents.bc import demonstration_chunks
from agents.policies.base import Sampler
from agents.policy import Policy
from envs.episodes import SEEDS
from experiments.stages.demonstrations import demonstrated
from experiments.stages.task_run import TaskRun
from worldaction.spec import ACTION

Record = Callable[[int, Mapping[str, float]], None]
"""Called with a step, as the baseline counts, and figures to keep."""


class Sees(Protocol):
    """What makes features of frames: a run's `WorldModel` or an `ObservationEncoder`."""

    feature_size: int


class Acts(Protocol):
    """What decides on features, as `agents.policy.Policy` asks it."""

    chunk: int

    @property
    def noise_shape(self) -> tuple[int, int]: ...

    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor: ...


@dataclass(frozen=True)
class Learned:
    """A policy, and what it took to learn it beyond the run's own stages that the baseline names."""

    model: Any
    """See `Sees`."""
    actor: Any
    """See `Acts`."""
    real_steps: int = 0
    """Control steps in the simulator that were learned from."""
    imagined_steps: int = 0
    """Control steps in the world model's imagination that were learned from."""
    gradient_steps: int = 0
    """Of the policy."""


class Baseline(ABC):
    """One way to learn. Its file bears its name; found there, or as `module:Class`."""

    name: ClassVar[str]
    sees: ClassVar[str]
    """In a word or two: latents, pixels, proprioception, state."""
    data: ClassVar[Literal["none", "demonstrations", "play"]]
    """Recorded frames it learns from: the task's demonstrations alone, or all play, through the world model."""
    acts_in: ClassVar[Literal["nothing", "dreams", "simulator"]] = "nothing"
    """Where it tries things out, for at most `budget` control steps."""
    stages: ClassVar[tuple[str, ...]] = ()
    """Stages of the run's task that it builds on: clone, success."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Its own numbers, which the run does not have."""

    @abstractmethod
    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """Learn the task.

        Args:
            task_run: the run's task and seed, all of whose stages are complete. Only to be read.
            budget: control steps that may be taken in what `acts_in` names.
            record: keeps figures for plots.
        """


class Greedy(nn.Module):
    """An actor that always takes what a function of the feature says, whatever the noise.

    Args:
        act: [B, F] -> [B, K, A] actions in [-1, 1].
        chunk: actions K per decision.
    """

    noise_shape = (1, 1)

    def __init__(self, act: Callable[[Tensor], Tensor], *, chunk: int) -> None:
        super().__init__()
        self.act, self.chunk = act, chunk

    @torch.no_grad()
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        """[B, K, A] actions."""
        return self.act(feature)


def policy_of(task_run: TaskRun, learned: Learned, *, sampler: Sampler = "stochastic") -> Policy:
    """What was learned as it is tested: by the code that acts for the run's own policies."""
    # Policy names the two classes it was written for; it asks no more than Sees and Acts
    model, actor = cast(Any, learned.model), cast(Any, learned.actor)
    return Policy(
        model.to(task_run.device), actor.to(task_run.device), task=task_run.task, seed=task_run.seed, sampler=sampler
    )


class Demonstrations(NamedTuple):
    """Demonstrated frames of a task."""

    frame: Tensor  # [M] int64, in the store
    chunks: Tensor  # [M, K, A] the actions that follow each


def demonstrated_frames(task_run: TaskRun) -> Demonstrations:
    """What the run's own policy was cloned from, without latents."""
    layout, size = task_run.store.meta.layout, task_run.study.policy.chunk
    ranges = demonstrated(task_run)
    actions = [task_run.store.frames[ACTION][start:stop] for start, stop in ranges]
    return Demonstrations(
        torch.cat([torch.arange(start, stop) for start, stop in ranges]),
        torch.cat([demonstration_chunks(each, size, layout=layout) for each in actions]),
    )


def start_seeds(task_run: TaskRun, count: int, rng: np.random.Generator) -> list[int]:
    """Seeds of start states for learning: those that the run's dreams begin at, none of which is evaluated."""
    chosen = rng.integers(task_run.study.update.starts, size=count)
    return [SEEDS["dream_starts"] + int(number) for number in chosen]

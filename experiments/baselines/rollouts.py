"""Rollouts in the simulator in the form of imagined ones, so that the same PPO learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from agents.imagination import Actor, RolloutBatch, RolloutBuffer
from agents.policies.base import ImprovedPolicy
from envs.benchmark import retry_on_crash
from experiments.baselines.base import start_seeds
from experiments.stages.rollout import stack
from experiments.stages.task_run import TaskRun
from worldaction.config import UpdateConfig
from worldaction.random import Stream, normal, uniform
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel

Simulator = gym.Env[Any, Any]


class Rollouts:
    """A producer for `agents.updates.ppo.PPO`: every batch is played in the simulator, and its steps are counted."""

    def __init__(self, task_run: TaskRun, options: UpdateConfig, decisions: int) -> None:
        """
        Args:
            task_run: the run's task and seed.
            options: how many episodes a batch has, and how they explore.
            decisions: of each at most.
        """
        self.task_run, self.options, self.decisions, self.steps = task_run, options, decisions, 0
        count = min(task_run.study.evaluation.parallel, options.dreams)
        self.simulators = [task_run.benchmark.make(task_run.task) for _ in range(count)]

    def __call__(self, policy: ImprovedPolicy, iteration: int) -> RolloutBatch:
        """Exploring episodes, side by side in as many simulators as there are."""
        count, task_run = self.options.dreams, self.task_run
        seeds = start_seeds(task_run, count, np.random.default_rng([task_run.seed, iteration]))
        parts = []
        for wave in torch.arange(count).split(len(self.simulators)):
            play = partial(
                rollout,
                task_run.model,
                policy,
                self.simulators[: len(wave)],
                [seeds[i] for i in wave],
                decisions=self.decisions,
                seed=task_run.seed,
                rows=(wave + iteration * count).to(task_run.device),
                min_std=self.options.min_std,
            )
            episodes, steps = retry_on_crash(play)
            self.steps += steps
            parts.append(episodes)
        return RolloutBatch.joined(parts)

    def close(self) -> None:
        """Close the simulators."""
        for simulator in self.simulators:
            simulator.close()


@torch.no_grad()
def rollout(
    model: WorldModel,
    policy: Actor,
    simulators: Sequence[Simulator],
    starts: Sequence[int],
    *,
    decisions: int,
    seed: int,
    rows: Tensor,
    min_std: float = 0.0,
) -> tuple[RolloutBatch, int]:
    """Play one episode in each simulator; the reward is the simulator's own word of success.

    Random numbers have the names that `agents.policy.Policy` gives them: without exploration these are the episodes of
    an evaluation.

    Args:
        model: the frozen world model, which filters what is seen.
        policy: any head, or an improved one.
        simulators: B of them, whose time limit is `decisions` chunks or more.
        starts: B seeds of start states.
        decisions: decisions H of an episode.
        seed: of all random numbers but the simulators'.
        rows: [B] int64, global names of the episodes.
        min_std: smallest standard deviation of a denoising step.

    Returns:
        the episodes, and how many steps the simulators made.
    """
    seen = [simulator.reset(seed=start)[0] for simulator, start in zip(simulators, starts, strict=True)]
    buffer = RolloutBuffer(len(rows), decisions, rows.device)
    living, latent, taken = torch.arange(len(rows)), model.start(_embed(model, seen), seed=seed, rows=rows), 0
    for decision in range(decisions):
        names, feature = rows[living], model.feature(latent)
        frame = decision * policy.chunk
        noise = normal(seed, Stream.POLICY, names, frame, policy.noise_shape[0] * policy.noise_shape[1])
        decided = policy.decide(feature, noise.view(-1, *policy.noise_shape), min_std=min_std)
        done_at, over = torch.zeros(len(living), dtype=torch.int64), torch.zeros(len(living), dtype=torch.bool)
        for step in range(frame, frame + policy.chunk):
            action = decided.actions[:, step - frame]
            for i in _begin(simulators, living, action, over):
                table = int(living[i])
                seen[table], _, terminated, truncated, info = simulators[table].step(action[i].cpu().numpy())
                taken += 1
                over[i] = bool(terminated or truncated)
                done_at[i] = step + 1 if info["is_success"] else 0
            draws = uniform(seed, Stream.POSTERIOR, names, step + 1, model.config.groups)
            latent = model.posterior(latent, action, _embed(model, [seen[int(i)] for i in living]), draws)
        buffer.write(living.to(rows.device), decision, feature, decided.stored, done_at.to(rows.device))
        # the episode is cut off after the last decision, and what is seen then has a value; an earlier end has none
        going = (~over if decision + 1 < decisions else done_at == 0).nonzero().squeeze(-1)
        living, latent = living[going], Latent(*(part[going.to(rows.device)] for part in latent))
        if not len(living):
            break
    return buffer.finish(living.to(rows.device), model.feature(latent)), taken


def _embed(model: WorldModel, seen: Sequence[dict[str, np.ndarray]]) -> Tensor:
    return model.embed(stack(seen, model))


def _begin(simulators: Sequence[Simulator], living: Tensor, action: Tensor, over: Tensor) -> list[int]:
    """Rows whose episodes go on; simulators in processes of their own all set to work before one is waited for."""
    going: list[int] = (~over).nonzero().squeeze(-1).tolist()
    for i in going:
        if begin := getattr(simulators[int(living[i])].unwrapped, "begin_step", None):
            begin(action[i].cpu().numpy())
    return going

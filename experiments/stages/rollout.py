"""Episodes of a policy in the simulator, from a fixed list of start states.

The list is a range of seeds, apart from those of play, demonstrations and dream starts. One index is one episode: its
start state, and through `rows` its random numbers, do not depend on how many simulators run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.policy import Policy
from envs.benchmark import Benchmark, Start, retry_on_crash
from worldaction.world_model.model import WorldModel


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of episodes, in the order of their start states."""

    index: np.ndarray  # [n] start states
    success: np.ndarray  # [n] bool, at any time of the episode, which ends there
    steps: np.ndarray  # [n] control steps until success or the time limit
    frames: list[np.ndarray] = field(default_factory=list)  # of the filmed episodes, [T, H, W, 3] uint8

    @property
    def rate(self) -> float:
        """Share of successes."""
        return float(self.success.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        return {
            "index": self.index.tolist(),
            "success": self.success.astype(int).tolist(),
            "steps": self.steps.tolist(),
            "successes": int(self.success.sum()),
            "n": len(self.success),
        }


def evaluate(
    policy: Policy,
    benchmark: Benchmark,
    *,
    indices: Sequence[int],
    parallel: int,
    films: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run one episode from each start state.

    Args:
        policy: what acts, on its own task.
        benchmark: where its task is.
        indices: start states of the fixed list.
        parallel: simulators stepped side by side.
        films: how many of the first episodes are filmed, `parallel` at most.
        progress: called with the number of episodes that have just ended.
    """
    count = min(parallel, len(indices))
    starts = benchmark.starts(policy.task)
    # films are for people, who want to see more than the networks do
    simulators = [benchmark.make(policy.task, film=i < films) for i in range(count)]
    parts = []
    try:
        for at in range(0, len(indices), len(simulators)):
            wave = list(indices[at : at + len(simulators)])
            first = films if at == 0 else 0
            episodes = partial(_wave, policy, simulators[: len(wave)], wave, [starts[i] for i in wave], films=first)
            parts.append(retry_on_crash(episodes))
            if progress is not None:
                progress(len(wave))
    finally:
        for simulator in simulators:
            simulator.close()
    return Evaluation(
        index=np.concatenate([p.index for p in parts]),
        success=np.concatenate([p.success for p in parts]),
        steps=np.concatenate([p.steps for p in parts]),
        frames=[f for p in parts for f in p.frames],
    )


def _wave(
    policy: Policy,
    simulators: Sequence[gym.Env[Any, Any]],
    wave: Sequence[int],
    starts: Sequence[Start],
    *,
    films: int,
) -> Evaluation:
    """Episodes side by side, until the last one ends; those that have ended wait."""
    seen = [s.reset(seed=at.seed, options=at.options)[0] for s, at in zip(simulators, starts, strict=True)]
    reels = [[_picture(s)] for s in simulators[:films]]
    where = policy.model.proprio_mean.device
    rows = torch.tensor(wave, device=where)
    success, steps = np.zeros(len(wave), bool), np.zeros(len(wave), int)
    running, state, start = np.ones(len(wave), bool), None, torch.ones(len(wave), dtype=torch.bool, device=where)
    while running.any():
        action, state = policy.act(stack(seen, policy.model), state, start=start, rows=rows)
        start = torch.zeros_like(start)
        commands, alive = action.cpu().numpy(), np.flatnonzero(running).tolist()
        _begin([simulators[i] for i in alive], commands[alive])
        for i in alive:
            seen[i], _, terminated, truncated, info = simulators[i].step(commands[i])
            steps[i] += 1
            success[i] = info["is_success"]
            running[i] = not (terminated or truncated)
            if i < len(reels):
                reels[i].append(_picture(simulators[i]))
    return Evaluation(np.asarray(wave), success, steps, [np.stack(reel) for reel in reels])


def _begin(simulators: Sequence[gym.Env[Any, Any]], commands: np.ndarray) -> None:
    """Simulators in processes of their own are all set to work before the first is waited for."""
    for simulator, command in zip(simulators, commands, strict=True):
        if begin := getattr(simulator.unwrapped, "begin_step", None):
            begin(command)


def _picture(simulator: gym.Env[Any, Any]) -> np.ndarray:
    picture = simulator.render()
    assert isinstance(picture, np.ndarray)
    return picture


def stack(seen: Sequence[dict[str, np.ndarray]], model: WorldModel) -> dict[str, torch.Tensor]:
    """Observations of several tables as one batch of what the model sees, on its device."""
    device = model.proprio_mean.device
    return {key: torch.from_numpy(np.stack([o[key] for o in seen])).to(device) for key in model.config.observed}

"""Episodes of a policy in the simulator, from a fixed list of start states.

The list is a range of seeds, apart from those of play, demonstrations and dream starts. One index is one episode: its
start state, and through `rows` its random numbers, do not depend on how many simulators run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import envs  # noqa: F401 - registers the play table
from agents.policy import Policy
from envs.playtable.stress import stressed
from envs.tasks import SEEDS, TASKS
from worldaction.config import StressConfig, TableConfig
from worldaction.world_model import WorldModel

OFF = StressConfig()
START_STATES = 1_000
"""Start states per task in the fixed list."""


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


def start_seed(task: str, index: int) -> int:
    """Seed of a start state of the fixed list."""
    return SEEDS["evaluation"] + START_STATES * list(TASKS).index(task) + index


def make_table(task: str, table: TableConfig, **kwargs: Any) -> gym.Env[Any, Any]:
    """The play table with the study's options."""
    return gym.make(
        "worldaction/PlayTable-v0",
        task=task,
        image_size=table.image_size,
        supersample=table.supersample,
        renderer=table.renderer,
        max_steps=table.max_steps,
        scene=table.scene,
        **kwargs,
    )


def evaluate(
    policy: Policy,
    table: TableConfig,
    *,
    indices: Sequence[int],
    parallel: int,
    films: int = 0,
    progress: Callable[[int], None] | None = None,
    stress: StressConfig = OFF,
) -> Evaluation:
    """Run one episode from each start state.

    Args:
        policy: what acts, on its own task.
        table: the simulator's options.
        indices: start states of the fixed list.
        parallel: simulators stepped side by side.
        films: how many of the first episodes are filmed, `parallel` at most.
        progress: called with the number of episodes that have just ended.
        stress: switches that make the table harder.
    """
    count = min(parallel, len(indices))
    # films are for people, who want to see more than the networks do
    tables = [make_table(policy.task, table, render_mode="rgb_array" if i < films else None) for i in range(count)]
    simulators = [stressed(table, stress) for table in tables]
    parts = []
    try:
        for at in range(0, len(indices), len(simulators)):
            wave = list(indices[at : at + len(simulators)])
            parts.append(_wave(policy, simulators[: len(wave)], wave, films=films if at == 0 else 0))
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


def _wave(policy: Policy, simulators: Sequence[gym.Env[Any, Any]], wave: Sequence[int], *, films: int) -> Evaluation:
    """Episodes side by side, until the last one ends; those that have ended wait."""
    seeds = [start_seed(policy.task, index) for index in wave]
    seen = [s.reset(seed=seed)[0] for s, seed in zip(simulators, seeds, strict=True)]
    reels = [[_picture(s)] for s in simulators[:films]]
    where = policy.model.proprio_mean.device
    rows = torch.tensor(wave, device=where)
    success, steps = np.zeros(len(wave), bool), np.zeros(len(wave), int)
    running, state, start = np.ones(len(wave), bool), None, torch.ones(len(wave), dtype=torch.bool, device=where)
    while running.any():
        action, state = policy.act(stack(seen, policy.model), state, start=start, rows=rows)
        start = torch.zeros_like(start)
        for i in np.flatnonzero(running).tolist():
            seen[i], _, terminated, truncated, info = simulators[i].step(action[i].cpu().numpy())
            steps[i] += 1
            success[i] = info["is_success"]
            running[i] = not (terminated or truncated)
            if i < len(reels):
                reels[i].append(_picture(simulators[i]))
    return Evaluation(np.asarray(wave), success, steps, [np.stack(reel) for reel in reels])


def _picture(simulator: gym.Env[Any, Any]) -> np.ndarray:
    picture = simulator.render()
    assert isinstance(picture, np.ndarray)
    return picture


def stack(seen: Sequence[dict[str, np.ndarray]], model: WorldModel) -> dict[str, torch.Tensor]:
    """Observations of several tables as one batch of what the model sees, on its device."""
    device = model.proprio_mean.device
    return {key: torch.from_numpy(np.stack([o[key] for o in seen])).to(device) for key in model.config.observed}

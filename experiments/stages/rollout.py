"""Episodes of a policy in the simulator, from a fixed list of start states.

The list is a range of seeds, apart from those of play, demonstrations and dream starts. One index is one episode: its
start state, and through `rows` its random numbers, do not depend on how many simulators run side by side. Nor does the
arithmetic: a matrix product sums in another order for another number of rows, or for another row, and a last bit that
differs can become another action. So actions are always computed for `WIDTH` episodes at once, of which each has the
place that its index gives it, and places without an episode are filled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import gymnasium as gym
import numpy as np
import torch

from agents.policy import Policy
from envs.benchmark import Start, retry_on_crash
from worldaction.world_model.model import WorldModel

WIDTH: Final = 10
"""Rows of a batch of observations, whatever runs side by side; as many as `EvaluationConfig.parallel` is by default."""
NOBODY: Final = 2**31 - 1
"""Name of the rows that no episode has, of which random numbers are a function."""


class Arena(Protocol):
    """Where policies act, such as an `envs.benchmark.Benchmark`."""

    def starts(self, task: str) -> Sequence[Start] | Mapping[int, Start]:
        """Start states by their number, such as the fixed list."""
        ...

    def make(self, task: str, *, film: bool = False) -> gym.Env[Any, Any]:
        """A simulator."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of episodes, in the order of their start states."""

    index: np.ndarray  # [n] start states
    success: np.ndarray  # [n] bool, at any time of the episode, which ends there
    steps: np.ndarray  # [n] control steps until success or the time limit
    # [n] control steps until success by CALVIN's own oracle, 0 without; None where that is the judge
    oracle_steps: np.ndarray | None = None
    frames: list[np.ndarray] = field(default_factory=list)  # of the filmed episodes, [T, H, W, 3] uint8
    # [n] number of the juror whose replay the episode is; None where a simulator is the judge
    juror: np.ndarray | None = None

    @property
    def rate(self) -> float:
        """Share of successes."""
        return float(self.success.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        found = {
            "index": self.index.tolist(),
            "success": self.success.astype(int).tolist(),
            "steps": self.steps.tolist(),
            "successes": int(self.success.sum()),
            "n": len(self.success),
        }
        told = {"oracle_steps": self.oracle_steps, "juror": self.juror}
        return found | {name: values.tolist() for name, values in told.items() if values is not None}


def evaluate(
    policy: Policy,
    benchmark: Arena,
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
        oracle_steps=_joined([p.oracle_steps for p in parts]),
        frames=[f for p in parts for f in p.frames],
    )


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None


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
    batches = [_Batch(policy, wave, places) for places in _placed(wave)]
    success, steps, running = np.zeros(len(wave), bool), np.zeros(len(wave), int), np.ones(len(wave), bool)
    oracle: np.ndarray | None = None
    while running.any():
        actions = {i: action for batch in batches for i, action in batch.act(seen, running).items()}
        commands = {i: _command(policy, simulators[i], action) for i, action in actions.items()}
        alive = np.flatnonzero(running).tolist()
        _begin([simulators[i] for i in alive], [commands[i] for i in alive])
        for i in alive:
            seen[i], _, terminated, truncated, info = simulators[i].step(commands[i])
            steps[i] += 1
            success[i] = info["is_success"]
            if "is_success_calvin" in info:
                oracle = np.zeros(len(wave), int) if oracle is None else oracle
                oracle[i] = oracle[i] or info["is_success_calvin"] * steps[i]
            running[i] = not (terminated or truncated)
            if i < len(reels):
                reels[i].append(_picture(simulators[i]))
    return Evaluation(np.asarray(wave), success, steps, oracle, [np.stack(reel) for reel in reels])


class _Batch:
    """Episodes whose actions are computed together, each in its own row of `WIDTH`.

    Args:
        policy: acts.
        wave: indices of all episodes that run side by side.
        places: row -> which of them.
    """

    def __init__(self, policy: Policy, wave: Sequence[int], places: Mapping[int, int]) -> None:
        device = policy.model.proprio_mean.device
        self.policy, self.places = policy, places
        # what the first one sees stands in the other rows, too: anything would do that is an observation
        some = next(iter(places.values()))
        self.shown = [places.get(row, some) for row in range(WIDTH)]
        names = [wave[places[row]] if row in places else NOBODY for row in range(WIDTH)]
        self.rows, self.start = torch.tensor(names, device=device), torch.ones(WIDTH, dtype=torch.bool, device=device)
        self.state: Any = None

    def act(self, seen: Sequence[dict[str, np.ndarray]], running: np.ndarray) -> dict[int, np.ndarray]:
        """The next action [A] of each of its episodes; of none if all have ended."""
        if not running[list(self.places.values())].any():
            return {}
        observation = stack([seen[i] for i in self.shown], self.policy.model)
        action, self.state = self.policy.act(observation, self.state, start=self.start, rows=self.rows)
        self.start = torch.zeros_like(self.start)
        numbers = action.cpu().numpy()
        return {i: numbers[row] for row, i in self.places.items()}


def _placed(wave: Sequence[int]) -> list[dict[int, int]]:
    """Batches for episodes: row -> place in the wave. An episode's row is its index modulo `WIDTH`, in any wave."""
    batches: list[dict[int, int]] = []
    for place, index in enumerate(wave):
        row = index % WIDTH
        free = next((batch for batch in batches if row not in batch), None)
        if free is None:
            batches.append(free := {})
        free[row] = place
    return batches


def _command(policy: Policy, simulator: gym.Env[Any, Any], action: np.ndarray) -> np.ndarray:
    """An action [A] as the simulator takes it. One with a range of its own was recorded in that, not in [-1, 1]."""
    if policy.interface.scale is None:
        return action
    own = policy.interface.to_robot(action)
    return simulator.get_wrapper_attr("to_unit")(own) if simulator.has_wrapper_attr("to_unit") else own


def _begin(simulators: Sequence[gym.Env[Any, Any]], commands: Sequence[np.ndarray]) -> None:
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

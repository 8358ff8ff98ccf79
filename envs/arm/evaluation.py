"""How often a policy of the arm's recordings succeeds on the arm itself, which its study has never seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from envs.arm.robot import LOWEST
from worldaction.errors import UserError


class Acts(Protocol):
    """A policy as LeRobot calls one, such as `agents.policy.Policy`."""

    def reset(self, *, seed: int | None = None) -> None:
        """An episode begins."""
        ...

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """Joint positions [6] to go to, for what the arm observes, both in its own units."""
        ...


class Outcome(NamedTuple):
    """How an episode ended."""

    start: int
    """Seed of its start."""
    success: bool
    steps: int


def evaluate(policy: Acts, env: gymnasium.Env[Any, Any], *, episodes: int, seed: int) -> Iterator[Outcome]:
    """Run a policy from starts that are a function of the seed, and that no recording of another seed has.

    Args:
        policy: what acts.
        env: the arm with its task and a time limit, as `gymnasium.make` gives it.
        episodes: how many.
        seed: of starts and of the policy's noise.

    Raises:
        UserError: the policy is for another robot.
    """
    # starts of recordings are drawn from two numbers
    for start in np.random.default_rng([seed, 0, 1]).integers(2**31, size=episodes).tolist():
        observation, info = env.reset(seed=start)
        policy.reset(seed=start)
        late, steps = False, 0
        while not (late or info["is_success"]):
            observation, _, _, late, info = env.step(_checked(policy.select_action(observation)))
            steps += 1
        yield Outcome(start, info["is_success"], steps)


def _checked(action: Any) -> np.ndarray:
    """An action, if it is one of this arm."""
    found = np.asarray(action)
    if found.shape != LOWEST.shape:
        raise UserError(f"the policy gives actions of shape {found.shape}, the arm takes {LOWEST.shape}; give its own")
    return found

"""Policies are judged on the arm itself, in its own names and units, from starts that no recording has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest

import envs
from envs.arm.demonstrator import Demonstrator
from envs.arm.env import STATE
from envs.arm.evaluation import evaluate
from worldaction.errors import UserError


class Still:
    """Stays where it is, and remembers what it was given."""

    def __init__(self, width: int = 6) -> None:
        self.width = width
        self.seeds: list[int | None] = []
        self.keys: set[str] = set()

    def reset(self, *, seed: int | None = None) -> None:
        self.seeds.append(seed)

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        self.keys |= set(observation)
        return np.asarray(observation[STATE][: self.width])


class Scripted:
    """Knows the arm that it acts on, as no policy does."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env

    def reset(self, *, seed: int | None = None) -> None:
        self.hand = Demonstrator(self.env, np.random.default_rng(0))

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        return np.float32(self.hand.act())


@pytest.fixture(scope="module")
def env() -> gymnasium.Env[Any, Any]:
    return gymnasium.make(envs.ARM_ID, task="pick up the green block", cameras=False, max_episode_steps=120)


def test_a_good_policy_succeeds_and_one_that_stays_does_not(env: gymnasium.Env[Any, Any]) -> None:
    good = list(evaluate(Scripted(env), env, episodes=3, seed=0))
    assert [one.success for one in good] == [True] * 3
    assert all(one.steps < 120 for one in good)
    still = list(evaluate(Still(), env, episodes=1, seed=0))
    assert [(one.success, one.steps) for one in still] == [(False, 120)]


def test_starts_are_a_function_of_the_seed_and_so_is_the_policys_noise(env: gymnasium.Env[Any, Any]) -> None:
    starts = []
    for seed in (0, 0, 1):
        policy = Still()
        outcomes = list(evaluate(policy, env, episodes=2, seed=seed))
        assert policy.seeds == [one.start for one in outcomes]
        starts.append(policy.seeds)
    assert starts[0] == starts[1]
    assert not {*starts[0]} & {*starts[2]}


def test_no_start_of_an_evaluation_was_recorded() -> None:
    recorded = {int(np.random.default_rng([seed, number]).integers(2**31)) for seed in range(3) for number in range(90)}
    env = gymnasium.make(envs.ARM_ID, cameras=False, max_episode_steps=1)
    assert not recorded & {one.start for seed in range(3) for one in evaluate(Still(), env, episodes=50, seed=seed)}


def test_a_policy_of_another_robot_is_refused(env: gymnasium.Env[Any, Any]) -> None:
    with pytest.raises(UserError, match="actions of shape"):
        list(evaluate(Still(width=5), env, episodes=1, seed=0))

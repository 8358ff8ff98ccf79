"""A policy has one rate of success, whoever measures it: every convention of calling it draws its noise anew."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, GymWrapper, InitTracker, TransformedEnv

from agents.policy import Policy
from envs.benchmark import Start
from envs.calvin.upstream import UpstreamModel
from experiments.report.statistics import wilson
from experiments.stages.rollout import evaluate
from worldaction.losses.tools.contract import IMAGE_SIZE, tiny_model
from worldaction.spec import ACTION_SIZE, CAMERAS, ROBOT, ROBOT_SIZE

TASK = "turn_on_led"
EPISODES = 64
LENGTH = 3
"""Control steps of an episode: more than a decision, so that the filter's random numbers count too."""


class Toss(gym.Env[Any, Any]):
    """An episode always looks the same, and succeeds if the last action's first number is above 0."""

    action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
    observation_space = gym.spaces.Dict(
        {name: gym.spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8) for name in CAMERAS}
        | {ROBOT: gym.spaces.Box(-np.inf, np.inf, (ROBOT_SIZE,), np.float32)}
    )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {"is_success": False}

    def step(self, action: Any) -> Any:
        self.steps += 1
        success = self.steps == LENGTH and bool(action[0] > 0)
        return self.seen(), float(success), success, self.steps == LENGTH, {"is_success": success}

    def seen(self) -> dict[str, np.ndarray]:
        space = self.observation_space
        return {name: np.zeros(box.shape, box.dtype) for name, box in space.spaces.items() if box.shape is not None}


class Coin(nn.Module):
    """Decides by the noise of its second decision: heads in half of all episodes."""

    chunk, noise_shape, has_deterministic = 2, (1, 1), False

    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        """[B, K, A], all of them 1 or -1."""
        return self.side(feature, noise).sign()[:, None, None].expand(-1, self.chunk, ACTION_SIZE)

    def side(self, feature: Tensor, noise: Tensor) -> Tensor:
        """[B], above 0 for heads."""
        return noise[:, 0, 0]


class FilterCoin(Coin):
    """Decides by the code that the filter has drawn: how often, an untrained world model says."""

    def side(self, feature: Tensor, noise: Tensor) -> Tensor:
        # the one-hot of the first of four groups, of four classes
        return feature[:, -16:-12] @ torch.tensor([1.0, -1.0, 1.0, -1.0])


class Repeating(Policy):
    """Names its episodes by their place in the batch, so that all of them have the same noise."""

    def _fresh_names(self, start: Tensor) -> Tensor:
        return torch.arange(len(start))


def make(coin: type[Coin], cls: type[Policy] = Policy) -> Policy:
    actor: Any = coin()
    return cls(tiny_model().eval().requires_grad_(False), actor, task=TASK)


def ours(policy: Policy, episodes: int = EPISODES) -> float:
    """The study's own evaluation, which names episodes by their start states."""
    benchmark: Any = SimpleNamespace(
        starts=lambda task: [Start(seed) for seed in range(episodes)], make=lambda task, *, film: Toss()
    )
    return evaluate(policy, benchmark, indices=range(episodes), parallel=8).rate


def stable_baselines3(policy: Policy, episodes: int = EPISODES) -> float:
    return float(evaluate_policy(policy, Toss(), episodes, warn=False)[0])  # type: ignore[arg-type]


def stable_baselines3_side_by_side(policy: Policy, episodes: int = EPISODES) -> float:
    return float(evaluate_policy(policy, DummyVecEnv([Toss] * 4), episodes, warn=False)[0])  # type: ignore[arg-type]


def lerobot(policy: Policy, episodes: int = EPISODES) -> float:
    env, successes = Toss(), 0
    for _ in range(episodes):
        (seen, _), done = env.reset(), False
        policy.reset()
        while not done:
            seen, _, terminated, truncated, info = env.step(policy.select_action(seen))
            done = terminated or truncated
        successes += info["is_success"]
    return successes / episodes


def tracked() -> EnvBase:
    return TransformedEnv(GymWrapper(Toss()), InitTracker())


def torchrl_rollout(policy: Policy, episodes: int = EPISODES) -> float:
    env = tracked()
    return sum(env.rollout(LENGTH, policy)["next", "reward"].sum().item() for _ in range(episodes)) / episodes


def torchrl_collector(policy: Policy, episodes: int = EPISODES) -> float:
    collector = Collector(tracked, policy, frames_per_batch=4 * LENGTH, total_frames=episodes * LENGTH)
    try:
        return sum(batch["next", "reward"].sum().item() for batch in collector) / episodes
    finally:
        collector.shutdown()


def upstream(policy: Policy, episodes: int = EPISODES) -> float:
    """CALVIN's own evaluation, whose loop over an instruction this is."""
    model, env, successes = UpstreamModel({TASK: policy}, image_size=IMAGE_SIZE), Toss(), 0
    for _ in range(episodes):
        seen, info = env.reset()
        model.reset()
        for _ in range(LENGTH):
            shown = {"rgb_obs": {name: seen[name] for name in CAMERAS}, ROBOT: seen[ROBOT]}
            seen, _, _, _, info = env.step(model.step(shown, TASK))
        successes += info["is_success"]
    return successes / episodes


CONVENTIONS: list[Callable[..., float]] = [
    ours,
    stable_baselines3,
    stable_baselines3_side_by_side,
    lerobot,
    torchrl_rollout,
    torchrl_collector,
    upstream,
]


@pytest.fixture(scope="module")
def true_rate() -> dict[type[Coin], float]:
    """Of both coins, by many episodes."""
    return {Coin: 0.5, FilterCoin: ours(make(FilterCoin), 400)}


@pytest.mark.parametrize("coin", [Coin, FilterCoin])
@pytest.mark.parametrize("measure", CONVENTIONS, ids=lambda measure: measure.__name__)
def test_every_convention_finds_the_same_rate(
    measure: Callable[..., float], coin: type[Coin], true_rate: dict[type[Coin], float]
) -> None:
    rate = measure(make(coin))
    low, high = wilson(round(rate * EPISODES), EPISODES)
    assert low <= true_rate[coin] <= high
    assert 0.2 < rate < 0.8


@pytest.mark.parametrize("coin", [Coin, FilterCoin])
@pytest.mark.parametrize("measure", CONVENTIONS[1:2] + CONVENTIONS[3:], ids=lambda measure: measure.__name__)
def test_noise_that_repeats_itself_would_be_noticed(measure: Callable[..., float], coin: type[Coin]) -> None:
    assert measure(make(coin, Repeating), 8) in (0.0, 1.0)


class TwoSidedCoin(Coin):
    """Always heads where no noise is asked for."""

    has_deterministic = True

    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        return super().sample(feature, torch.ones_like(noise) if deterministic else noise)


def test_the_flag_of_stable_baselines3_does_not_change_which_policy_is_measured() -> None:
    rates = [
        evaluate_policy(make(TwoSidedCoin), Toss(), 8, deterministic=flag, warn=False, return_episode_rewards=True)[0]  # type: ignore[arg-type]
        for flag in (True, False)
    ]
    assert rates[0] == rates[1]

"""Chunks of actions in dreams, and a Gaussian policy that goes into Stable-Baselines3 and comes out the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from test_evaluate import tiny_model
from torch import Tensor

from agents.policies.gaussian import GaussianPolicy
from envs.dream.dynamics import Dreams
from experiments.baselines.chunks import ChunkedDreams, ChunkedVecEnv
from experiments.baselines.gaussian_ppo import Warmup, architecture, give
from experiments.baselines.sb3 import greedy, minibatch, updates, whole
from worldaction.errors import UserError
from worldaction.success import SuccessClassifier
from worldaction.world_model.rssm import Latent

CHUNK, HORIZON = 3, 9
MODEL = tiny_model()


class Every(SuccessClassifier):
    """Calls it success where a number of the feature is above a limit; untrained, so that it happens now and then."""

    def __init__(self, limit: float) -> None:
        super().__init__(MODEL.feature_size, 4, 0.0)
        self.limit = limit
        self.eval()

    def probability(self, feature: Tensor) -> Tensor:
        return (feature[..., 0] > self.limit).float()


def starts(count: int = 6) -> Latent:
    torch.manual_seed(2)
    return Latent(torch.tanh(torch.randn(count, 24)), torch.randint(4, (count, 4), dtype=torch.uint8))


def dreams(kind: type[Dreams] = Dreams, *, limit: float = 0.3, **options: Any) -> Dreams:
    return kind(MODEL, Every(limit), starts(), horizon=HORIZON, threshold=0.5, seed=1, **options)


def test_a_chunk_is_its_actions_one_after_the_other_up_to_success() -> None:
    chunked, plain = dreams(ChunkedDreams, chunk=CHUNK), dreams()
    assert isinstance(chunked, ChunkedDreams)
    decisions = torch.rand(HORIZON // CHUNK, 40, CHUNK, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moment, expected = chunked.begin(40), plain.begin(40)
    over, taken = torch.zeros(40, dtype=torch.bool), 0
    for decision in decisions:
        outcome = chunked.step(moment, decision.flatten(1))
        for action in decision.unbind(1):
            single = plain.step(expected, action)
            taken += int((~over).sum())
            kept = over.nonzero().squeeze(-1)
            expected = single.moment.replace(kept, expected.take(kept))
            over = over | single.terminated & ~over
        moment = outcome.moment
        # those that were over before are begun anew by the environment; here they are looked at no more
        torch.testing.assert_close(moment.step[~over], expected.step[~over])
        torch.testing.assert_close(moment.latent.belief[~over], expected.latent.belief[~over])
    assert 0 < over.sum() < 40


def test_nothing_happens_to_a_dream_after_its_success_and_its_steps_are_not_counted() -> None:
    always, never = dreams(ChunkedDreams, limit=-9.0, chunk=CHUNK), dreams(ChunkedDreams, limit=9.0, chunk=CHUNK)
    action = torch.zeros(5, CHUNK * 7)
    for made, each in ((always, 1), (never, CHUNK)):
        assert isinstance(made, ChunkedDreams)
        outcome = made.step(made.begin(5), action)
        assert made.steps == 5 * each
        assert outcome.moment.step.tolist() == [each] * 5
        assert outcome.terminated.tolist() == [made is always] * 5


def make(num_envs: int = 4, limit: float = 9.0) -> ChunkedVecEnv:
    return ChunkedVecEnv(
        MODEL, Every(limit), starts(), num_envs=num_envs, chunk=CHUNK, horizon=HORIZON, threshold=0.5, seed=1
    )


def test_the_environment_takes_chunks_and_ends_at_the_horizon() -> None:
    env = make()
    env.reset()
    assert env.action_space.shape == (CHUNK * 7,)
    dones = [env.step(np.zeros((4, CHUNK * 7), np.float32))[2].tolist() for _ in range(HORIZON // CHUNK)]
    assert dones == [[False] * 4] * (HORIZON // CHUNK - 1) + [[True] * 4]
    assert env.dreams.steps == 4 * HORIZON


def gaussian() -> GaussianPolicy:
    torch.manual_seed(4)
    return GaussianPolicy(MODEL.feature_size, 7, chunk=CHUNK, width=16)


def algorithm(**changes: Any) -> PPO:
    settings = {"n_steps": 3, "batch_size": 6, "n_epochs": 2, "seed": 0, "device": "cpu", **changes}
    return PPO("MlpPolicy", make(), policy_kwargs=architecture(gaussian(), 8), **settings)


def test_a_given_policy_acts_in_stable_baselines3_as_it_did_before() -> None:
    policy, ppo = gaussian(), algorithm()
    feature = torch.tanh(torch.randn(20, MODEL.feature_size, generator=torch.Generator().manual_seed(0)))
    before = greedy(ppo, policy.binary, chunk=CHUNK).sample(feature, torch.zeros(20, 1, 1))
    give(policy, ppo.policy)
    after = greedy(ppo, policy.binary, chunk=CHUNK).sample(feature, torch.zeros(20, 1, 1))
    torch.testing.assert_close(after, policy.most_likely(feature))
    assert not torch.allclose(before, after)
    assert after.shape == (20, CHUNK, 7)
    # and explores as widely
    torch.testing.assert_close(ppo.policy.log_std.exp(), policy(feature)[1])


def test_the_critic_alone_learns_in_the_warm_up() -> None:
    ppo = algorithm()
    give(gaussian(), ppo.policy)
    critic = ppo.policy.value_net.weight.clone()
    ppo.learn(2 * 12, callback=Warmup(2))
    assert ppo.policy.action_net.weight.equal(gaussian().mean.weight)
    assert updates(ppo.policy.optimizer, ppo.policy.action_net) == 0
    assert not ppo.policy.value_net.weight.equal(critic)
    ppo = algorithm()
    give(gaussian(), ppo.policy)
    ppo.learn(3 * 12, callback=Warmup(2))
    assert not ppo.policy.action_net.weight.equal(gaussian().mean.weight)
    # one batch of 12 decisions, twice in two parts
    assert updates(ppo.policy.optimizer, ppo.policy.action_net) == 4


def test_batches_are_whole_and_divided_without_remainder() -> None:
    assert whole(100, 30, "x") == 90
    assert [minibatch(size, 64) for size in (128, 60, 90, 7)] == [64, 60, 45, 7]
    with pytest.raises(UserError, match="--steps 29 is less than one batch of x, 30 steps"):
        whole(29, 30, "x")

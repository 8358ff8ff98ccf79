"""A policy in TorchRL's hands: its environments, batches of them, and its collector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from test_policy import make
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, GymEnv, GymWrapper, InitTracker, SerialEnv, TransformedEnv

from agents.policy import Policy
from envs import PLAY_TABLE_ID
from worldaction.errors import UserError
from worldaction.spec import ACTION, ACTION_SIZE, IS_INIT

STEPS = 7
TASK = "turn_on_led"


def table(**more: Any) -> EnvBase:
    """The play table as TorchRL makes it, without a word on where episodes begin."""
    return GymEnv(PLAY_TABLE_ID, task=TASK, image_size=16, **more)


def tracked() -> EnvBase:
    return TransformedEnv(table(max_steps=4), InitTracker())


@pytest.fixture
def policy() -> Policy:
    return make()


def by_hand(policy: Policy, frames: Any) -> Tensor:
    """[T, A] what `predict` answers to the frames of one environment, its noise begun anew."""
    policy.reset(seed=policy.seed)
    state, actions = None, []
    for t in range(len(frames)):
        seen = {key: frames[key][t].numpy() for key in policy.model.config.observed}
        action, state = policy.predict(seen, state, frames[IS_INIT][t].numpy())
        actions.append(torch.from_numpy(action))
    return torch.stack(actions)


def test_a_rollout_takes_the_policy_as_it_is(policy: Policy) -> None:
    env = tracked()
    found = env.rollout(STEPS, policy, break_when_any_done=False)
    assert found[IS_INIT].flatten().tolist() == [t % 4 == 0 for t in range(STEPS)]
    assert found[ACTION].shape == (STEPS, ACTION_SIZE)
    assert torch.equal(found[ACTION], by_hand(policy, found))
    env.close()


def test_a_wrapped_environment_of_ones_own_rolls_out_too(policy: Policy) -> None:
    env = TransformedEnv(GymWrapper(gymnasium.make(PLAY_TABLE_ID, task=TASK, image_size=16)), InitTracker())
    assert env.rollout(3, policy)[ACTION].shape == (3, ACTION_SIZE)
    env.close()


@pytest.mark.parametrize(
    "make_envs",
    [
        lambda: SerialEnv(2, tracked),
        lambda: TransformedEnv(SerialEnv(2, lambda: table(max_steps=4)), InitTracker()),
    ],
    ids=["tracked one by one", "tracked together"],
)
def test_environments_side_by_side_keep_a_state_each(policy: Policy, make_envs: Callable[[], EnvBase]) -> None:
    env = make_envs()
    found = env.rollout(STEPS, policy, break_when_any_done=False)
    assert found[ACTION].shape == (2, STEPS, ACTION_SIZE)
    policy.reset(seed=policy.seed)
    state = None
    for t in range(STEPS):
        seen = {key: found[key][:, t].numpy() for key in policy.model.config.observed}
        action, state = policy.predict(seen, state, found[IS_INIT][:, t].numpy())
        assert np.array_equal(action, found[ACTION][:, t].numpy())
    env.close()


def test_a_collector_takes_the_policy_as_it_is(policy: Policy) -> None:
    collector = Collector(tracked, policy, frames_per_batch=4, total_frames=8)
    batches = list(collector)
    assert [batch[ACTION].shape for batch in batches] == [(4, ACTION_SIZE)] * 2
    collector.shutdown()


def test_after_one_environment_comes_another_of_another_size(policy: Policy) -> None:
    one, two = tracked(), SerialEnv(2, tracked)
    for env in (one, two, one):
        env.rollout(2, policy)
    one.close()
    two.close()


def test_without_is_init_the_transform_that_gives_it_is_named(policy: Policy) -> None:
    env = table()
    with pytest.raises(UserError, match=r"no 'is_init'.*InitTracker\(\)"):
        env.rollout(2, policy)
    env.close()


def test_a_policy_is_a_module_of_what_it_sees_and_gives(policy: Policy) -> None:
    assert policy.in_keys == [*policy.model.config.observed, IS_INIT]
    assert policy.out_keys == [ACTION]

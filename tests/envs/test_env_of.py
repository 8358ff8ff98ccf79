"""The environment that a policy was evaluated in is made again from what was saved with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from envs.benchmark import env_of
from worldaction.config import EnvConfig, GymConfig, StressConfig, TableConfig, to_dict
from worldaction.errors import UserError
from worldaction.interface import ActionScale, RobotInterface


def _policy(config: EnvConfig, task: str = "turn_on_led") -> Any:
    return SimpleNamespace(task=task, env=to_dict(config))


HARD = EnvConfig(
    table=TableConfig(image_size=16, max_steps=24, renderer="rays"), stress=StressConfig(tolerance=1.0, distractors=0.5)
)


def _wrapped(env: Any) -> list[str]:
    names = []
    while env is not env.unwrapped:
        names.append(str(env))
        env = env.env
    return names


def test_time_limit_pictures_and_switches_are_those_of_the_study() -> None:
    env = env_of(_policy(HARD))
    plain = env_of(_policy(HARD), tolerance=0.0, distractors=0.0, max_steps=72)
    observation, _ = env.reset(seed=5_000_000)
    assert observation["rgb_static"].shape == (16, 16, 3)
    assert (env.unwrapped.max_steps, plain.unwrapped.max_steps) == (24, 72)  # type: ignore[attr-defined]
    # each switch is a wrapper around the table
    assert len(_wrapped(env)) > len(_wrapped(plain))
    for _ in range(23):
        *_, truncated, _ = env.step(env.action_space.sample() * 0)
        assert not truncated
    assert env.step(env.action_space.sample() * 0)[3]
    env.close()
    plain.close()


def test_nothing_is_imported_that_a_file_names() -> None:
    strange = _policy(EnvConfig(env="no_such_module:Mine"))
    with pytest.raises(UserError, match=r"evaluated in no_such_module:Mine, .* give env="):
        env_of(strange)
    judged = _policy(EnvConfig(gym=GymConfig(success="no_such_module:done", expert="no_such_module:Expert")))
    with pytest.raises(UserError, match=r"no_such_module:done, .* give success="):
        env_of(judged)


def test_an_environment_that_is_named_again_is_made() -> None:
    env = env_of(
        _policy(EnvConfig(env="reach_env:Reach-v0", table=TableConfig(image_size=16, max_steps=8)), "Reach_v0"),
        env="reach_env:Reach-v0",
    )
    env.reset(seed=0)
    env.close()


def test_an_environment_takes_the_actions_of_a_policy_that_was_recorded_in_its_own_range() -> None:
    config = EnvConfig(env="Pendulum-v1", gym=GymConfig(success_reward=-0.02), table=TableConfig(image_size=16))
    policy = _policy(config, "Pendulum_v1")
    policy.interface = RobotInterface(scale=ActionScale((-1.0,), (1.0,)))
    env, plain = env_of(policy, env="Pendulum-v1"), env_of(_policy(config, "Pendulum_v1"), env="Pendulum-v1")
    assert env.action_space.high.tolist() == [2.0]  # type: ignore[attr-defined]
    for one in (env, plain):
        one.reset(seed=0)
    # a torque of 1 is half of what the motor can do
    own, unit = env.step(np.array([1.0])), plain.step(np.array([0.5]))
    np.testing.assert_array_equal(own[0]["robot_obs"], unit[0]["robot_obs"])
    env.close()
    plain.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"tolerence": 0.0}, "did you mean 'tolerance'"), ({"tolerance": 5.0}, "tolerance 5.0: give 0 to 1")],
)
def test_what_cannot_be_changed_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        env_of(_policy(HARD), **changes)


def test_a_policy_from_before_and_one_of_another_version_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="does not say where it was evaluated"):
        env_of(SimpleNamespace(task="turn_on_led", env=None))
    later = _policy(HARD)
    later.env["stress"]["gravity"] = 1.0
    with pytest.raises(UserError, match="knows no setting 'gravity'"):
        env_of(later)

"""Real episodes as dreams: every step is counted, the layout is that of dreams, and PPO learns from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from latent_world import CHUNK, DECISIONS, FEATURE, Goal, World, mediocre, starts, steady
from test_ppo import OPTIONS
from test_rollout_in_simulator import NUMBER, TABLE, TASK, tiny_model

from agents.imagination import RolloutBatch, dream
from agents.observation_encoder import ObservationConfig, ObservationEncoder
from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from agents.policy import Policy
from agents.updates.ppo import PPO
from envs.benchmark import start_seed
from envs.playtable.benchmark import PlayTable
from experiments.baselines.dppo import within
from experiments.baselines.rollouts import rollout
from experiments.stages.rollout import evaluate
from worldaction.errors import UserError
from worldaction.spec import ROBOT, Layout
from worldaction.world_model.latent import Latent

LIMIT = DECISIONS * CHUNK
LIMITS: dict[str, Any] = {"decisions": DECISIONS, "threshold": 0.5}
CORRIDOR = Layout((), FEATURE, 0, 2, (0.0, 0.0))


class Corridor(gym.Env[Any, Any]):
    """A real position that the first action pushes by a tenth; success is to be past the goal.

    Args:
        goal: where it is.
        ends: steps after which the episode fails for good.
    """

    def __init__(self, goal: float = 0.75, ends: int = LIMIT + 1) -> None:
        self.goal, self.ends, self.made = goal, ends, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.position, self.steps = 0.001 * ((seed or 0) + 1), 0
        return self._see(), {"is_success": False}

    def step(self, action: Any) -> Any:
        assert self.steps < self.ends, "a step after the end"
        self.position += 0.1 * float(action[0])
        self.steps += 1
        self.made += 1
        done = self.position > self.goal
        assert not (self.steps > LIMIT)
        return self._see(), float(done), done or self.steps == self.ends, self.steps == LIMIT, {"is_success": done}

    def _see(self) -> dict[str, np.ndarray]:
        return {ROBOT: np.array([self.position] + [0.0] * (FEATURE - 1), np.float32)}


def play(policy: Any, tables: list[Corridor], *, seed: int = 0, min_std: float = 0.0) -> tuple[RolloutBatch, int]:
    encoder: Any = ObservationEncoder(ObservationConfig(CORRIDOR))
    return rollout(
        encoder,
        policy,
        tables,
        list(range(len(tables))),
        decisions=DECISIONS,
        seed=seed,
        rows=torch.arange(len(tables)),
        min_std=min_std,
    )


def test_success_is_seen_at_the_very_action_and_ends_the_episode() -> None:
    tables = [Corridor(goal) for goal in (0.46, 0.56, 9.0)]
    episodes, steps = play(steady(1.0), tables)
    # 0.1 per action: the fifth passes 0.46, the sixth 0.56
    assert episodes.success_step.tolist() == [5, 6, 0]
    assert episodes.alive.sum(1).tolist() == [3, 3, DECISIONS]
    assert episodes.success.nonzero().tolist() == [[0, 2], [1, 2]]
    assert [table.made for table in tables] == [5, 6, LIMIT]
    assert steps == 5 + 6 + LIMIT
    # what is seen at the time limit has a value; after success there is nothing to see
    assert episodes.last_feature[:, 0].tolist() == pytest.approx([0.0, 0.0, 0.1 * LIMIT + 0.003], abs=1e-5)


def test_an_episode_that_fails_for_good_is_over_and_costs_no_further_step() -> None:
    tables = [Corridor(9.0, ends=3), Corridor(9.0)]
    episodes, steps = play(steady(1.0), tables)
    assert steps == 3 + LIMIT == sum(table.made for table in tables)
    assert episodes.alive.sum(1).tolist() == [2, DECISIONS]
    assert not episodes.success.any()
    assert episodes.last_feature[0].abs().sum() == 0


def test_steps_are_counted_exactly_under_exploration() -> None:
    tables = [Corridor(0.6) for _ in range(16)]
    tuned = TunedPolicy(mediocre(), mediocre(), trained_steps=3)
    episodes, steps = play(tuned, tables, min_std=0.3)
    lengths = torch.where(episodes.success_step > 0, episodes.success_step, LIMIT)
    assert 0 < episodes.success.any(1).sum() < 16
    assert steps == int(lengths.sum()) == sum(table.made for table in tables)


def test_the_layout_is_that_of_dreams() -> None:
    tuned = TunedPolicy(mediocre(), mediocre(), trained_steps=3)
    dreamed = dream(
        World(), tuned, Goal(0.4), starts(16), decisions=DECISIONS, threshold=0.5, seed=0, rows=torch.arange(16)
    )
    real, _ = play(tuned, [Corridor(0.4) for _ in range(16)])
    for name, value in dreamed.tensors().items():
        found = real.tensors()[name]
        assert found.shape == value.shape, name
        assert found.dtype == value.dtype, name
        assert not found.requires_grad
    assert real.alive[:, 0].all()
    for name in ("feature", "states", "means", "base_means"):
        assert real.tensors()[name][~real.alive].abs().sum() == 0
        assert (real.tensors()[name][real.alive].abs().sum(-1) > 0).all(), name


def test_episodes_without_exploration_are_those_of_an_evaluation() -> None:
    commands: dict[str, list[list[float]]] = {"evaluation": [], "rollout": []}

    class Noting(gym.Wrapper[Any, Any, Any, Any]):
        def __init__(self, env: Any, kind: str) -> None:
            super().__init__(env)
            self.kind = kind

        def step(self, action: Any) -> Any:
            commands[self.kind].append(np.asarray(action).tolist())
            return super().step(action)

    class Table(PlayTable):
        def make(self, task: str, *, film: bool = False) -> Any:
            return Noting(super().make(task, film=film), "evaluation")

    model = tiny_model()
    torch.manual_seed(1)
    actor = DiffusionPolicy(model.feature_size, 7, chunk=4, denoising_steps=3, width=16)
    tuned = TunedPolicy(actor, actor, trained_steps=2)
    found = evaluate(Policy(model, tuned, task=TASK, seed=3), Table(TABLE), indices=[2], parallel=1)
    simulator = Noting(PlayTable(TABLE).make(TASK), "rollout")
    episodes, steps = rollout(
        model, tuned, [simulator], [start_seed(2, NUMBER)], decisions=3, seed=3, rows=torch.tensor([2])
    )
    assert steps == found.steps[0]
    assert bool(episodes.success.any()) == found.success[0]
    np.testing.assert_allclose(commands["rollout"], commands["evaluation"], atol=1e-4)


def test_ppo_learns_from_what_another_producer_gives_and_asks_nothing_else() -> None:
    cloned, iterations = mediocre(), []

    def produce(policy: TunedPolicy, iteration: int) -> RolloutBatch:
        iterations.append(iteration)
        return play(policy, [Corridor() for _ in range(64)], seed=iteration, min_std=OPTIONS.min_std)[0]

    nothing: Any = cast(Any, None)
    options = replace(OPTIONS, dreams=64, iterations=9)
    ppo = PPO(nothing, cloned, nothing, Latent(*torch.empty(2, 0)), options, seed=0, producer=produce, **LIMITS)
    history: list[dict[str, float]] = []
    ppo.run(lambda iteration, metrics: history.append(dict(metrics)))
    assert iterations == list(range(9))
    assert history[0]["imagined/success"] < 0.5
    before, after = (play(p, [Corridor() for _ in range(64)], seed=99)[0] for p in (cloned, ppo.policy))
    assert after.summary()["imagined/success"] > before.summary()["imagined/success"] + 0.4


@pytest.mark.parametrize("budget", [300, 1000])
def test_no_more_steps_are_taken_than_were_given(budget: int) -> None:
    options = within(OPTIONS, budget=budget * 8, limit=LIMIT)
    assert 0 < options.iterations * options.dreams * LIMIT <= budget * 8
    assert (options.iterations + 1) * options.dreams * LIMIT > budget * 8
    with pytest.raises(UserError, match="--steps 99 is less than one batch of dppo, 2048 steps"):
        within(OPTIONS, budget=99, limit=LIMIT)

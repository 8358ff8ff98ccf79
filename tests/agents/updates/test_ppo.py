"""PPO over denoising steps, in a world whose best policy is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from latent_world import DECISIONS, Goal, World, mediocre, starts
from torch import Tensor

from agents.imagination import FixedStarts, dream
from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from agents.updates.ppo import PPO
from worldaction.config import UpdateConfig
from worldaction.io.atomic import load_checkpoint, save_checkpoint
from worldaction.world_model.latent import Latent

CLONED = mediocre()
OPTIONS = UpdateConfig(
    iterations=12,
    dreams=128,
    trained_steps=4,
    epochs=5,
    minibatch=256,
    lr=1e-3,
    critic_lr=2e-3,
    critic_width=32,
    warmup=2,
    ramp=3,
    gamma=0.99,
    gae_lambda=0.95,
    bootstrap=False,
    gamma_denoising=0.99,
    clip=0.1,
    clip_base=0.02,
    min_std=0.1,
    bc=0.01,
    target_kl=1e9,
    max_divergence=1e9,
    max_imagined=1.01,
    min_time=0.0,
)


def make(goal: Goal | None = None, *, seed: int = 0, **changes: Any) -> PPO:
    options, limits = dataclasses.replace(OPTIONS, **changes), {"decisions": DECISIONS, "threshold": 0.5}
    return PPO(World(), CLONED, goal or Goal(), FixedStarts(starts(4)), options, seed=seed, **limits)


def run(ppo: PPO) -> list[dict[str, float]]:
    history: list[dict[str, float]] = []
    ppo.run(lambda iteration, metrics: history.append(dict(metrics)))
    return history


def success_rate(policy: DiffusionPolicy | TunedPolicy) -> float:
    rows = torch.arange(256)
    rollouts = dream(World(), policy, Goal(), starts(256), decisions=DECISIONS, threshold=0.5, seed=99, rows=rows)
    return rollouts.summary()["imagined/success"]


def weights(ppo: PPO) -> Tensor:
    return torch.nn.utils.parameters_to_vector(ppo.policy.tuned.parameters()).detach().clone()


def test_ppo_turns_a_mediocre_policy_into_a_good_one() -> None:
    before, ppo = success_rate(CLONED), make()
    history = run(ppo)
    assert before < 0.3
    assert success_rate(ppo.policy) > 0.9
    assert ppo.iteration == len(history) == OPTIONS.iterations
    assert history[-1]["imagined/time"] < history[0]["imagined/time"]
    assert history[-1]["ppo/divergence"] > history[3]["ppo/divergence"] > 0
    # pushing harder is all there is to learn: the tuned steps, not the frozen ones, do it
    assert torch.equal(weights(make()), torch.nn.utils.parameters_to_vector(ppo.policy.base.parameters()))


def test_without_policy_iterations_the_policy_stays_the_cloned_one() -> None:
    ppo = make(iterations=4, warmup=3)
    critic = torch.nn.utils.parameters_to_vector(ppo.critic.parameters()).detach().clone()
    history = run(ppo)
    assert torch.equal(weights(ppo), weights(make()))
    assert success_rate(ppo.policy) == pytest.approx(success_rate(CLONED), abs=0.02)
    assert all(metrics["ppo/policy_steps"] == 0 and "ppo/policy_loss" not in metrics for metrics in history)
    assert not torch.equal(torch.nn.utils.parameters_to_vector(ppo.critic.parameters()), critic)


def test_without_any_success_there_is_nothing_to_learn() -> None:
    ppo = make(Goal(99.0), iterations=4, warmup=0)
    run(ppo)
    assert torch.equal(weights(ppo), weights(make()))


def test_every_iteration_dreams_anew() -> None:
    first, second = run(make(iterations=2))
    assert first["ppo/divergence"] == second["ppo/divergence"] == 0
    assert first["imagined/time"] != second["imagined/time"]


def test_learning_rate_of_the_policy_rises_over_the_first_iterations() -> None:
    slow, full = make(iterations=4, ramp=10), make(iterations=4, ramp=1)
    for ppo in (slow, full):
        run(ppo)
    start = weights(make())
    assert 0 < (weights(slow) - start).norm() < (weights(full) - start).norm() / 3


def test_divergence_coefficient_holds_the_policy_back() -> None:
    free, held = (run(make(iterations=7, bc=bc))[-1]["ppo/divergence"] for bc in (0.0, 10.0))
    assert held < free / 2


def test_target_kl_lets_the_policy_rest_for_the_remainder_of_an_iteration() -> None:
    metrics = run(make(iterations=4, target_kl=0.0))[2]
    assert metrics["ppo/policy_steps"] < 5
    assert run(make(iterations=4))[2]["ppo/policy_steps"] >= 15


def test_divergence_is_that_of_a_whole_decision() -> None:
    ppo = make(iterations=6)
    *_, last = run(ppo)
    rollouts = ppo._rollouts()
    stored = {name: value[rollouts.alive] for name, value in rollouts.stored.items()}
    apart = (stored["means"] - stored["base_means"]) / ppo.policy.base.stds(4, OPTIONS.min_std)[:, None]
    # KL of Gaussians of equal deviation, over all numbers of a chunk and all trained steps
    assert last["ppo/divergence"] == pytest.approx((apart.square() / 2).sum((1, 2)).mean().item(), rel=0.2)


class NotedStarts(FixedStarts):
    """Starts that remember who drew them."""

    def __init__(self, latent: Latent) -> None:
        super().__init__(latent)
        self.asked: list[tuple[int, list[int]]] = []

    def draw(self, which: Tensor, *, seed: int, rows: Tensor) -> Latent:
        self.asked.append((seed, rows.tolist()))
        return super().draw(which, seed=seed, rows=rows)


def test_every_dream_of_a_run_draws_its_start_under_its_own_name_and_a_seed_that_no_evaluation_has() -> None:
    ppo, noted = make(iterations=3, dreams=8), NotedStarts(starts(4))
    ppo.starts = noted
    run(ppo)
    seeds, rows = zip(*noted.asked, strict=True)
    assert rows == tuple(list(range(8 * i, 8 * i + 8)) for i in range(3))
    assert len(set(seeds)) == 1
    assert 0 not in seeds


def test_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path: Path) -> None:
    whole = make(iterations=6)
    expected = run(whole)
    first = make(iterations=6)
    found = [first.iterate() for _ in range(4)]
    save_checkpoint(tmp_path / "ppo.safetensors", first.state_dict())
    first.iterate()  # going on does not disturb what was saved
    second = make(iterations=6)
    second.load_state_dict(load_checkpoint(tmp_path / "ppo.safetensors").state)
    assert second.iteration == 4
    found += run(second)
    assert found == expected
    assert torch.equal(weights(second), weights(whole))


def test_seeds_differ() -> None:
    assert run(make(iterations=1)) != run(make(iterations=1, seed=1))


def followed(ppo: PPO) -> tuple[list[Tensor], list[dict[str, float]]]:
    """Weights that dreamed in each iteration, and their metrics."""
    iterates, history = [], []
    while not ppo.finished:
        iterates.append(weights(ppo))
        history.append(ppo.iterate())
    return iterates, history


@pytest.fixture(scope="module")
def unstopped() -> tuple[list[Tensor], list[dict[str, float]], float]:
    """What `followed` gives, and the cloned policy's time to success."""
    ppo = make()
    return *followed(ppo), ppo.cloned_actions / ppo.cloned_successes


def test_the_last_iteration_looks_at_the_policy_and_leaves_it_as_it_is() -> None:
    ppo = make(iterations=6)
    iterates, history = followed(ppo)
    assert torch.equal(weights(ppo), iterates[-1])
    assert not torch.equal(weights(ppo), iterates[-2])
    assert history[-2]["ppo/policy_steps"] > history[-1]["ppo/policy_steps"] == 0


def test_an_update_after_which_fewer_dreams_succeed_is_not_the_last_word() -> None:
    hasty = {"lr": 0.004, "ramp": 1}
    iterates, history = followed(make(**hasty))
    success = [metrics["imagined/success"] for metrics in history]
    fall = next(i for i in range(OPTIONS.warmup + 1, len(success)) if success[i] < success[i - 1])
    ppo = make(iterations=fall + 1, **hasty)
    run(ppo)
    assert ppo.stopped == "fell"
    assert torch.equal(weights(ppo), iterates[fall - 1])
    assert not torch.equal(weights(ppo), iterates[fall])


@pytest.mark.parametrize(("rule", "limit"), [("max_imagined", 0.5), ("max_divergence", 0.16), ("min_time", 0.96)])
def test_rule_stops_the_run_at_the_iterate_before_it_went_too_far_or_where_dreams_have_nothing_left_to_teach(
    unstopped: tuple[list[Tensor], list[dict[str, float]], float], rule: str, limit: float
) -> None:
    iterates, history, usual = unstopped
    breaks = {
        "max_imagined": lambda metrics: metrics["imagined/success"] >= limit,
        "max_divergence": lambda metrics: metrics["ppo/divergence"] > limit,
        "min_time": lambda metrics: metrics["imagined/time"] < limit * usual,
    }[rule]
    broken = next(i for i, metrics in enumerate(history) if breaks(metrics))
    assert broken > OPTIONS.warmup
    stopped = make(**{rule: limit})
    run(stopped)
    assert stopped.stopped == rule
    assert stopped.iteration == broken + 1 < OPTIONS.iterations
    kept, other = (broken, broken - 1) if rule == "max_imagined" else (broken - 1, broken)
    assert torch.equal(weights(stopped), iterates[kept])
    assert not torch.equal(weights(stopped), iterates[other])


def test_cloned_policy_is_never_too_fast_for_itself() -> None:
    ppo = make(min_time=9.0)
    run(ppo)
    assert ppo.stopped == "min_time"
    assert ppo.iteration == OPTIONS.warmup + 2


def test_stopped_run_stays_stopped_after_a_resume() -> None:
    stopped = make(max_imagined=0.0)
    run(stopped)
    again = make(max_imagined=0.0)
    again.load_state_dict(stopped.state_dict())
    assert again.finished
    assert again.stopped == "max_imagined"
    assert run(again) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iterations": 5}, ""),
        ({"iterations": 0}, ""),
        ({"max_imagined": 0.5}, "max_imagined"),
        ({"max_imagined": 0.0}, "max_imagined"),
        ({"max_divergence": 0.16}, "max_divergence"),
        ({"max_divergence": -1.0}, "max_divergence"),
        ({"min_time": 9.0}, "min_time"),
    ],
)
def test_what_a_run_says_it_kept_is_the_policy_that_it_kept(changes: dict[str, Any], reason: str) -> None:
    ppo = make(**{"warmup": 1, **changes})
    # by the iterations behind it, each policy that dreamed; without an iteration, the cloned one
    policies = followed(ppo)[0] or [weights(ppo)]
    assert ppo.stopped == reason
    assert ppo.kept == max(i for i, policy in enumerate(policies) if torch.equal(policy, weights(ppo)))

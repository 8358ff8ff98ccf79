"""Every policy update of ours keeps to the contract, and the contract notices who breaks it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from agents.imagination import RolloutBatch
from agents.policies.beso import BesoPolicy
from agents.policies.diffusion import DiffusionPolicy
from agents.policies.flow import FlowPolicy
from agents.policies.gaussian import GaussianPolicy
from agents.updates.base import Decisions, Update, discounted_return
from agents.updates.grpo import group_advantage
from agents.updates.ppo import PPO
from agents.updates.registry import UPDATES
from agents.updates.reinforce import Reinforce
from agents.updates.tools.contract import HEADS, check, examine, run, small, weights
from worldaction.config import CloneConfig
from worldaction.errors import UserError


@pytest.mark.parametrize("name", sorted(UPDATES.own()))
def test_every_update_in_the_folder_keeps_to_the_contract(name: str) -> None:
    cls = UPDATES.find(name)
    assert cls.name == name
    assert check(cls) == []


def test_the_folder_has_the_updates_that_the_documents_name() -> None:
    assert set(UPDATES.own()) == {"ppo", "grpo", "reinforce", "filtered_bc"}


@pytest.mark.parametrize("head", [GaussianPolicy, DiffusionPolicy, FlowPolicy, BesoPolicy])
@pytest.mark.parametrize("name", sorted(UPDATES.own()))
def test_every_update_improves_every_head(name: str, head: Any) -> None:
    # heads of few steps begin from worse clones here
    iterations = 14 if head in (GaussianPolicy, DiffusionPolicy) else 24
    history = [metrics["imagined/success"] for metrics in run(small(UPDATES.find(name), head, iterations=iterations))]
    assert history[0] < 0.3
    assert history[-1] > 0.9


# Who breaks it --------------------------------------------------------------------------------------------------------


class Nameless(Reinforce):
    name: Any = None


class Foreign(Reinforce):
    Options = CloneConfig


class Silent(Reinforce):
    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        return {key: v for key, v in super().learn(rollouts, decisions).items() if key != "policy_steps"}


class Idle(Reinforce):
    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        return {"policy_steps": 0.0}


class Meddling(Reinforce):
    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        next(self.policy.base.parameters()).add_(0.1)
        return super().learn(rollouts, decisions)


class Dice(Reinforce):
    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        return super().learn(rollouts, decisions._replace(feature=decisions.feature + 0.01 * torch.rand(1)))


class Forgetful(PPO):
    """Does not say that its critic is part of the state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.learned["critic"]


class Contrary(Reinforce):
    def step(self, loss: torch.Tensor) -> None:
        super().step(-loss)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Nameless, "class: name is missing"),
        (Foreign, "class: Options is no subclass"),
        (Silent, "metrics: learn gives no 'policy_steps'"),
        (Idle, "learns: nothing has been learned"),
        (Meddling, "learns: the cloned policy has changed"),
        (Dice, "repeats: two runs of one seed differ"),
        (Forgetful, "resumes: it goes on otherwise"),
        (Contrary, "improves: success in dreams goes from"),
    ],
)
def test_the_contract_names_what_is_broken(cls: type[Update], words: str) -> None:
    found = check(cls)
    assert any(sentence.startswith(words) for sentence in found), found


def test_the_examination_stops_where_the_class_is_wrong() -> None:
    assert len(list(examine(Foreign))) == 1
    assert len(list(examine(Reinforce))) == 6


# What they share, and what each is ------------------------------------------------------------------------------------


def rollouts(success: list[list[int]]) -> RolloutBatch:
    done = torch.tensor(success).bool()
    return RolloutBatch(
        feature=torch.zeros(*done.shape, 1),
        stored={},
        alive=torch.ones_like(done),
        success=done,
        reward=done.float(),
        success_step=done.any(1).long(),
        last_feature=torch.zeros(len(done), 1),
    )


def test_the_return_of_a_dream_is_its_success_discounted_by_the_decisions_before() -> None:
    found = discounted_return(rollouts([[1, 0, 0], [0, 0, 1], [0, 0, 0]]), 0.5)
    assert found.tolist() == [1.0, 0.25, 0.0]


def test_the_advantage_of_a_dream_is_relative_to_the_dreams_from_its_start() -> None:
    returns = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.9, 0.9, 0.9, 0.9])
    first, second = group_advantage(returns, 4).split(4)
    # mean 1/4, deviation sqrt(3)/4
    expected = [3 / math.sqrt(3), *[-1 / math.sqrt(3)] * 3]
    assert first.tolist() == pytest.approx(expected, abs=1e-5)
    # where all came to the same, nobody was better, however good they were
    assert second.tolist() == [0.0] * 4


def test_the_dreams_of_a_group_begin_at_one_start() -> None:
    grpo = small(UPDATES.find("grpo"))
    found = grpo.draw_starts(64).view(-1, 8)
    assert (found == found[:, :1]).all()
    assert len(found[:, 0].unique()) > 1
    with pytest.raises(UserError, match=r"--update\.dreams 12 is no multiple of the group of 8 dreams"):
        UPDATES.options(type(grpo), (), defaults={"dreams": 12})


def test_options_of_an_update_are_the_studys_and_its_own() -> None:
    cls = UPDATES.find("grpo")
    options = UPDATES.options(cls, [("group", "4")], defaults={"dreams": 32, "lr": 0.5})
    assert (options.group, options.dreams, options.lr) == (4, 32, 0.5)
    with pytest.raises(UserError, match="group 1: give 2 or more"):
        UPDATES.options(cls, [("group", "1")])


def test_updates_without_a_critic_have_no_warm_up() -> None:
    kinds = {"ppo": 1, "grpo": 0, "reinforce": 0}
    assert {name: small(UPDATES.find(name)).warmup for name in kinds} == kinds


def test_a_rule_stops_any_update_and_takes_its_last_step_back() -> None:
    update = small(Reinforce, max_divergence=0.0)
    first = weights(update.policy.tuned)
    run(update)
    assert update.stopped == "max_divergence"
    assert update.kept == 0
    assert torch.equal(weights(update.policy.tuned), first)


def test_heads_that_updates_are_tried_with_have_one_choice_and_several() -> None:
    steps = {head.name: small(Reinforce, head).policy.trained_steps for head in HEADS}
    assert steps == {"gaussian": 1, "diffusion": 4}

"""A page says under which sampler each policy acted, and how it was chosen."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.report.samplers import chosen, sampler_name, which_samplers

Json = dict[str, Any]
DIFFUSION = {"policy": {"name": "diffusion"}}
CHOICE = {"stochastic": 0.75, "deterministic": 1.0, "n": 4}


def _tasks(*samplers: str, choice: Json | None = None, other: bool = True) -> dict[str, Json]:
    seeds = [{"seed": i, "sampler": sampler, "choice": choice} for i, sampler in enumerate(samplers)]
    return {"turn_on_led": {"per_seed": seeds, "bc_other": {"rate": 0.5} if other else None}}


def test_one_training_names_both_samplers_and_the_episodes_of_the_choice() -> None:
    said = which_samplers(_tasks("deterministic", choice=CHOICE), "ppo", DIFFUSION)
    assert "(deterministic, DDIM; chosen 4 of 4 against 3 of 4)" in said
    assert "PPO under the one that it was trained with (stochastic, DDPM)." in said


def test_several_trainings_are_counted() -> None:
    said = which_samplers(_tasks("deterministic", "stochastic", "deterministic", choice=CHOICE), "grpo", DIFFUSION)
    assert "(deterministic, DDIM 2 times; stochastic, DDPM 1 times)" in said
    assert "GRPO" in said


@pytest.mark.parametrize("config", [DIFFUSION, {"policy": {"name": "gaussian"}}])
def test_policies_with_one_sampler_are_said_to_act_alike(config: Json) -> None:
    said = which_samplers(_tasks("stochastic", other=False), "ppo", config)
    assert said == f"BC and PPO both act under one sampler ({sampler_name('stochastic', config)})."


def test_the_names_of_diffusion_samplers_are_given_to_no_other_policy() -> None:
    assert sampler_name("deterministic", DIFFUSION) == "deterministic, DDIM"
    assert sampler_name("deterministic", {"policy": {"name": "my_file:Mine"}}) == "deterministic"


def test_runs_from_before_samplers_were_chosen_say_nothing() -> None:
    assert which_samplers({"turn_on_led": {"per_seed": [{"seed": 0}]}}, "ppo", DIFFUSION) == ""
    assert chosen({"sampler": "stochastic"}) == chosen({"sampler": "stochastic", "choice": None}) == ""

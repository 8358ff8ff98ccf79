"""Cloning recovers what demonstrations do, repeatably."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.bc import clone, demonstration_chunks, fit_averaged, follow
from agents.policies.diffusion import DiffusionPolicy
from agents.policies.gaussian import GaussianPolicy
from worldaction.errors import UserError
from worldaction.spec import Layout

SMALL: dict[str, Any] = {
    "options": {"denoising_steps": 8, "width": 64},
    "steps": 40,
    "batch": 64,
    "lr": 3e-3,
    "weight_decay": 1e-6,
    "ema": 0.99,
    "seed": 0,
}


def learn(features: Tensor, chunks: Tensor, **recipe: Any) -> DiffusionPolicy:
    return clone(DiffusionPolicy, features, chunks, **recipe)


def demonstrations() -> tuple[Tensor, Tensor]:
    """Features in [-1, 1] seen twice, and chunks of two actions: a random side, a function, a grip."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2, 1500, 3, generator=generator) * 2 - 1
    features[1] = features[0]
    side = torch.where(torch.rand(1500, generator=generator) < 0.5, -0.6, 0.6)
    follows = 0.8 * features[0, :, 0]
    grip = torch.where(features[0, :, 1] > 0, 1.0, -1.0)
    action = torch.stack([side, follows, grip], -1)
    return features, torch.stack([action, action], 1)


def test_chunks_run_on_past_the_end_at_rest_with_the_last_grip() -> None:
    actions = torch.tensor([[0.1, 0.2, 1.0], [0.3, 0.4, -1.0], [0.5, 0.6, -1.0]])
    chunks = demonstration_chunks(actions, 3)
    rest = torch.tensor([0.0, 0.0, -1.0])
    expected = [[0, 1, 2], [1, 2, None], [2, None, None]]
    for row, indices in zip(chunks, expected, strict=True):
        assert torch.equal(row, torch.stack([rest if i is None else actions[i] for i in indices]))
    assert torch.equal(demonstration_chunks(actions, 1)[:, 0], actions)


def test_past_the_end_a_robot_stays_where_its_layout_says_that_it_stays() -> None:
    actions = torch.tensor([[0.1, 0.2, 1.0], [0.3, 0.4, -1.0]])
    moves = Layout((), 3, 0, 3, (0.5, 0.0, 1.0), binary=(2,))
    for layout, rest in (
        (moves, [0.5, 0.0, -1.0]),
        (replace(moves, binary=()), [0.5, 0.0, 1.0]),
        (replace(moves, absolute=True), [0.3, 0.4, -1.0]),
    ):
        chunks = demonstration_chunks(actions, 3, layout=layout)
        assert torch.equal(chunks[0], torch.cat([actions, torch.tensor([rest])]))
        assert torch.equal(chunks[1], torch.cat([actions[1:], torch.tensor([rest, rest])]))
    with pytest.raises(UserError, match="actions of 3 numbers, its layout says 2"):
        demonstration_chunks(actions, 3, layout=Layout((), 3, 0, 2, (0.0, 0.0)))


def reached(layout: Layout) -> int:
    """How many of 40 episodes of a clone end at their goal: a robot in the plane that goes where it is told to be.

    Args:
        layout: what cloning takes its actions for.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> Tensor:
        return torch.rand(count, 2, generator=generator) * 2 - 1

    seen, chunks = [], []
    for place, goal in zip(drawn(80), drawn(80), strict=True):
        states, actions, left = [], [], 3
        while left:
            left -= bool((goal - place).abs().max() < 0.02)
            states.append(torch.cat([place, goal]))
            actions.append(place + (goal - place).clamp(-0.2, 0.2))
            place = place + 0.8 * (actions[-1] - place)
        seen += states
        chunks.append(demonstration_chunks(torch.stack(actions), 6, layout=layout))
    recipe = SMALL | {"options": {"width": 64}, "steps": 600, "batch": 128}
    policy = clone(GaussianPolicy, torch.stack(seen)[None], torch.cat(chunks), binary=(), **recipe)
    place, goal = drawn(40), drawn(40)
    for _ in range(8):
        chunk = policy.sample(torch.cat([place, goal], -1), torch.zeros(40, *policy.noise_shape), deterministic=True)
        for action in chunk.unbind(1):
            place = place + 0.8 * (action - place)
    return int(((goal - place).abs().amax(-1) < 0.1).sum())


def test_clones_of_a_robot_that_is_told_where_to_be_stay_at_the_goal() -> None:
    told = Layout((), 4, 0, 2, (0.0, 0.0), absolute=True)
    # taken for moves, what follows the end of a demonstration sends it to the middle
    assert reached(told) >= 36
    assert reached(replace(told, absolute=False)) <= 20


def test_clone_learns_functions_and_choices_alike() -> None:
    features, chunks = demonstrations()
    wide = {"steps": 800, "batch": 256, "options": {"denoising_steps": 8, "width": 128}}
    policy = learn(features, chunks, **SMALL | wide)
    generator = torch.Generator().manual_seed(1)
    feature = torch.rand(500, 3, generator=generator) * 2 - 1
    sure = feature[:, 1].abs() > 0.2
    actions = policy.sample(feature, torch.randn(500, *policy.noise_shape, generator=generator))
    side, followed, grip = actions[:, 0].unbind(-1)
    assert (followed - 0.8 * feature[:, 0]).abs().mean() < 0.05
    assert (grip == feature[:, 1].sign())[sure].float().mean() > 0.95
    # a mean would be 0: a diffusion policy takes one side or the other
    assert (side.abs() - 0.6).abs().mean() < 0.15
    assert 0.3 < (side > 0).float().mean() < 0.7


def test_equal_seeds_give_equal_policies_and_leave_the_global_generator_alone() -> None:
    features, chunks = demonstrations()
    before = torch.get_rng_state()
    one, two, other = (learn(features, chunks, **SMALL | {"seed": seed}).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_interrupted_cloning_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    features, chunks = demonstrations()
    whole = learn(features, chunks, **SMALL).state_dict()

    def fail(step: int, figures: Mapping[str, float]) -> None:
        if step == 25:
            raise KeyboardInterrupt

    saving = SMALL | {"checkpoint": tmp_path / "clone.safetensors", "save_every": 10}
    with pytest.raises(KeyboardInterrupt):
        learn(features, chunks, **saving, report=fail)
    steps: list[int] = []
    resumed = learn(features, chunks, **saving, report=lambda step, figures: steps.append(step)).state_dict()
    assert steps[0] == 21
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_slow_average_does_not_hold_a_short_run_at_its_initial_weights() -> None:
    features, chunks = demonstrations()
    initial, slow, last = (
        torch.nn.utils.parameters_to_vector(learn(features, chunks, **SMALL | changes).parameters())
        for changes in ({"steps": 0}, {"ema": 0.9999}, {"ema": 0.0})
    )
    assert (slow - initial).norm() > 0.3 * (last - initial).norm()


def test_averaged_weights_follow_by_their_decay() -> None:
    slow, fast = (DiffusionPolicy(2, 1, chunk=1, denoising_steps=2, width=4) for _ in range(2))
    before = slow.denoiser.out.weight.clone()
    follow(slow, fast, 0.75)
    assert torch.allclose(slow.denoiser.out.weight, 0.75 * before + 0.25 * fast.denoiser.out.weight)


def test_what_does_not_fit_is_refused_by_its_shape() -> None:
    features, chunks = demonstrations()
    with pytest.raises(UserError, match=r"features \[2, 1500, 3\] do not go with chunks \[7, 2, 3\]"):
        learn(features, chunks[:7], **SMALL)
    with pytest.raises(UserError, match=r"shape \[0, 7\]"):
        demonstration_chunks(torch.zeros(0, 7), 4)


def test_the_result_is_another_module_than_the_one_that_was_trained_and_frozen() -> None:
    torch.manual_seed(0)
    layer, steps = torch.nn.Linear(3, 1), list[int]()
    weight = layer.weight.detach().clone()
    average = fit_averaged(
        layer,
        lambda: (layer(torch.ones(4, 3)) - 5.0).square().mean(),
        steps=20,
        lr=1e-2,
        weight_decay=0.0,
        ema=0.9,
        report=lambda step, figures: steps.append(step),
    )
    assert steps == list(range(1, 21))
    moved = [(one - weight).norm() for one in (average.weight, layer.weight)]
    assert 0 < moved[0] < moved[1]
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())

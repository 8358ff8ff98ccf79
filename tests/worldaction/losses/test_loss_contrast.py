"""Contrast: InfoNCE is what its equation says, and what TACO and temporal contrast can and cannot tell apart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.losses import Loss
from worldaction.losses.base import actions_between, joined, known_actions
from worldaction.losses.contrast import info_nce
from worldaction.losses.taco import TACO
from worldaction.losses.temporal_contrastive import TemporalContrastive
from worldaction.losses.tools import contract
from worldaction.spec import ACTION, ACTION_MASK, IS_INIT

# Frames that belong together ------------------------------------------------------------------------------------------


def test_frames_are_joined_if_no_episode_begins_between_them() -> None:
    batch = contract.noise_batch()
    episode = batch["episode"]
    for steps in range(1, 8):
        assert torch.equal(joined(batch, steps), episode[:, steps:] == episode[:, :-steps])


def test_actions_between_frames_are_those_executed_from_the_first_on() -> None:
    batch = contract.noise_batch()
    for steps in (1, 3):
        found, inside = actions_between(batch, steps), joined(batch, steps)
        assert found.shape == (3, 8 - steps, steps, 7)
        for i in range(steps):
            executed = batch[ACTION][:, i : 8 - steps + i]
            assert torch.equal(found[:, :, i][inside], executed[inside])


def test_several_actions_are_known_if_each_of_them_is() -> None:
    batch = contract.noise_batch()
    batch[ACTION_MASK] = torch.ones_like(batch[IS_INIT])
    batch[ACTION_MASK][1, 4] = False
    assert known_actions(batch, 3)[1].tolist() == [True, True, False, False, False]
    assert known_actions(batch, 1)[1].tolist() == [True] * 4 + [False] + [True] * 2


@pytest.mark.parametrize("steps", [0, 8])
def test_more_steps_than_a_window_has_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match=f"looks {steps} frames ahead in windows of 8"):
        joined(contract.noise_batch(), steps)


# InfoNCE --------------------------------------------------------------------------------------------------------------


def test_info_nce_is_the_cross_entropy_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(2, 2, 4, 5, generator=generator, dtype=torch.float64).unbind(0)
    counts = torch.tensor([[True, True, False, True], [True, True, True, False]])
    found, _ = info_nce(queries, keys, counts)
    places = [(b, t) for b in range(2) for t in range(4) if counts[b, t]]
    for b, t in places:
        scores = {place: float(queries[b, t] @ keys[place]) / math.sqrt(5) for place in places}
        expected = math.log(sum(math.exp(score) for score in scores.values())) - scores[b, t]
        assert float(found[b, t]) == pytest.approx(expected, abs=1e-5)
    assert bool(torch.isfinite(found).all())


def test_info_nce_is_finite_and_flat_where_nothing_counts() -> None:
    queries = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value, accuracy = info_nce(queries, queries.detach(), torch.zeros(2, 3, dtype=torch.bool))
    assert accuracy == 0.0
    (gradient,) = torch.autograd.grad(value.sum(), queries)
    assert bool(torch.isfinite(value).all())
    assert gradient.abs().max() == 0.0


def test_the_right_answer_is_found_where_the_keys_are_the_queries() -> None:
    points = 20.0 * torch.eye(6).view(2, 3, 6)
    value, accuracy = info_nce(points, points, torch.ones(2, 3, dtype=torch.bool))
    assert accuracy == 1.0
    assert value.max() < 1e-3


# In a world that the actions move -------------------------------------------------------------------------------------


def accuracy_on_moved_points(cls: type[Loss], *, reads: bool = True) -> float:
    """Points that the actions push about: how often a trained loss finds the frame that follows.

    Args:
        cls: the loss, looking one frame ahead.
        reads: whether the actions are the true ones.
    """
    one = contract.trial(cls)
    loss = cls(cls.Options(steps=1), one.loss.shapes)
    generator = torch.Generator().manual_seed(1)

    def world() -> tuple[Tensor, Tensor]:
        push = torch.rand(16, 8, 7, generator=generator) * 2 - 1
        place = torch.randn(16, 1, 7, generator=generator) * 0.1 + push.cumsum(1)
        return torch.nn.functional.pad(place, (0, loss.shapes.seen - 7)), push

    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    batch = contract.noise_batch(16, 8)
    batch[IS_INIT][:, 1:] = False
    scores = []
    with contract.seeded(0):
        for _ in range(100):
            place, push = world()
            batch["previous_action"] = push if reads else push.roll(1, 0)
            taps = replace(one.latents, embed=torch.nn.functional.pad(place, (0, loss.shapes.proprio)))
            output = loss(taps, batch, one.model)
            optimizer.zero_grad()
            output.mean().backward()
            optimizer.step()
            scores.append(float(output.metrics["accuracy"]))
    return sum(scores[-20:]) / 20


def test_taco_finds_the_next_frame_by_the_action_and_temporal_contrast_has_to_guess_it() -> None:
    with_actions, without = accuracy_on_moved_points(TACO), accuracy_on_moved_points(TemporalContrastive)
    misled = accuracy_on_moved_points(TACO, reads=False)
    assert with_actions > 0.6
    assert with_actions > without + 0.2
    assert with_actions > misled + 0.2


@pytest.mark.parametrize("cls", [TACO, TemporalContrastive])
def test_neither_looks_at_the_proprioception(cls: type[Loss]) -> None:
    one = contract.trial(cls)
    before = one.run().value
    embed = one.latents.embed.detach().clone()
    embed[..., one.loss.shapes.seen :] += 1.0
    assert torch.equal(replace(one, latents=replace(one.latents, embed=embed)).run().value, before)


def test_an_unknown_action_takes_its_frames_out_of_taco_and_leaves_them_in_temporal_contrast() -> None:
    for cls, stay in ((TACO, False), (TemporalContrastive, True)):
        one = contract.trial(cls)
        all_known = one.run().mask
        one.batch[ACTION_MASK] = torch.ones_like(one.batch[IS_INIT])
        one.batch[ACTION_MASK][1, 3] = False
        mask = one.run().mask
        assert mask is not None
        assert all_known is not None
        assert (mask != all_known)[1].nonzero().flatten().tolist() == ([] if stay else [1, 2, 3])

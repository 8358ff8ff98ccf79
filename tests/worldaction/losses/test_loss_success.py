"""The head for what the simulator knows: closed forms, any layout's numbers, and labels that have to be there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from worldaction.errors import UserError
from worldaction.losses import build
from worldaction.losses.success import Success
from worldaction.losses.tools import contract
from worldaction.spec import SCENE, SCENE_FIELDS

SHAPES = contract.tiny_model().shapes


def test_a_head_that_says_nothing_costs_a_bit_a_light_and_half_the_squares() -> None:
    one = contract.trial(Success)
    one.batch[SCENE] = torch.zeros_like(one.batch[SCENE])
    one.batch[SCENE][..., SCENE_FIELDS["led"]] = 1.0
    one.batch[SCENE][1, 2, SCENE_FIELDS["drawer"]] = 0.1
    head = nn.Linear(SHAPES.feature, 4)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    one.loss.head = head
    value = one.run().value
    expected = torch.full((3, 8), 2 * math.log(2.0))
    expected[1, 2] += 0.5 * (0.1 / 0.05) ** 2
    assert torch.allclose(value, expected)


@pytest.mark.parametrize(
    ("text", "outputs"), [("success,binary=0,real=none", 1), ("success,binary=none,real=0/1/2", 3)]
)
def test_any_numbers_can_be_asked_for(text: str, outputs: int) -> None:
    head = build([text], SHAPES)["success"].head
    assert head[-1].out_features == outputs


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("success,binary=4+5", "'4+5'"),
        ("success,real=drawer", "'drawer'"),
        ("success,binary=none,real=none", "nothing to predict"),
    ],
)
def test_what_names_no_numbers_is_refused(text: str, named: str) -> None:
    with pytest.raises(UserError) as raised:
        build([text], SHAPES)
    assert named in str(raised.value)


def test_labels_that_are_missing_or_too_few_are_named() -> None:
    one = contract.trial(Success)
    one.batch[SCENE] = one.batch[SCENE][..., :3]
    with pytest.raises(UserError, match=r"6 numbers of scene_obs, which are 3 a frame"):
        one.run()
    del one.batch[SCENE]
    with pytest.raises(UserError, match="not in the batch"):
        one.run()

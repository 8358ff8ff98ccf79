"""Success, failure and unknown are told apart, whoever recorded them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worldaction.errors import UserError
from worldaction.play.labels import achieved, answer, is_sparse, of_rewards


@pytest.mark.parametrize(
    ("flags", "from_reset", "expected"),
    [
        ([0, 0, 1], False, True),
        ([1], False, True),  # an episode that ends at its first step
        ([1, 1, 1], False, True),
        ([0, 0], False, False),
        ([0, 0, 1, 0], True, True),
        ([1, 0, 0, 0], True, False),  # left over from the episode before
        ([1, 0, 0, 1], True, True),
        ([1, 1, 1], True, None),  # solved at reset
        ([1, 1, 0], True, None),
        ([0, 1], True, True),
        ([1], True, False),  # nothing but a reset
        ([0.0, 0.3, 0.9], False, None),
        ([0.0, np.nan, 1.0], False, None),
        ([None, True], False, None),
        (["yes", "no"], False, None),
        ([], False, None),
        (1, False, None),
        ([[0, 0], [0, 1]], False, True),
    ],
)
def test_a_success_comes_about_after_the_reset(flags: Any, from_reset: bool, expected: bool | None) -> None:
    found = achieved(np.array(flags), from_reset=from_reset)
    assert found is expected


@pytest.mark.parametrize(
    ("rewards", "sparse"),
    [
        ([[0, 0, 1], [0, 0, 0]], True),
        ([[0, 1, 1], [1], [0, 0, 1]], True),  # one ends at its first step
        ([[0.01, 0.02, 0.03]], False),
        ([[0, 0, 1], [0, 0.5, 0]], False),
        ([[1, 1, 1], [1, 1]], False),  # one for each step survived
        ([[0, 0, 0], [0, 0]], False),  # nobody gave any
        ([[-1, -1, 0]], False),
        ([], False),
        ([[]], False),
    ],
)
def test_only_rewards_of_0_until_1_are_labels(rewards: list[list[float]], sparse: bool) -> None:
    assert is_sparse([np.array(reward) for reward in rewards]) is sparse


def test_an_episode_without_rewards_is_unknown_beside_others_that_have_them() -> None:
    assert of_rewards([np.array([0, 1]), None, np.array([0, 0])]) == [True, None, False]
    assert of_rewards([np.array([0.2, 0.4]), None]) == [None, None]


def test_the_unknown_is_success_or_failure_and_nothing_else() -> None:
    assert (answer("success"), answer("failure"), answer(None)) == (True, False, None)
    with pytest.raises(UserError, match="unknown=yes: attempts of unknown success can be taken for success or failure"):
        answer("yes")

"""What the baselines of Stable-Baselines3 share."""

from __future__ import annotations

import pytest

from experiments.baselines.sb3 import minibatch, whole
from worldaction.errors import UserError


def test_batches_are_whole_and_divided_without_remainder() -> None:
    assert whole(100, 30, "x") == 90
    assert [minibatch(size, 64) for size in (128, 60, 90, 7)] == [64, 60, 45, 7]
    with pytest.raises(UserError, match="--steps 29 is less than one batch of x, 30 steps"):
        whole(29, 30, "x")

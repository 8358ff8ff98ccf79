"""Pictures are judged where something moves: a robot that has vanished is told from one that is drawn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldaction.metrics.images import psnr
from worldaction.metrics.moving import CHANGE, average_picture, moving_pixels

SIDE, WINDOWS, FRAMES = 32, 4, 6


def _pictures(arm: list[list[int]], light: int = 200) -> Tensor:
    """A bright block of 4 x 8 pixels, the arm, at a column of each frame before a grey background, [M, T, H, W, 3]."""
    pictures = torch.full((len(arm), len(arm[0]), SIDE, SIDE, 3), 90, dtype=torch.uint8)
    for window, columns in enumerate(arm):
        for time, column in enumerate(columns):
            pictures[window, time, 10:14, column : column + 8] = light
    return pictures


# the arm begins at a column of each window and moves by two pixels a frame
PATHS = [[start + 2 * t for t in range(FRAMES + 1)] for start in range(0, 3 * WINDOWS, 3)]
ALL = _pictures(PATHS)
LAST, TRUE = ALL[:, 0], ALL[:, 1:]
BACKGROUND = torch.full_like(TRUE, 90)
AVERAGE = BACKGROUND[0, 0].float()


def _scores(predicted: Tensor) -> dict[str, Tensor]:
    return moving_pixels(predicted, TRUE, LAST, AVERAGE)


def test_a_model_that_sees_the_future_is_perfect_and_one_that_repeats_the_last_frame_is_still() -> None:
    assert _scores(TRUE)["model"].tolist() == [100.0] * FRAMES
    repeated = _scores(LAST[:, None].expand_as(TRUE))
    assert torch.equal(repeated["model"], repeated["still"])


def test_a_vanished_robot_is_praised_by_psnr_and_not_on_the_pixels_that_move() -> None:
    assert float(psnr(BACKGROUND, TRUE).mean()) > 20
    found = _scores(BACKGROUND)
    assert float(found["model"].max()) < 12
    # half of what changed is background again: the last frame alone would make this model look good
    assert bool((found["model"] > found["still"] + 2).all())
    assert torch.allclose(found["model"], found["average"])


def test_the_share_is_that_of_the_pixels_that_changed() -> None:
    # two columns of four pixels a frame are uncovered and as many covered, until the arm has left its place
    area = SIDE * SIDE
    expected = [2 * 4 * min(2 * t, 8) / area for t in range(1, FRAMES + 1)]
    assert _scores(TRUE)["share"].tolist() == pytest.approx(expected)


def test_noise_below_the_threshold_is_no_movement_and_nothing_is_said_of_it() -> None:
    noisy = LAST[:, None].expand_as(TRUE).clone() + CHANGE
    found = moving_pixels(noisy, noisy, LAST, AVERAGE)
    assert found["share"].tolist() == [0.0] * FRAMES
    assert all(math.isnan(value) for value in found["model"].tolist())


def test_a_window_counts_as_much_as_moves_in_it() -> None:
    quiet, busy = TRUE.clone(), TRUE.clone()
    quiet[1:] = LAST[1:, None]
    once = moving_pixels(busy[:1] // 2, busy[:1], LAST[:1], AVERAGE)
    among = moving_pixels(torch.cat([busy[:1] // 2, quiet[1:]]), quiet, LAST, AVERAGE)
    assert torch.allclose(once["model"], among["model"])


def test_the_average_picture_is_the_mean_of_all() -> None:
    pictures = torch.randint(256, (600, 4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.allclose(average_picture(pictures), pictures.float().mean(0), atol=1e-3)

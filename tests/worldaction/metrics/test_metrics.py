"""Measurements, held to closed forms and to slow, obvious versions of themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from worldaction.metrics.images import psnr, ssim
from worldaction.metrics.probes import auroc, predict, r2, ridge


def picture(seed: int, *lead: int, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (*lead, size, size, 3), generator=generator, dtype=torch.uint8)


# Images ---------------------------------------------------------------------------------------------------------------


def test_equal_images_have_100_db_and_a_similarity_of_one() -> None:
    image = picture(0, 2, 3)
    assert psnr(image, image).tolist() == [[100.0] * 3] * 2
    assert torch.allclose(ssim(image, image), torch.ones(2, 3), atol=1e-4)
    flat = torch.full((16, 16, 3), 7, dtype=torch.uint8)
    assert ssim(flat, flat).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("offset", [1, 10, 255])
def test_psnr_of_a_constant_offset_is_known(offset: int) -> None:
    dark = torch.zeros(4, 16, 16, 3, dtype=torch.uint8)
    expected = 20 * math.log10(255 / offset)
    assert psnr(dark + offset, dark).tolist() == pytest.approx([expected] * 4, abs=1e-4)


def test_psnr_does_not_wrap_around_in_bytes() -> None:
    low, high = torch.zeros(16, 16, 3, dtype=torch.uint8), torch.full((16, 16, 3), 255, dtype=torch.uint8)
    assert psnr(low, high).item() == pytest.approx(0.0, abs=1e-5) == psnr(high, low).item()


def test_ssim_of_two_greys_is_the_luminance_term() -> None:
    a, b = (torch.full((16, 16, 3), grey, dtype=torch.uint8) for grey in (100, 150))
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b).item() == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-4)


def test_ssim_is_symmetric_and_falls_with_noise() -> None:
    a, b = picture(1, 5), picture(2, 5)
    assert torch.allclose(ssim(a, b), ssim(b, a), atol=1e-6)
    scores = [ssim(a, ((1 - w) * a.float() + w * b.float()).to(torch.uint8)).mean() for w in (0.1, 0.3, 0.9)]
    assert scores[0] > scores[1] > scores[2]


def test_a_negative_is_anticorrelated() -> None:
    image = picture(3)
    assert ssim(image, 255 - image).item() < 0


def test_ssim_equals_a_loop_over_windows_in_float64() -> None:
    a, b = picture(4, size=13), picture(5, size=13)
    b = (0.6 * a.float() + 0.4 * b.float()).to(torch.uint8)
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    scores = []
    for channel in range(3):
        for i in range(3):
            for j in range(3):
                x, y = (im[i : i + 11, j : j + 11, channel].double().numpy() for im in (a, b))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * x * x).sum() - mx**2, (window * y * y).sum() - my**2
                cov = (window * x * y).sum() - mx * my
                scores.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(a, b).item() == pytest.approx(np.mean(scores), abs=1e-4)


# Probes ---------------------------------------------------------------------------------------------------------------


def regression() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    weights = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    return feature, feature @ weights + 3.0 + 0.1 * torch.randn(200, 2, generator=generator, dtype=torch.float64)


def test_ridge_without_penalty_is_least_squares() -> None:
    feature, target = regression()
    design = np.concatenate([feature.numpy(), np.ones((200, 1))], 1)
    expected = np.linalg.lstsq(design, target.numpy(), rcond=None)[0]
    assert np.allclose(ridge(feature, target, penalty=0.0).numpy(), expected)


@pytest.mark.parametrize("penalty", [0.5, 40.0])
def test_ridge_is_least_squares_with_extra_rows_and_a_free_offset(penalty: float) -> None:
    feature, target = regression()
    design = np.concatenate([feature.numpy(), np.ones((200, 1))], 1)
    rows = np.sqrt(penalty) * np.eye(7)[:6]
    wanted = np.concatenate([target.numpy(), np.zeros((6, 2))])
    expected = np.linalg.lstsq(np.concatenate([design, rows]), wanted, rcond=None)[0]
    assert np.allclose(ridge(feature, target, penalty=penalty).numpy(), expected)


def test_a_strong_penalty_leaves_the_mean() -> None:
    feature, target = regression()
    weights = ridge(feature, target, penalty=1e9)
    assert torch.allclose(predict(weights, feature), target.mean(0).expand(200, 2), atol=1e-4)


def test_predictions_explain_what_was_generated() -> None:
    feature, target = regression()
    found = predict(ridge(feature, target, penalty=1e-3), feature.view(10, 20, 6))
    assert found.shape == (10, 20, 2)
    assert r2(found.view(200, 2)[:, 0], target[:, 0]) > 0.98


def test_r2_of_the_truth_the_mean_and_worse() -> None:
    true = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert r2(true, true) == 1.0
    assert r2(true.mean().expand(4), true) == 0.0
    assert r2(-true, true) < 0.0
    assert r2(torch.tensor([1.0, 2.0, 3.0, 5.0]), true) == pytest.approx(1 - 1 / 14)


def test_r2_where_nothing_varies_is_not_a_number() -> None:
    still = torch.ones(4)
    assert math.isnan(r2(still, still))
    assert math.isnan(r2(still + 0.1, still))


def brute(score: Tensor, label: Tensor) -> float:
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in score[label].tolist() for n in score[~label].tolist()]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("levels", [3, 10, 1_000_000])
def test_auroc_counts_pairs_and_ties_as_half(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    for _ in range(5):
        score = torch.randint(levels, (60,), generator=generator).float()
        label = torch.rand(60, generator=generator) < 0.3
        assert auroc(score, label) == pytest.approx(brute(score, label))
        assert auroc(-score, label) == pytest.approx(1 - brute(score, label))


def test_auroc_of_perfect_useless_and_undefined_scores() -> None:
    label = torch.tensor([False, False, True, True])
    assert auroc(torch.arange(4.0), label) == 1.0
    assert auroc(-torch.arange(4.0), label) == 0.0
    assert auroc(torch.zeros(4), label) == 0.5
    assert math.isnan(auroc(torch.arange(4.0), label | True))
    assert math.isnan(auroc(torch.arange(4.0), label & False))

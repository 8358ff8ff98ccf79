"""The success classifier and its contrastive loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.success import SuccessClassifier, fit_success, nt_xent, precision_recall

SMALL: dict[str, Any] = {"hidden": 32, "dropout": 0.2, "steps": 150, "batch": 128, "lr": 3e-3, "contrastive": 0.1}


def labelled(count: int = 800, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents of which one direction in twelve says whether the task is done: about one in six."""
    feature = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))
    return feature, feature[:, 3] > 1.0


def test_nt_xent_is_the_mean_over_pairs_of_equal_label() -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    label = torch.tensor([1, 0, 0, 1, 0, 1, 0, 0, 1]).bool()
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in embedding.tolist()]
    score = [[math.exp(sum(a * b for a, b in zip(u, v, strict=True)) / 0.5) for v in unit] for u in unit]
    terms = []
    for i in range(9):
        others = sum(score[i][n] for n in range(9) if label[n] != label[i])
        terms += [-math.log(score[i][p] / (score[i][p] + others)) for p in range(9) if p != i and label[p] == label[i]]
    assert nt_xent(embedding, label).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


@pytest.mark.parametrize("label", [[True, False], [True, True, True]])
def test_nt_xent_is_finite_without_pairs_or_without_others(label: list[bool]) -> None:
    embedding = torch.randn(len(label), 4, requires_grad=True)
    loss = nt_xent(embedding, torch.tensor(label))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()


@pytest.mark.parametrize("contrastive", [0.0, 0.1])
def test_classifier_tells_success_from_failure_on_new_latents(contrastive: float) -> None:
    classifier = fit_success(*labelled(), **SMALL | {"contrastive": contrastive}, seed=0)
    feature, label = labelled(seed=1)
    score = precision_recall(classifier.probability(feature), label, 0.5)
    assert score.precision is not None
    assert score.precision > 0.85
    assert score.recall is not None
    assert score.recall > 0.85


def test_a_probability_is_one_however_rare_successes_are() -> None:
    label = torch.arange(1000) % 10 == 0
    classifier = fit_success(torch.ones(1000, 12), label, **SMALL | {"contrastive": 0.0, "dropout": 0.0}, seed=0)
    # nothing to go by but that it is one in ten; weighed by five, they would be called 0.36
    assert classifier.probability(torch.ones(12)).item() == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("contrastive", [0.0, 0.1])
def test_of_what_is_called_likely_as_much_is_true_as_is_said(contrastive: float) -> None:
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(8000, 12, generator=generator)
    true = torch.sigmoid(3.0 * feature[:, 3] - 3.0)
    label = torch.rand(8000, generator=generator) < true
    options = SMALL | {"steps": 300, "contrastive": contrastive}
    classifier = fit_success(feature[:6000], label[:6000], **options, seed=0)
    said, true = classifier.probability(feature[6000:]), true[6000:]
    # balanced classes say 0.07 to 0.2 more in every one of these
    for low, high in ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.95)):
        called = (said >= low) & (said < high)
        assert said[called].mean().item() == pytest.approx(true[called].mean().item(), abs=0.06)
    assert (said - true).abs().mean() < 0.05


def test_contrastive_term_draws_successes_together() -> None:
    feature, label = labelled(seed=1)
    apart, together = (
        nt_xent(fit_success(*labelled(), **SMALL | {"contrastive": scale}, seed=0).embedding(feature), label)
        for scale in (0.0, 1.0)
    )
    assert together < apart - 0.1


def test_equal_seeds_give_equal_classifiers_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = (
        fit_success(*labelled(), **SMALL | {"steps": 10}, seed=seed)(labelled()[0]) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_trained_classifier_is_frozen_and_deterministic() -> None:
    classifier = fit_success(*labelled(), **SMALL | {"steps": 3}, seed=0)
    feature = torch.randn(2, 3, 12)
    assert torch.equal(classifier(feature), classifier(feature))
    assert torch.equal(classifier.probability(feature), classifier(feature).sigmoid())
    assert classifier(feature).shape == (2, 3)
    assert not any(p.requires_grad for p in classifier.parameters())
    again = SuccessClassifier(**classifier.config).eval()
    again.load_state_dict(classifier.state_dict())
    assert torch.equal(again(feature), classifier(feature))


def test_precision_and_recall_by_hand() -> None:
    probability, label = torch.tensor([0.9, 0.8, 0.6, 0.2, 0.9]), torch.tensor([1, 1, 0, 1, 0])
    assert precision_recall(probability, label, 0.6) == (2 / 4, 2 / 3, 3, 5)
    assert precision_recall(probability, label, 0.9) == (1 / 2, 1 / 3, 3, 5)
    assert precision_recall(probability, label, 0.95) == (None, 0.0, 3, 5)
    assert precision_recall(probability, torch.zeros(5), 0.5) == (0.0, None, 0, 5)


def test_classifier_needs_both_kinds_of_latents_and_a_label_for_each() -> None:
    feature, label = labelled()
    with pytest.raises(UserError, match="0 of 800 latents are successes"):
        fit_success(feature, torch.zeros_like(label), **SMALL, seed=0)
    with pytest.raises(UserError, match=r"features \[800, 12\] do not go with labels \[5\]"):
        fit_success(feature, label[:5], **SMALL, seed=0)

"""The latent success classifier, which is the reward of dreams: is the task done in this state of the world model?

Cross-entropy, and beside it NT-Xent over pairs of equal label (as DiWA does, arXiv 2508.03645), which pulls latents of
success together whatever else the scene shows. Successes and failures weigh the same, however rare either is: a weight
would move the logit by its logarithm, and .9 would be called what is .7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldaction.errors import UserError
from worldaction.fit import Fit, Report, cosine_decay

TEMPERATURE = 0.5
CONTRASTED = 128  # latents of a batch that are paired: the cost is quadratic (DiWA: 32)
WEIGHT_DECAY = 0.01


class SuccessClassifier(nn.Module):
    """An MLP with one hidden layer from a feature to the logit of success.

    Args:
        feature_size: size F of the world model's feature.
        hidden: width of the hidden layer.
        dropout: dropout after it, while training.
    """

    def __init__(self, feature_size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"feature_size": feature_size, "hidden": hidden, "dropout": dropout}
        self.embedding = nn.Sequential(nn.Linear(feature_size, hidden), nn.LayerNorm(hidden), nn.ELU())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, 1))

    def forward(self, feature: Tensor) -> Tensor:
        """The logit of success, [..., F] -> [...]."""
        logit: Tensor = self.head(self.embedding(feature)).squeeze(-1)
        return logit

    def probability(self, feature: Tensor) -> Tensor:
        """The probability of success among latents like those of the training, [..., F] -> [...]."""
        return self(feature).sigmoid()


def nt_xent(embedding: Tensor, label: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """Normalised temperature-scaled cross-entropy over all pairs of equal label (Chen et al. 2020, arXiv 2002.05709).

    For a pair (i, p) of equal label: -log of exp(s_ip) over exp(s_ip) plus the sum of exp(s_in) over all n of the other
    label, where s is the cosine over the temperature.

    Args:
        embedding: [B, E].
        label: [B] bool.
        temperature: tau.

    Returns:
        [] mean over the pairs; 0 if there are none.
    """
    unit = functional.normalize(embedding, dim=-1)
    # [B, B], at most 0: the ratio does not change when all scores are lowered, and nothing overflows
    score = (unit @ unit.T - 1.0) / temperature
    share = score.exp()
    same = label[:, None] == label[None, :]
    others = (share * ~same).sum(-1, keepdim=True)
    pairs = same.fill_diagonal_(False)
    return (((share + others).log() - score) * pairs).sum() / pairs.sum().clamp(min=1)


def fit_success(
    features: Tensor,
    labels: Tensor,
    *,
    hidden: int,
    dropout: float,
    steps: int,
    batch: int,
    lr: float,
    contrastive: float,
    seed: int,
    report: Report | None = None,
    begin: SuccessClassifier | None = None,
) -> SuccessClassifier:
    """Train a success classifier.

    Args:
        features: [M, F] latents, real and imagined.
        labels: [M] bool, the task is done.
        hidden: width of the hidden layer.
        dropout: dropout after it.
        steps: gradient steps.
        batch: latents per step.
        lr: learning rate of AdamW, which falls by a cosine.
        contrastive: scale of the NT-Xent term.
        seed: seed of the weights, the batches and the dropout.
        report: called after each step with the number of finished steps and the metrics.
        begin: a trained classifier of the same sizes to go on with; None begins with nothing.

    Returns:
        The classifier, frozen and in evaluation mode.

    Raises:
        UserError: the shapes do not fit together, or one of the two labels is missing.
    """
    labels = labels.bool()
    _check_labelled(features, labels)
    with torch.random.fork_rng(devices=[features.device] if features.is_cuda else []):
        torch.manual_seed(seed)
        classifier = SuccessClassifier(features.shape[1], hidden, dropout).to(features.device)
        if begin is not None:
            classifier.load_state_dict(begin.state_dict())

        def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
            rows = torch.randint(len(features), (batch,), device=features.device)
            embedding, label = classifier.embedding(features[rows]), labels[rows]
            logit = classifier.head(embedding).squeeze(-1)
            entropy = functional.binary_cross_entropy_with_logits(logit, label.to(logit.dtype))
            contrast = nt_xent(embedding[:CONTRASTED], label[:CONTRASTED])
            figures = {"success/cross_entropy": entropy.detach(), "success/contrast": contrast.detach()}
            return entropy + contrastive * contrast, figures

        optimiser = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
        fit = Fit(classifier, optimiser, steps=steps, factor=lambda step: cosine_decay(step, steps=steps))
        fit.run(loss, report or _ignore)
    return classifier.eval().requires_grad_(False)


class PrecisionRecall(NamedTuple):
    """How far a classifier can be trusted at a threshold; a rate without a case is None."""

    precision: float | None
    recall: float | None
    positives: int
    total: int


def precision_recall(probability: Tensor, label: Tensor, threshold: float) -> PrecisionRecall:
    """Precision and recall of calling success from a threshold on.

    Args:
        probability: [M] from `SuccessClassifier.probability`.
        label: [M] bool.
        threshold: smallest probability that counts as success.
    """
    label = label.bool()
    called = probability >= threshold
    hits, said, positives = (int(x.sum()) for x in (called & label, called, label))
    return PrecisionRecall(
        precision=hits / said if said else None,
        recall=hits / positives if positives else None,
        positives=positives,
        total=len(label),
    )


def _check_labelled(features: Tensor, labels: Tensor) -> None:
    """Refuse latents from which nothing can be told."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise UserError(
            f"features {list(features.shape)} do not go with labels {list(labels.shape)}; give [M, F] and [M]"
        )
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        raise UserError(
            f"{positives} of {len(labels)} latents are successes; both kinds are needed, add data of the task"
        )


def _ignore(step: int, figures: Mapping[str, float]) -> None:
    """Report to nobody."""

"""Right before fast: every rollout of ours is held against the definition in float64 before it is timed.

Teacher forcing: the definition is fed the classes that the rollout has drawn, so that one class drawn differently does
not make everything after it another dream. Four things are looked at, over all rows and steps: how far beliefs are
from those in float64; the KL divergence between the priors that both beliefs lead to; how far the random number lies
outside of the interval of the class that was drawn for it; and how often each class was drawn (chi-square).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.bench import ours
from experiments.bench.base import Precision, Windows, Workload
from experiments.bench.ours import Implementation, Start, draws, model, start, training_batch, world_model
from worldaction.errors import UserError
from worldaction.kernels.categorical.reference import probabilities
from worldaction.kernels.rollout.reference import PriorWeights, prior_step
from worldaction.world_model.model import total


@dataclass(frozen=True)
class Verdict:
    """What a rollout came to. Limits are in `LIMITS`, by the same names.

    Attributes:
        belief: largest relative error of a belief vector.
        kl: largest KL divergence of a step's prior from that in float64 (nats, summed over groups, mean over rows).
        margin: how far a random number lay outside of the drawn class's interval, at worst.
        flips: share of draws that differ from float64's.
        chi_square: standard deviations by which the classes' frequencies are further from the priors than chance.
    """

    belief: float
    kl: float
    margin: float
    flips: float
    chi_square: float

    def broken(self, precision: Precision) -> list[str]:
        """Which limits are not met, in words; what is not a number meets none."""
        limits = asdict(LIMITS[precision])
        return [
            f"{name} {value:.2g} > {limits[name]:.2g}"
            for name, value in asdict(self).items()
            if not value <= limits[name]
        ]


LIMITS: Mapping[Precision, Verdict] = {
    "fp32": Verdict(belief=1e-5, kl=1e-6, margin=1e-4, flips=1e-3, chi_square=5.0),
    "bf16": Verdict(belief=2e-2, kl=1e-2, margin=5e-2, flips=5e-2, chi_square=5.0),
}
SAME_LOSS = 0.02
"""Relative difference between the loss in bf16 and in float32 up to which training counts as the same work."""


def examine(rollout: Implementation, workload: Workload, device: torch.device, *, seed: int = 1) -> Verdict:
    """Hold a rollout against the definition in float64.

    Args:
        rollout: one of ours.
        workload: batch and horizon, at which it is going to be timed.
        device: where it runs; float64 is computed there, too.
        seed: of the random numbers.
    """
    weights, first = model(workload.sizes, device).prior_weights(), start(workload, device)
    uniforms = draws(workload, device, seed=seed)
    beliefs, codes = rollout.run(weights, *first, uniforms)
    return compare(weights, first, uniforms, beliefs, codes, workload)


def compare(
    weights: PriorWeights, first: Start, uniforms: Tensor, beliefs: Tensor, codes: Tensor, workload: Workload
) -> Verdict:
    """Hold what a rollout gave against the definition in float64, under teacher forcing.

    Args:
        weights: of the prior.
        first: where it began, and its actions.
        uniforms: [B, H, S] in (0, 1).
        beliefs: [B, H, D] that it gave.
        codes: [B, H, S] that it drew.
        workload: sizes.
    """
    device, exact = beliefs.device, _double(weights)
    belief, code, unimix = first.belief.double(), first.code, workload.sizes.unimix
    errors, kls, margins, flips = [], [], [], []
    excess = torch.zeros(workload.sizes.groups, workload.sizes.classes, dtype=torch.float64, device=device)
    variance = torch.zeros_like(excess)
    for step in range(workload.horizon):
        draw = uniforms[:, step].double()
        belief, wanted = prior_step(exact, belief, code, first.actions[:, step].double(), draw, unimix=unimix)
        code, close = codes[:, step], beliefs[:, step].double()
        priors = _prior(exact, belief, workload)
        errors.append(((close - belief).norm(dim=-1) / belief.norm(dim=-1)).max())
        kls.append((priors * (priors / _prior(exact, close, workload)).log()).sum((-1, -2)).mean())
        margins.append(_outside(priors, code, draw))
        flips.append((code != wanted).double().mean())
        excess += (F.one_hot(code.long(), workload.sizes.classes) - priors).sum(0)
        variance += (priors * (1 - priors)).sum(0)
    return Verdict(
        belief=float(torch.stack(errors).max()),
        kl=float(torch.stack(kls).max()),
        margin=float(torch.stack(margins).max()),
        flips=float(torch.stack(flips).mean()),
        chi_square=_surplus(excess, variance),
    )


def _double(weights: PriorWeights) -> PriorWeights:
    def exact(part: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        return part.double() if isinstance(part, Tensor) else tuple(each.double() for each in part)

    return PriorWeights(*(exact(part) for part in weights))  # type: ignore[arg-type]


def _prior(weights: PriorWeights, belief: Tensor, workload: Workload) -> Tensor:
    """[B, S, C] of a belief [B, D]: the definition's last lines, written a second time."""
    x = F.linear(belief, weights.hidden, weights.hidden_bias)
    x = F.elu(F.layer_norm(x, weights.hidden_norm[0].shape, *weights.hidden_norm))
    logits = F.linear(x, weights.logits, weights.logits_bias)
    return probabilities(logits.unflatten(-1, (workload.sizes.groups, workload.sizes.classes)), workload.sizes.unimix)


def _outside(priors: Tensor, code: Tensor, draw: Tensor) -> Tensor:
    """How far the draws [B, S] lie outside of the intervals of the classes [B, S], at most."""
    cumulative = priors.cumsum(-1)
    high = cumulative.gather(-1, code.long().unsqueeze(-1)).squeeze(-1)
    low = high - priors.gather(-1, code.long().unsqueeze(-1)).squeeze(-1)
    return torch.maximum(low - draw, draw - high).clamp_min(0).max()


def _surplus(excess: Tensor, variance: Tensor) -> float:
    """By how many standard deviations the classes' counts stray further from the sums of their priors than chance.

    Given the past, a count less its prior has mean 0 and variance p (1 - p); each [S, C] entry squared over its
    variance has mean 1, however the priors differ from step to step.
    """
    cells = excess.numel()
    return float((excess.square() / variance).sum() - cells) / math.sqrt(2 * cells)


def require(rollout: Implementation, verdict: Verdict) -> None:
    """Refuse to time what is wrong.

    Raises:
        UserError: a limit is not met.
    """
    if broken := verdict.broken(rollout.precision):
        raise UserError(
            f"{rollout.name} {rollout.precision} is not right: {', '.join(broken)}; "
            f"it is not timed, force another with WORLDACTION_KERNELS"
        )


def rollouts(workload: Workload, device: torch.device, *, compiled: bool) -> dict[str, Verdict]:
    """Every rollout of ours on a workload, by name.

    Raises:
        UserError: one of them is wrong.
    """
    verdicts = {}
    with torch.no_grad():
        for each in ours.rollouts(workload, device, compiled=compiled):
            verdict = examine(each, workload, device)
            require(each, verdict)
            verdicts[f"{each.name} {each.precision}"] = verdict
    return verdicts


def same_training(windows: Windows, device: torch.device) -> float:
    """Relative difference between a training loss in bf16 and in float32, of the same model, batch and draws.

    Raises:
        UserError: it is too large.
    """
    model_, batch = world_model(windows, device), training_batch(windows, device)
    values = []
    for enabled in (False, True):
        with torch.random.fork_rng(), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled):
            torch.manual_seed(windows.seed)
            values.append(float(total(model_.losses_of(batch)[0])))
    difference = abs(values[1] / values[0] - 1)
    if not difference <= SAME_LOSS:
        raise UserError(f"training in bf16 is not right: its loss is {values[1]:.4g}, not {values[0]:.4g}; not timed")
    return difference

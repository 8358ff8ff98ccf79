"""Networks as `worldaction.kernels.ops.dream` takes them: tensors in its order, made once for the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from worldaction.kernels.denoise.reference import undo_table, weights_of
from worldaction.kernels.dream.reference import Decider, SuccessWeights
from worldaction.kernels.rollout.reference import PriorWeights
from worldaction.kernels.weight_cache import WeightCache
from worldaction.success import SuccessClassifier
from worldaction.world_model.cores.dreamer_v2 import RSSM
from worldaction.world_model.model import WorldModel

Made = TypeVar("Made", PriorWeights, Decider, SuccessWeights)
_kept: WeightCache[Any] = WeightCache(8)


class KernelWeights(NamedTuple):
    """The networks of a dream; `deciders` are the denoisers, in the order in which they work."""

    prior: PriorWeights
    deciders: list[Decider]
    success: SuccessWeights


def kernel_weights(model: object, policy: object, success: object, *, min_std: float) -> KernelWeights | None:
    """The networks of a dream in the operation's order; None if one of them is of another make.

    Args:
        model: a `WorldModel`.
        policy: a `DiffusionPolicy` or `TunedPolicy`.
        success: a `SuccessClassifier` that does not drop out.
        min_std: smallest standard deviation of a denoising step.
    """
    known = type(model) is WorldModel and type(success) is SuccessClassifier and not success.training
    if not known or type(policy) not in (DiffusionPolicy, TunedPolicy):
        return None
    assert isinstance(model, WorldModel)
    if not isinstance(model.rssm, RSSM):
        return None
    assert isinstance(success, SuccessClassifier)
    assert isinstance(policy, DiffusionPolicy | TunedPolicy)
    deter = model.config.deter
    with torch.no_grad():
        prior = _once(model.rssm, ("prior",), model.rssm.prior_weights)
        deciders = deciders_of(policy, deter, min_std=min_std)
        return KernelWeights(prior, deciders, _once(success, ("success", deter), lambda: success_of(success, deter)))


def deciders_of(policy: DiffusionPolicy | TunedPolicy, deter: int, *, min_std: float) -> list[Decider]:
    """The denoisers of a policy in the order in which they work, with their shares of the steps of DDPM.

    Args:
        policy: whose.
        deter: size D of the belief, which is the first part of the feature.
        min_std: smallest standard deviation of a denoising step.
    """
    if isinstance(policy, DiffusionPolicy):
        return [_decider(policy, deter, range(len(policy.schedule)), min_std)]
    trained, total = policy.trained_steps, len(policy.base.schedule)
    tuned = _decider(policy.tuned, deter, range(trained), min_std)
    return [_decider(policy.base, deter, range(trained, total), min_std), tuned] if trained < total else [tuned]


def _decider(policy: DiffusionPolicy, deter: int, steps: range, min_std: float) -> Decider:
    def make() -> Decider:
        network, visited = policy.denoiser, list(reversed(steps))
        table = undo_table(policy.schedule.alpha_bar, visited, eta=1.0, min_std=min_std, last=steps.start - 1)
        return Decider(weights_of(network, visited), table, *_parted(network.feature, deter))

    return _once(policy.denoiser, ("decider", deter, steps, min_std), make)


def success_of(network: SuccessClassifier, deter: int) -> SuccessWeights:
    """A classifier whose feature begins with a belief of size D."""
    linear, norm, head = network.embedding[0], network.embedding[1], network.head[1]
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(head, nn.Linear)
    return SuccessWeights(*_parted(linear, deter), norm.weight, norm.bias, head.weight.flatten(), head.bias)


def _once(network: nn.Module, what: tuple[Any, ...], make: Callable[[], Made]) -> Made:
    made: Made = _kept.get(list(network.parameters()), what, make)
    return made


def _parted(layer: nn.Linear, deter: int) -> tuple[Tensor, Tensor, Tensor]:
    """A layer of a feature as [W, D], one row of W a class [S C, W], and its bias."""
    return layer.weight[:, :deter].contiguous(), layer.weight[:, deter:].t().contiguous(), layer.bias

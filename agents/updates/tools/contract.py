"""What every policy update must keep to, as functions: for the tests, and for whoever writes one.

A check takes an update's class, runs it in a corridor of which the best policy is known, and returns what is wrong:

    from agents.updates.tools.contract import check
    print(check(MyUpdate))
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from agents.bc import clone
from agents.imagination import FixedStarts
from agents.policies.base import PolicyHead
from agents.policies.diffusion import DiffusionPolicy
from agents.policies.gaussian import GaussianPolicy
from agents.updates.base import Update
from agents.updates.registry import UPDATES
from agents.updates.tools.corridor import DECISIONS, Corridor, PastTheGoal, begin, demonstrations
from worldaction import scaffold
from worldaction.config import UpdateConfig
from worldaction.errors import UserError

HEADS: dict[type[PolicyHead], dict[str, Any]] = {
    GaussianPolicy: {"width": 32},
    DiffusionPolicy: {"denoising_steps": 5, "width": 32},
}
"""Heads that an update is tried with: one choice a decision, and several."""
SIZE: dict[str, Any] = {"width": 32}
"""Of any other head."""
NUMBERS: dict[str, Any] = {
    "iterations": 14,
    "dreams": 128,
    "trained_steps": 4,
    "epochs": 5,
    "minibatch": 256,
    "lr": 1e-3,
    "critic_lr": 2e-3,
    "critic_width": 32,
    "warmup": 1,
    "gamma": 0.99,
    "clip": 0.1,
    "clip_base": 0.02,
    "bc": 0.01,
    "bootstrap": False,
    "max_imagined": 2.0,
}
"""Values of options that have these names."""


@functools.cache
def cloned(head: type[PolicyHead]) -> PolicyHead:
    """A mediocre head, cloned from random pushes; not to be changed."""
    recipe = {"steps": 300, "batch": 256, "lr": 3e-3, "weight_decay": 0.0, "ema": 0.99, "seed": 0}
    return clone(head, *demonstrations(), options=HEADS.get(head, SIZE), **recipe)  # type: ignore[arg-type]


def small(cls: type[Update], head: type[PolicyHead] = GaussianPolicy, **changes: Any) -> Update:
    """An update at work in the corridor.

    Args:
        cls: its class.
        head: of the policy.
        changes: of `NUMBERS`.
    """
    options = UPDATES.options(cls, (), defaults=NUMBERS | changes)
    limits: dict[str, Any] = {"decisions": DECISIONS, "threshold": 0.5, "seed": 0}
    return cls(Corridor(), cloned(head), PastTheGoal(), FixedStarts(begin(4)), options, **limits)


def weights(module: nn.Module) -> Tensor:
    """All of a module's weights."""
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def run(update: Update) -> list[dict[str, float]]:
    """The metrics of every iteration."""
    history: list[dict[str, float]] = []
    update.run(lambda iteration, metrics: history.append(dict(metrics)))
    return history


def check_class(cls: type[Update]) -> list[str]:
    """The class has a name, and Options with the fields that every update has."""
    found = []
    if not isinstance(getattr(cls, "name", None), str):
        found.append("class: name is missing; give it one")
    if not (dataclasses.is_dataclass(cls.Options) and issubclass(cls.Options, UpdateConfig)):
        return [*found, "class: Options is no subclass of worldaction.config.UpdateConfig; make it one"]
    try:
        small(cls)
    except (TypeError, UserError) as error:
        found.append(f"class: it cannot be built: {error}")
    return found


def check_metrics(cls: type[Update]) -> list[str]:
    """An iteration gives finite numbers, policy_steps among them, under the update's name."""
    history = run(small(cls, iterations=4))
    found = [
        f"metrics: {key!r} is {value}"
        for metrics in history
        for key, value in metrics.items()
        if not math.isfinite(value)
    ]
    if f"{cls.name}/policy_steps" not in history[0]:
        found.append("metrics: learn gives no 'policy_steps'")
    if foreign := [key for key in history[0] if not key.startswith(("imagined/", f"{cls.name}/"))]:
        found.append(f"metrics: {foreign[0]!r} does not bear the update's name; `iterate` adds it to what learn gives")
    return found


def check_learns(cls: type[Update]) -> list[str]:
    """The trained copy changes, with heads of one choice and of several, and the cloned policy stays as it is."""
    found = []
    for head in HEADS:
        update = small(cls, head, iterations=4)
        before, first = weights(update.policy.base), weights(update.policy.tuned)
        run(update)
        if not torch.equal(weights(update.policy.base), before):
            found.append(f"learns: the cloned policy has changed, head {head.name}")
        if torch.equal(weights(update.policy.tuned), first):
            found.append(f"learns: nothing has been learned in 4 iterations, head {head.name}")
    return found


def check_repeats(cls: type[Update]) -> list[str]:
    """Equal seeds give equal runs to the bit, whatever torch's global generator says."""
    results = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            update = small(cls, iterations=4)
            results.append((run(update), weights(update.policy)))
    if results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1]):
        return []
    return ["repeats: two runs of one seed differ; draw random numbers from `generator`"]


def check_resumes(cls: type[Update]) -> list[str]:
    """A run that goes on from its state_dict is equal to the bit to one that was never interrupted."""
    whole, first, second = (small(cls, iterations=5) for _ in range(3))
    expected = run(whole)
    found = [first.iterate() for _ in range(3)]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    if found + run(second) == expected and torch.equal(weights(second.policy), weights(whole.policy)):
        return []
    return ["resumes: it goes on otherwise; put what is trained beside the policy into `learned`"]


def check_improves(cls: type[Update]) -> list[str]:
    """In a corridor with a goal, dreams succeed more often after some iterations than at first."""
    history = [metrics["imagined/success"] for metrics in run(small(cls))]
    before, after = history[0], sum(history[-3:]) / 3
    return [] if after > before + 0.05 else [f"improves: success in dreams goes from {before:.2f} to {after:.2f}"]


CHECKS: tuple[Callable[[type[Update]], list[str]], ...] = (
    check_class,
    check_metrics,
    check_learns,
    check_repeats,
    check_resumes,
    check_improves,
)


def examine(cls: type[Update]) -> Iterator[tuple[str, list[str]]]:
    """Every check in its turn; see `worldaction.scaffold.examine`."""
    return scaffold.examine(cls, CHECKS)


def check(cls: type[Update]) -> list[str]:
    """What is wrong with an update, one sentence each."""
    return [sentence for _, found in examine(cls) for sentence in found]

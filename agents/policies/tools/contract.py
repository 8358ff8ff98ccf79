"""What every policy head must keep to, as functions: for the tests, and for whoever writes a head.

A check takes a head's class, builds it at a small size, and returns what is wrong, one sentence each:

    from agents.policies.tools.contract import check
    print(check(MyHead))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from agents.bc import clone
from agents.policies.base import ImprovedPolicy, PolicyHead
from agents.policies.registry import POLICIES
from worldaction import scaffold
from worldaction.errors import UserError

FEATURE, ACTION, CHUNK = 6, 3, 2
DECISIONS = 7
TRAINED_STEPS = 2
MIN_STD = 0.1
SMALL = {"width": 16, "denoising_steps": 4, "blocks": 1}
"""Values of options that have these names, as a study would give them."""


def small(cls: type[PolicyHead], given: Iterable[tuple[str, str]] = (), *, seed: int = 0) -> PolicyHead:
    """A head of a few numbers.

    Args:
        cls: its class.
        given: options, as `worldaction.extension.Spec` has them.
        seed: of its weights.
    """
    options = POLICIES.options(cls, given, defaults=SMALL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(FEATURE, ACTION, chunk=CHUNK, binary=(-1,), **vars(options))


def moved(cls: type[PolicyHead], by: float = 0.05) -> ImprovedPolicy:
    """A cloned head and a copy whose weights are other ones by now."""
    pair = small(cls).improvable(trained_steps=TRAINED_STEPS)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in pair.tuned.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return pair


def inputs(policy: Any, count: int = DECISIONS, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Features [B, F] and noise [B, *noise_shape]."""
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randn(count, FEATURE, generator=generator)
    return feature, torch.randn(count, *policy.noise_shape, generator=generator)


def check_class(cls: type[PolicyHead]) -> list[str]:
    """The class has a name, frozen Options with ranges that hold, and is built from them."""
    found = []
    if not isinstance(getattr(cls, "name", None), str):
        found.append("class: name is missing; give it one")
    options: Any = getattr(cls, "Options", None)
    if not getattr(getattr(options, "__dataclass_params__", None), "frozen", False):
        return [*found, "class: Options is no frozen dataclass; write @dataclass(frozen=True)"]
    try:
        head = small(cls)
    except (TypeError, UserError) as error:
        return [*found, f"class: it cannot be built: {error}"]
    if missing := [key for key in vars(POLICIES.options(cls, (), defaults=SMALL)) if key not in head.config]:
        found.append(f"class: config has no {missing[0]!r}; pass it on to PolicyHead.__init__")
    return found


def check_shapes(cls: type[PolicyHead]) -> list[str]:
    """Actions are [B, K, A] in [-1, 1], grippers are -1 or 1, the loss is one number, and what is stored has B rows."""
    head = small(cls)
    feature, noise = inputs(head)
    decision, pair = head.decide(feature, noise, min_std=MIN_STD), moved(cls)
    found = []
    for name, actions in (("sample", head.sample(feature, noise)), ("decide", decision.actions)):
        if actions.shape != (DECISIONS, CHUNK, ACTION):
            found.append(f"shapes: {name} gives {list(actions.shape)}, not [B, K, A] = {[DECISIONS, CHUNK, ACTION]}")
        elif actions.abs().max() > 1 or not bool((actions[..., -1].abs() == 1).all()):
            found.append(f"shapes: {name} gives actions outside [-1, 1] or half a gripper; end with to_actions")
    loss = head.bc_loss(feature, torch.zeros(DECISIONS, CHUNK, ACTION))
    if loss.shape or not torch.isfinite(loss):
        found.append(f"shapes: bc_loss gives {list(loss.shape)}, {loss}; give one finite number")
    stored = pair.decide(feature, noise, min_std=MIN_STD).stored
    if wrong := [name for name, value in stored.items() if len(value) != DECISIONS]:
        return [*found, f"shapes: {wrong[0]!r} of what is stored has no row for each decision"]
    score = pair.score(feature, stored, min_std=MIN_STD)
    if score.log_prob.shape != (DECISIONS, pair.trained_steps):
        found.append(f"shapes: log_prob is {list(score.log_prob.shape)}, not {[DECISIONS, pair.trained_steps]}")
    if score.divergence.shape:
        found.append(f"shapes: divergence is {list(score.divergence.shape)}; give one number")
    return found


def check_rows(cls: type[PolicyHead]) -> list[str]:
    """Each row is decided by itself, whatever stands beside it."""
    pair = moved(cls)
    feature, noise = inputs(pair)
    whole, part = (pair.decide(feature[:n], noise[:n], min_std=MIN_STD) for n in (DECISIONS, 3))
    found = []
    if not torch.allclose(whole.actions[:3], part.actions, atol=1e-5):
        found.append("rows: decisions depend on the other rows of the batch")
    scores = [pair.score(feature[:n], {k: v[:n] for k, v in whole.stored.items()}, min_std=MIN_STD) for n in (7, 3)]
    if not torch.allclose(scores[0].log_prob[:3], scores[1].log_prob, atol=1e-4):
        found.append("rows: log_prob depends on the other rows of the batch")
    return found


def check_noise(cls: type[PolicyHead]) -> list[str]:
    """Decisions are a function of the noise that is given, and differ with it."""
    pair = moved(cls)
    feature, noise = inputs(pair)
    actions = []
    with torch.random.fork_rng(devices=[]):
        for seed, given in ((0, noise), (1, noise), (1, inputs(pair, seed=2)[1])):
            torch.manual_seed(seed)
            actions.append([pair.decide(feature, given, min_std=MIN_STD).actions, pair.sample(feature, given)])
    found = []
    if not all(torch.equal(a, b) for a, b in zip(actions[0], actions[1], strict=True)):
        found.append("noise: two calls with the same noise differ; take all random numbers from it")
    if torch.equal(actions[1][0], actions[2][0]):
        found.append("noise: decide does not depend on the noise, so that nothing is explored")
    return found


def check_sampler(cls: type[PolicyHead]) -> list[str]:
    """The deterministic sampler, where there is one, differs from the other and takes no randomness but the noise."""
    pair = moved(cls)
    feature, noise = inputs(pair)
    actions = []
    with torch.random.fork_rng(devices=[]):
        for seed, deterministic in ((0, False), (0, True), (1, True)):
            torch.manual_seed(seed)
            actions.append(pair.sample(feature, noise, deterministic=deterministic))
    found, differs = [], not torch.equal(actions[0], actions[1])
    if not torch.equal(actions[1], actions[2]):
        found.append("sampler: two deterministic calls with the same noise differ; take all random numbers from it")
    if differs and not cls.has_deterministic:
        found.append("sampler: deterministic=True changes the actions; say has_deterministic = True")
    if cls.has_deterministic and not differs:
        found.append("sampler: deterministic=True changes nothing; do not say has_deterministic")
    return found


def check_log_prob(cls: type[PolicyHead]) -> list[str]:
    """Fresh decisions have the log-probability they were taken with, and are likelier so than by another policy."""
    pair, count = moved(cls, 0.2), 512
    feature, noise = inputs(pair, count)
    stored = pair.decide(feature, noise, min_std=MIN_STD).stored
    with torch.no_grad():
        taken, now = (
            pair.score_when_taken(feature, stored, min_std=MIN_STD),
            pair.score(feature, stored, min_std=MIN_STD),
        )
        other = moved(cls, 0.4).score(feature, stored, min_std=MIN_STD)
    found = []
    if not bool(torch.isfinite(now.log_prob).all()):
        found.append("log_prob: it is not finite")
    if not torch.allclose(taken.log_prob, now.log_prob, atol=1e-3):
        found.append("log_prob: that of fresh decisions is not the one that they were taken with")
    if now.log_prob.mean() <= other.log_prob.mean():
        found.append("log_prob: decisions are likelier by another policy than by the one that took them")
    return found


def check_gradient(cls: type[PolicyHead]) -> list[str]:
    """Gradients of bc_loss and of log_prob reach every weight, and none reaches the cloned policy."""
    head, pair = small(cls), moved(cls)
    feature, noise = inputs(pair)
    head.bc_loss(feature, torch.full((DECISIONS, CHUNK, ACTION), 0.3)).backward()
    found = [f"gradient: {name!r} gets none from bc_loss" for name in _without(head)]
    stored = pair.decide(feature, noise, min_std=MIN_STD).stored
    pair.score(feature, stored, min_std=MIN_STD).log_prob.sum().backward()
    found += [f"gradient: {name!r} gets none from log_prob" for name in _without(pair.tuned)]
    if any(parameter.grad is not None for parameter in pair.base.parameters()):
        found.append("gradient: the cloned policy gets one")
    return found


def _without(head: PolicyHead) -> list[str]:
    parameters = [(name, one) for name, one in head.named_parameters() if one.requires_grad]
    return [name for name, one in parameters if one.grad is None or not bool(one.grad.any())]


def check_divergence(cls: type[PolicyHead]) -> list[str]:
    """The divergence from the cloned policy is zero for its copy and above zero for another."""
    values = []
    for by in (0.0, 0.2):
        pair = moved(cls, by)
        feature, noise = inputs(pair, 64)
        stored = pair.decide(feature, noise, min_std=MIN_STD).stored
        values.append(pair.score(feature, stored, min_std=MIN_STD).divergence.item())
    if abs(values[0]) < 1e-5 < values[1]:
        return []
    return [f"divergence: it is {values[0]:g} for an equal copy and {values[1]:g} for another"]


def check_rebuilt(cls: type[PolicyHead]) -> list[str]:
    """The config, as JSON, and the weights rebuild the head to the bit."""
    head = small(cls, seed=3)
    again = cls(**json.loads(json.dumps(head.config)))
    again.load_state_dict(head.state_dict())
    feature, noise = inputs(head)
    if torch.equal(head.sample(feature, noise), again.sample(feature, noise)):
        return []
    return ["rebuilt: a head that is rebuilt from config and weights acts otherwise"]


def check_clones(cls: type[PolicyHead]) -> list[str]:
    """Behaviour cloning brings its actions near the demonstrated ones."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 256, FEATURE, generator=generator)
    chunks = features[0, :, None, :ACTION].clamp(-1, 1).expand(-1, CHUNK, -1).contiguous()
    recipe = {"steps": 200, "batch": 64, "lr": 1e-2, "weight_decay": 0.0, "ema": 0.9, "seed": 0}
    options = vars(POLICIES.options(cls, (), defaults=SMALL))
    heads = small(cls), clone(cls, features, chunks, options=options, **recipe)  # type: ignore[arg-type]
    noise = torch.randn(256, *heads[0].noise_shape, generator=generator)
    # without the gripper, which is only ever open or closed
    errors = [(head.sample(features[0], noise, deterministic=True) - chunks)[..., :-1].abs().mean() for head in heads]
    return [] if errors[1] < 0.7 * errors[0] else [f"clones: the error goes from {errors[0]:.2f} to {errors[1]:.2f}"]


CHECKS: tuple[Callable[[type[PolicyHead]], list[str]], ...] = (
    check_class,
    check_shapes,
    check_rows,
    check_noise,
    check_sampler,
    check_log_prob,
    check_gradient,
    check_divergence,
    check_rebuilt,
    check_clones,
)


def examine(cls: type[PolicyHead]) -> Iterator[tuple[str, list[str]]]:
    """Every check in its turn; see `worldaction.scaffold.examine`."""
    return scaffold.examine(cls, CHECKS)


def check(cls: type[PolicyHead]) -> list[str]:
    """What is wrong with a head, one sentence each."""
    return [sentence for _, found in examine(cls) for sentence in found]

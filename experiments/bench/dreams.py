"""Whole dreams: the policy denoises a chunk of actions, the world model imagines it, the success head looks at it.

This is what PPO spends its time on. No other library has the same thing, so ours is held against our own reference:
`agents.imagination.dream` as it is called, and the op that dreams without a return to Python wherever an implementation
of it runs. No dream ends early here, so that every round is the same work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.imagination import dream
from agents.kernel_weights import kernel_weights
from agents.policies.diffusion import DiffusionPolicy
from experiments.bench import gate
from experiments.bench.base import Course, Precision, Sizes, Windows, Work, count, imagining
from experiments.bench.ours import DTYPES, Start, available, world_model
from worldaction.errors import UserError
from worldaction.kernels import REFERENCE, VARIABLE, implementations, ops, typical
from worldaction.kernels.denoise.reference import denoise
from worldaction.kernels.dream.reference import Decider, Dreamed, executed, seen
from worldaction.kernels.rollout.reference import PriorWeights
from worldaction.random import Stream, normal, uniform
from worldaction.success import SuccessClassifier
from worldaction.world_model.model import WorldModel
from worldaction.world_model.rssm import Latent

NEVER = 2.0
"""No probability of success reaches this."""
MIN_STD = 0.1
LIMITS: Mapping[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2}
"""Largest error of a denoising step, whose states are of the order of 1."""


@dataclass(frozen=True)
class Dreams:
    """How many dreams, of how many decisions, under a policy of the preset `quick`'s size."""

    sizes: Sizes = field(default_factory=Sizes)
    batch: int = 256
    decisions: int = 4
    chunk: int = 4
    denoising_steps: int = 10
    width: int = 256
    seed: int = 0


class Cast(NamedTuple):
    """Who dreams, and from where."""

    world: WorldModel
    policy: DiffusionPolicy
    success: SuccessClassifier
    starts: Latent
    rows: Tensor


Dream = Callable[..., Dreamed]
"""`worldaction.kernels.ops.dream` with an implementation and a precision chosen."""


def cast(course: Dreams, device: torch.device) -> Cast:
    """A model, a policy and a classifier with random weights, and dreams that begin with empty latents."""
    world = world_model(Windows(course.sizes, seed=course.seed), device).requires_grad_(False).eval()
    with torch.random.fork_rng([]):
        torch.manual_seed(course.seed)
        policy = DiffusionPolicy(
            world.feature_size,
            course.sizes.action,
            chunk=course.chunk,
            denoising_steps=course.denoising_steps,
            width=course.width,
        )
        success = SuccessClassifier(world.feature_size, hidden=256, dropout=0.0).eval()
    belief = torch.zeros(course.batch, course.sizes.deter, device=device)
    code = torch.zeros(course.batch, course.sizes.groups, dtype=torch.uint8, device=device)
    for network in (policy, success):
        network.requires_grad_(False).to(device)
    return Cast(world, policy, success, Latent(belief, code), torch.arange(course.batch, device=device))


# Contest --------------------------------------------------------------------------------------------------------------


def dreams(course: Dreams, device: torch.device) -> Mapping[str, Work]:
    """Dreams by the reference and by what `worldaction.kernels` chooses; amounts in chunks of actions.

    In bf16 the products of the imagined step alone are rounded, as `RSSM.imagine_in` says.

    Args:
        course: sizes.
        device: where to compute.
    """
    about = f"{course.denoising_steps} denoising steps of width {course.width}, {course.chunk} imagined frames"
    amount = course.batch * course.decisions

    def work(name: str, precision: Precision) -> Work:
        # a model of its own: some implementations keep what they make of a model's weights
        run, parameters = _dreaming(course, device, precision)
        return Work(_forced(run, name) if name else run, amount, about, True, precision, parameters)

    works = {"ours, reference fp32": work(REFERENCE, "fp32")}
    if any(report.chosen and report.name != REFERENCE for report in implementations(typical(device))):
        works |= {f"ours, as chosen {precision}": work("", precision) for precision in DTYPES}
    for name, precision in _ops(course, device):
        run = _whole(course, device, _op(name, precision))
        works[f"ours, {name} {precision}"] = Work(run, amount, f"{about}, one op", True, precision)
    return works


def _dreaming(course: Dreams, device: torch.device, precision: Precision) -> tuple[Callable[[], object], int]:
    world, policy, success, starts, rows = cast(course, device)
    world.rssm.imagine_in = DTYPES[precision]
    options = {"decisions": course.decisions, "threshold": NEVER, "seed": course.seed, "min_std": MIN_STD}

    def run() -> object:
        return dream(world, policy, success, starts, rows=rows, **options)  # type: ignore[arg-type]

    return run, count(world.rssm, policy, success)


def _forced(run: Callable[[], object], name: str) -> Callable[[], object]:
    def forced() -> object:
        with _variable(VARIABLE, name):
            return run()

    return forced


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """An environment variable, for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# The op ---------------------------------------------------------------------------------------------------------------


def _ops(course: Dreams, device: torch.device) -> Iterator[tuple[str, Precision]]:
    """Implementations of whole dreams that run here, beside the reference."""
    sizes = {name: getattr(course.sizes, name) for name in ("deter", "groups", "classes", "hidden", "action")}
    sizes |= {"width": course.width, "chunk": 7 * course.chunk, "blocks": 1, "steps": course.denoising_steps}
    sizes |= {"success": 256, "horizon": course.decisions * course.chunk}
    yield from available("dream", device, batch=course.batch, sizes=sizes)


def _op(name: str, precision: Precision) -> Dream:
    def run(*args: Any, **options: Any) -> Dreamed:
        return ops.dream(*args, **options, dtype=DTYPES[precision], force=name)

    return run


def _whole(course: Dreams, device: torch.device, run: Dream) -> Callable[[], object]:
    given, options = given_of(course, cast(course, device))
    return imagining(lambda: run(*given, **options))


def given_of(course: Dreams, who: Cast) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the op takes: weights in its order, and its options."""
    found = kernel_weights(who.world, who.policy, who.success, min_std=MIN_STD)
    assert found is not None
    options = {
        "seed": course.seed,
        "decisions": course.decisions,
        "chunk": course.chunk,
        "binary": who.policy.config["binary"],
        "unimix": course.sizes.unimix,
        "threshold": NEVER,
    }
    return (*found, *who.starts, who.rows), options


# Gate -----------------------------------------------------------------------------------------------------------------


def examined(course: Dreams, device: torch.device) -> dict[str, dict[str, float]]:
    """The errors of each implementation of whole dreams, by name.

    Raises:
        UserError: one of them is wrong.
    """
    with torch.no_grad():
        found = list(_ops(replace(course, chunk=1), device))
        return {
            f"{name} {precision}": examine(name, precision, _op(name, precision), course, device)
            for name, precision in found
        }


def examine(name: str, precision: Precision, run: Dream, course: Dreams, device: torch.device) -> dict[str, float]:
    """Hold dreams against the definition in float64: their rollout as `gate` does, and every step of denoising.

    Decisions are of one action here, so that all that happens in a dream is seen from outside.

    Args:
        name: of the implementation, for the error.
        precision: of its products.
        run: the op.
        course: sizes; four times the decisions are dreamed, of a quarter of the actions.
        device: where.

    Raises:
        UserError: a limit is not met.
    """
    course = replace(course, chunk=1, decisions=course.decisions * course.chunk)
    given, options = given_of(course, cast(course, device))
    prior, (decider,), _, belief, code, rows = given
    dreamed: Dreamed = run(*given, **options)
    verdict = _rollout(prior, Start(belief, code, _actions(dreamed, options)), rows, dreamed, course)
    error = _denoising(decider, dreamed, rows, course)
    broken = verdict.broken(precision) + ([] if error <= LIMITS[precision] else [f"denoising {error:.2g}"])
    if broken:
        raise UserError(f"dreams by {name} {precision} are not right: {', '.join(broken)}; they are not timed")
    return {**vars(verdict), "denoising": error}


def _actions(dreamed: Dreamed, options: Mapping[str, Any]) -> Tensor:
    """[B, H, A] that were executed, decisions being of one action."""
    return executed(dreamed.states[:, :, -1], options["binary"])


def _rollout(prior: PriorWeights, first: Start, rows: Tensor, dreamed: Dreamed, course: Dreams) -> gate.Verdict:
    steps = range(course.decisions)
    draws = [uniform(course.seed, Stream.PRIOR, rows, step, course.sizes.groups) for step in steps]
    shape = Course(course.sizes, course.batch, course.decisions)
    return gate.compare(prior, first, torch.stack(draws, 1), dreamed.beliefs[:, 1:], dreamed.codes[:, 1:], shape)


def _denoising(decider: Decider, dreamed: Dreamed, rows: Tensor, course: Dreams) -> float:
    """The largest error of a denoising step, each from the dream's own state before it."""
    count_, size = dreamed.states.shape[2:]
    weights = type(decider.weights)(*(part.double() for part in decider.weights))
    layer = [part.double() for part in (decider.belief, decider.rows, decider.bias)]
    errors = []
    for decision in range(course.decisions):
        noise = normal(course.seed, Stream.POLICY, rows, decision, count_ * size).view(-1, count_, size).double()
        condition = seen(dreamed.beliefs[:, decision].double(), dreamed.codes[:, decision], *layer)
        states = dreamed.states[:, decision].double()
        errors.append((states[:, 0] - noise[:, 0]).abs().max())
        for step in range(count_ - 1):
            here = slice(step, step + 1)
            one, table = weights._replace(steps=weights.steps[here]), decider.table[here].double()
            after, _ = denoise(one, condition, states[:, step], noise[:, 1:][:, here], table)
            errors.append((after[:, 1] - states[:, step + 1]).abs().max())
    return float(torch.stack(errors).max())

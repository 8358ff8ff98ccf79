"""Whole dreams: the policy denoises a chunk of actions, the world model imagines it, the success head looks at it.

This is what PPO spends its time on. No other library has the same thing, so ours is held against our own reference. No
dream ends early here, so that every round is the same work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from agents.diffusion import DiffusionPolicy
from agents.imagination import dream
from experiments.speed.base import Precision, Sizes, Windows, Work, count
from experiments.speed.ours import DTYPES, world_model
from worldaction.kernels import REFERENCE, VARIABLE, implementations, typical
from worldaction.rssm import Latent
from worldaction.success import SuccessClassifier

NEVER = 2.0
"""No probability of success reaches this."""


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
    return works


def _dreaming(course: Dreams, device: torch.device, precision: Precision) -> tuple[Callable[[], object], int]:
    world = world_model(Windows(course.sizes, seed=course.seed), device).requires_grad_(False).eval()
    world.rssm.imagine_in = DTYPES[precision]
    with torch.random.fork_rng([]):
        torch.manual_seed(course.seed)
        policy = DiffusionPolicy(
            world.feature_size,
            course.sizes.action,
            chunk=course.chunk,
            denoising_steps=course.denoising_steps,
            width=course.width,
        ).to(device)
        success = SuccessClassifier(world.feature_size, hidden=256, dropout=0.0).to(device).eval()
    rows = torch.arange(course.batch, device=device)
    starts = Latent(
        torch.zeros(course.batch, course.sizes.deter, device=device),
        torch.zeros(course.batch, course.sizes.groups, dtype=torch.uint8, device=device),
    )

    def run() -> object:
        return dream(
            world,
            policy,
            success,
            starts,
            decisions=course.decisions,
            threshold=NEVER,
            seed=course.seed,
            rows=rows,
            min_std=0.1,
        )

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

"""The policy's denoising loop alone, by every implementation of it that `worldaction.kernels` knows here.

Each is first held against the definition in float64, one step at a time from its own states, so that errors of early
steps are not counted again in later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.policies.denoiser import Denoiser
from agents.policies.diffusion import cosine_schedule
from experiments.bench.base import Precision, Work, count, flops, imagining
from experiments.bench.dreams import Dreams
from experiments.bench.ours import DTYPES, available
from worldaction.errors import UserError
from worldaction.kernels.denoise.reference import DenoiserWeights, denoise, undo_table, weights_of
from worldaction.kernels.ops import denoise as op

Loop = Callable[[DenoiserWeights, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Weights, condition [B, W], x [B, X], noise [B, N, X] and table [N, 5] to states [B, N + 1, X] and means [B, N, X]."""

LIMITS: Mapping[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2}
"""Largest error of a state or mean, which are of the order of 1."""
FEATURE = 8
"""The condition is computed once and is no part of the loop, whatever the size of a feature."""


class Denoising(NamedTuple):
    """One of our loops."""

    name: str
    precision: Precision
    loop: Loop


class Problem(NamedTuple):
    """What a loop is given."""

    weights: DenoiserWeights
    condition: Tensor
    x: Tensor
    noise: Tensor
    table: Tensor


def entrants(course: Dreams, device: torch.device, *, compiled: bool) -> list[Denoising]:
    """Everything of ours that can run a course on a device, the reference first.

    Args:
        course: sizes and batch.
        device: where.
        compiled: whether to enter the reference under torch.compile, too.
    """
    found = [Denoising("reference", "fp32", denoise)]
    if compiled:
        found.append(Denoising("torch.compile", "fp32", _compiled(device.type)))
    sizes = {"width": course.width, "chunk": 7 * course.chunk, "blocks": 1, "steps": course.denoising_steps}
    found += [
        Denoising(name, precision, partial(op, dtype=DTYPES[precision], force=name))
        for name, precision in available("denoise", device, batch=course.batch, sizes=sizes)
    ]
    return found


@cache
def _compiled(device: str) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(
        denoise, dynamic=False, mode="reduce-overhead" if device == "cuda" else None
    )
    return compiled


def problem(course: Dreams, device: torch.device) -> tuple[Problem, int]:
    """Random weights and inputs, and the number of parameters."""
    chunk, steps = course.chunk * course.sizes.action, course.denoising_steps
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(course.seed)
        network = Denoiser(FEATURE, chunk, denoising_steps=steps, width=course.width, blocks=1)
        inputs = [torch.randn(course.batch, *shape) for shape in ((course.width,), (chunk,), (steps, chunk))]
        visited = list(reversed(range(steps)))
        table = undo_table(cosine_schedule(steps).alpha_bar, visited, eta=1.0, min_std=0.1)
        weights = DenoiserWeights(*(part.to(device) for part in weights_of(network, visited)))
    condition, x, noise = (tensor.to(device) for tensor in inputs)
    return Problem(weights, condition, x, noise, table.to(device)), count(network) - count(network.feature)


def examine(entrant: Denoising, course: Dreams, device: torch.device) -> float:
    """The largest error of a state or mean against float64, step by step.

    Raises:
        UserError: it is too large.
    """
    given, _ = problem(course, device)
    exact = [part.double() for part in (given.condition, given.noise, given.table)]
    weights = DenoiserWeights(*(part.double() for part in given.weights))
    states, means = entrant.loop(*given)
    errors = []
    for step in range(course.denoising_steps):
        here = slice(step, step + 1)
        one = weights._replace(steps=weights.steps[here])
        after, mean = denoise(one, exact[0], states[:, step].double(), exact[1][:, here], exact[2][here])
        errors += [(after[:, 1] - states[:, step + 1]).abs().max(), (mean[:, 0] - means[:, step]).abs().max()]
    error, limit = float(torch.stack(errors).max()), LIMITS[entrant.precision]
    if not error <= limit:
        raise UserError(
            f"denoising by {entrant.name} {entrant.precision} is not right: error {error:.2g} > {limit:.2g}; "
            f"it is not timed, force another with WORLDACTION_KERNELS"
        )
    return error


def examined(course: Dreams, device: torch.device, *, compiled: bool) -> dict[str, dict[str, float]]:
    """The error of each of our loops, by name.

    Raises:
        UserError: one of them is wrong.
    """
    with torch.no_grad():
        return {
            f"{each.name} {each.precision}": {"error": examine(each, course, device)}
            for each in entrants(course, device, compiled=compiled)
        }


def denoising(course: Dreams, device: torch.device, *, compiled: bool) -> Mapping[str, Work]:
    """The loop by every implementation; amounts in chunks of actions."""
    given, parameters = problem(course, device)
    arithmetic = flops(imagining(lambda: denoise(*given)))
    about = f"{course.denoising_steps} steps of a network of width {course.width}, noise given"

    def work(entrant: Denoising) -> Work:
        run = imagining(lambda: entrant.loop(*given))
        return Work(run, course.batch, about, True, entrant.precision, parameters, arithmetic)

    found = entrants(course, device, compiled=compiled)
    return {f"ours, {each.name} {each.precision}": work(each) for each in found}

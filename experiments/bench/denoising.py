"""The policy's denoising loop alone, by every implementation of it that `worldaction.kernels` knows here.

Each is first held against the definition in float64, one step at a time from its own states, so that errors of early
steps are not counted again in later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from agents.policies.denoiser import Denoiser
from agents.policies.diffusion import cosine_schedule
from experiments.bench.base import DreamWorkload, Precision, Work, count, flops, without_gradients
from experiments.bench.ours import Implementation, available, definitions
from worldaction.errors import UserError
from worldaction.kernels.denoise.reference import DenoiserWeights, denoise, undo_table, weights_of

LIMITS: Mapping[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2}
"""Largest error of a state or mean, which are of the order of 1."""
FEATURE = 8
"""The condition is computed once and is no part of the loop, whatever the size of a feature."""


class Problem(NamedTuple):
    """What a loop is given."""

    weights: DenoiserWeights
    condition: Tensor
    x: Tensor
    noise: Tensor
    table: Tensor


def loops(workload: DreamWorkload, device: torch.device, *, compiled: bool) -> list[Implementation]:
    """Every denoising loop that can run a workload on a device, the reference first; see `definitions`.

    They take weights, condition [B, W], x [B, X], noise [B, N, X] and table [N, 5], and give states [B, N + 1, X] and
    means [B, N, X].
    """
    found = available("denoise", device, batch=workload.batch, sizes=workload.policy_axes)
    return [*definitions(denoise, device, compiled=compiled), *found]


def problem(workload: DreamWorkload, device: torch.device) -> tuple[Problem, int]:
    """Random weights and inputs, and the number of parameters."""
    chunk, steps = workload.chunk * workload.sizes.action, workload.denoising_steps
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(workload.seed)
        network = Denoiser(FEATURE, chunk, denoising_steps=steps, width=workload.width, blocks=1)
        inputs = [torch.randn(workload.batch, *shape) for shape in ((workload.width,), (chunk,), (steps, chunk))]
        visited = list(reversed(range(steps)))
        table = undo_table(cosine_schedule(steps).alpha_bar, visited, eta=1.0, min_std=0.1)
        weights = DenoiserWeights(*(part.to(device) for part in weights_of(network, visited)))
    condition, x, noise = (tensor.to(device) for tensor in inputs)
    return Problem(weights, condition, x, noise, table.to(device)), count(network) - count(network.feature)


def largest_error(
    weights: DenoiserWeights,
    condition: Tensor,
    states: Tensor,
    noise: Tensor,
    table: Tensor,
    means: Tensor | None = None,
) -> Tensor:
    """The largest error of a denoising step against float64, each from the loop's own state before it.

    Args:
        weights: of the denoiser.
        condition: [B, W].
        states: [B, N + 1, X] that the loop went through.
        noise: [B, N, X].
        table: [N, 5].
        means: [B, N, X] that it gave, where they are to be looked at, too.
    """
    exact, errors = DenoiserWeights(*(part.double() for part in weights)), []
    for step in range(len(table)):
        here = slice(step, step + 1)
        one = exact._replace(steps=exact.steps[here])
        before = states[:, step].double()
        after, mean = denoise(one, condition.double(), before, noise[:, here].double(), table[here].double())
        errors.append((after[:, 1] - states[:, step + 1]).abs().max())
        if means is not None:
            errors.append((mean[:, 0] - means[:, step]).abs().max())
    return torch.stack(errors).max()


def examine(loop: Implementation, workload: DreamWorkload, device: torch.device) -> float:
    """The largest error of a state or mean against float64, step by step.

    Raises:
        UserError: it is too large.
    """
    given, _ = problem(workload, device)
    states, means = loop.run(*given)
    error = float(largest_error(given.weights, given.condition, states, given.noise, given.table, means))
    limit = LIMITS[loop.precision]
    if not error <= limit:
        raise UserError(
            f"denoising by {loop.name} {loop.precision} is not right: error {error:.2g} > {limit:.2g}; "
            f"it is not timed, force another with WORLDACTION_KERNELS"
        )
    return error


def examined(workload: DreamWorkload, device: torch.device, *, compiled: bool) -> dict[str, dict[str, float]]:
    """The error of each of our loops, by name.

    Raises:
        UserError: one of them is wrong.
    """
    with torch.no_grad():
        return {
            f"{each.name} {each.precision}": {"error": examine(each, workload, device)}
            for each in loops(workload, device, compiled=compiled)
        }


def works(workload: DreamWorkload, device: torch.device, *, compiled: bool) -> Mapping[str, Work]:
    """The loop by every implementation; amounts in chunks of actions."""
    given, parameters = problem(workload, device)
    arithmetic = flops(without_gradients(lambda: denoise(*given)))
    about = f"{workload.denoising_steps} steps of a network of width {workload.width}, noise given"

    def work(each: Implementation) -> Work:
        run = without_gradients(lambda: each.run(*given))
        return Work(run, workload.batch, about, True, each.precision, parameters, arithmetic)

    found = loops(workload, device, compiled=compiled)
    return {f"ours, {each.name} {each.precision}": work(each) for each in found}

"""Whole dreams: the policy denoises a chunk of actions, the world model imagines it, the success head looks at it.

This is what PPO spends its time on. No other library has the same thing, so ours is held against our own reference:
`agents.imagination.dream` as it is called, and the op that dreams without a return to Python wherever an implementation
of it runs. No dream ends early here, so that every round is the same work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from agents.imagination import dream
from agents.kernel_weights import kernel_weights
from agents.policies.diffusion import DiffusionPolicy
from experiments.bench import gate
from experiments.bench.base import DreamWorkload, Precision, Windows, Work, Workload, count, without_gradients
from experiments.bench.denoising import LIMITS, largest_error
from experiments.bench.ours import DTYPES, Implementation, Start, available, world_model
from worldaction.errors import UserError
from worldaction.kernels import REFERENCE, VARIABLE, implementations, typical
from worldaction.kernels.dream.reference import Decider, Dreamed, executed, seen
from worldaction.kernels.rollout.reference import PriorWeights
from worldaction.random import Stream, normal, uniform
from worldaction.success import SuccessClassifier
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel

NEVER = 2.0
"""No probability of success reaches this."""
MIN_STD = 0.1


class Models(NamedTuple):
    """What a dream takes: a world model, a policy, a success classifier and where to begin."""

    world: WorldModel
    policy: DiffusionPolicy
    success: SuccessClassifier
    starts: Latent
    rows: Tensor


def build_models(workload: DreamWorkload, device: torch.device) -> Models:
    """A model, a policy and a classifier with random weights, and dreams that begin with empty latents."""
    world = world_model(Windows(workload.sizes, seed=workload.seed), device).requires_grad_(False).eval()
    with torch.random.fork_rng([]):
        torch.manual_seed(workload.seed)
        policy = DiffusionPolicy(
            world.feature_size,
            workload.sizes.action,
            chunk=workload.chunk,
            denoising_steps=workload.denoising_steps,
            width=workload.width,
        )
        success = SuccessClassifier(world.feature_size, hidden=256, dropout=0.0).eval()
    belief = torch.zeros(workload.batch, workload.sizes.deter, device=device)
    code = torch.zeros(workload.batch, workload.sizes.groups, dtype=torch.uint8, device=device)
    for network in (policy, success):
        network.requires_grad_(False).to(device)
    return Models(world, policy, success, Latent(belief, code), torch.arange(workload.batch, device=device))


# Timed --------------------------------------------------------------------------------------------------------------


def works(workload: DreamWorkload, device: torch.device) -> Mapping[str, Work]:
    """Dreams by the reference and by what `worldaction.kernels` chooses; amounts in chunks of actions.

    In bf16 the products of the imagined step alone are rounded, as `RSSM.imagine_in` says.

    Args:
        workload: sizes.
        device: where to compute.
    """
    about = f"{workload.denoising_steps} denoising steps of width {workload.width}, {workload.chunk} imagined frames"
    amount = workload.batch * workload.decisions

    def work(name: str, precision: Precision) -> Work:
        # a model of its own: some implementations keep what they make of a model's weights
        run, parameters = _dreaming(workload, device, precision)
        return Work(_forced(run, name) if name else run, amount, about, True, precision, parameters)

    found = {"ours, reference fp32": work(REFERENCE, "fp32")}
    if any(report.chosen and report.name != REFERENCE for report in implementations(typical(device))):
        found |= {f"ours, as chosen {precision}": work("", precision) for precision in DTYPES}
    for each in whole_dreams(workload, device):
        run = _whole(workload, device, each)
        found[f"ours, {each.name} {each.precision}"] = Work(run, amount, f"{about}, one op", True, each.precision)
    return found


def _dreaming(workload: DreamWorkload, device: torch.device, precision: Precision) -> tuple[Callable[[], object], int]:
    world, policy, success, starts, rows = build_models(workload, device)
    world.rssm.imagine_in = DTYPES[precision]
    options = {"decisions": workload.decisions, "threshold": NEVER, "seed": workload.seed, "min_std": MIN_STD}

    def run() -> object:
        return dream(world, policy, success, starts, rows=rows, **options)  # type: ignore[arg-type]

    return run, count(world.rssm, policy, success)


def _forced(run: Callable[[], object], name: str) -> Callable[[], object]:
    def forced() -> object:
        with patch.dict(os.environ, {VARIABLE: name}):
            return run()

    return forced


# The op ---------------------------------------------------------------------------------------------------------------


def whole_dreams(workload: DreamWorkload, device: torch.device) -> list[Implementation]:
    """Implementations of whole dreams that run here, beside the reference."""
    sizes = workload.sizes.axes | workload.policy_axes
    sizes |= {"success": 256, "horizon": workload.decisions * workload.chunk}
    return available("dream", device, batch=workload.batch, sizes=sizes)


def _whole(workload: DreamWorkload, device: torch.device, each: Implementation) -> Callable[[], object]:
    given, options = given_of(workload, build_models(workload, device))
    return without_gradients(lambda: each.run(*given, **options))


def given_of(workload: DreamWorkload, models: Models) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the op takes: weights in its order, and its options."""
    found = kernel_weights(models.world, models.policy, models.success, min_std=MIN_STD)
    assert found is not None
    options = {
        "seed": workload.seed,
        "decisions": workload.decisions,
        "chunk": workload.chunk,
        "binary": models.policy.config["binary"],
        "unimix": workload.sizes.unimix,
        "threshold": NEVER,
    }
    return (*found, *models.starts, models.rows), options


# Gate -----------------------------------------------------------------------------------------------------------------


def examined(workload: DreamWorkload, device: torch.device) -> dict[str, dict[str, float]]:
    """The errors of each implementation of whole dreams, by name.

    Raises:
        UserError: one of them is wrong.
    """
    with torch.no_grad():
        found = whole_dreams(replace(workload, chunk=1), device)
        return {f"{each.name} {each.precision}": examine(each, workload, device) for each in found}


def examine(each: Implementation, workload: DreamWorkload, device: torch.device) -> dict[str, float]:
    """Hold dreams against the definition in float64: their rollout as `gate` does, and every step of denoising.

    Decisions are of one action here, so that all that happens in a dream is seen from outside.

    Args:
        each: the op.
        workload: sizes; four times the decisions are dreamed, of a quarter of the actions.
        device: where.

    Raises:
        UserError: a limit is not met.
    """
    workload = replace(workload, chunk=1, decisions=workload.decisions * workload.chunk)
    given, options = given_of(workload, build_models(workload, device))
    prior, (decider,), _, belief, code, rows = given
    dreamed: Dreamed = each.run(*given, **options)
    verdict = _rollout(prior, Start(belief, code, _actions(dreamed, options)), rows, dreamed, workload)
    error = _denoising(decider, dreamed, rows, workload)
    wrong = [] if error <= LIMITS[each.precision] else [f"denoising {error:.2g}"]
    if broken := verdict.broken(each.precision) + wrong:
        who = f"{each.name} {each.precision}"
        raise UserError(f"dreams by {who} are not right: {', '.join(broken)}; they are not timed")
    return {**vars(verdict), "denoising": error}


def _actions(dreamed: Dreamed, options: Mapping[str, Any]) -> Tensor:
    """[B, H, A] that were executed, decisions being of one action."""
    return executed(dreamed.states[:, :, -1], options["binary"])


def _rollout(
    prior: PriorWeights, first: Start, rows: Tensor, dreamed: Dreamed, workload: DreamWorkload
) -> gate.Verdict:
    steps = range(workload.decisions)
    draws = [uniform(workload.seed, Stream.PRIOR, rows, step, workload.sizes.groups) for step in steps]
    shape = Workload(workload.sizes, workload.batch, workload.decisions)
    return gate.compare(prior, first, torch.stack(draws, 1), dreamed.beliefs[:, 1:], dreamed.codes[:, 1:], shape)


def _denoising(decider: Decider, dreamed: Dreamed, rows: Tensor, workload: DreamWorkload) -> float:
    """The largest error of a denoising step, each from the dream's own state before it."""
    count_, size = dreamed.states.shape[2:]
    layer = [part.double() for part in (decider.belief, decider.rows, decider.bias)]
    errors = []
    for decision in range(workload.decisions):
        noise = normal(workload.seed, Stream.POLICY, rows, decision, count_ * size).view(-1, count_, size)
        condition = seen(dreamed.beliefs[:, decision].double(), dreamed.codes[:, decision], *layer)
        states = dreamed.states[:, decision]
        errors.append((states[:, 0].double() - noise[:, 0].double()).abs().max())
        errors.append(largest_error(decider.weights, condition, states, noise[:, 1:], decider.table))
    return float(torch.stack(errors).max())

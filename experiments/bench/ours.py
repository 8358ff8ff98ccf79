"""This library: every implementation of the rollout that `worldaction.kernels` knows here, and the training step.

The random numbers of an imagination are drawn within its time, by the library's own generator: the others draw within
theirs. Latents stay indices from the first step to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from experiments.bench.base import Precision, Sizes, Windows, Work, Workload, count, flops, without_gradients
from worldaction.cuda_graph import WARM, Graph
from worldaction.fit import Fit
from worldaction.kernels import REFERENCE, implementations, ops, typical
from worldaction.kernels.rollout.reference import prior_rollout
from worldaction.random import Stream, uniform
from worldaction.spec import ACTION, IS_INIT, PREVIOUS_ACTION, STATIC, Layout
from worldaction.world_model.cores.dreamer_v2 import RSSM
from worldaction.world_model.model import ModelConfig, WorldModel, total

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
PEAKED = 8.0
"""Gain of the logits' weights, which makes the distributions of an untrained model as peaked as a trained one's."""
LOSSES = ("reconstruction=1,proprio=0", "kl=0.3,free_nats=0")


class Implementation(NamedTuple):
    """One of our ways to run an operation."""

    name: str
    precision: Precision
    run: Callable[..., Any]
    """With the arguments of the operation's definition."""


class Start(NamedTuple):
    """Where an imagination begins, and what it is given."""

    belief: Tensor  # [B, D]
    code: Tensor  # [B, S] uint8
    actions: Tensor  # [B, H, A]


def rollouts(workload: Workload, device: torch.device, *, compiled: bool = True) -> list[Implementation]:
    """Every rollout that can run a workload on a device, the reference first; see `definitions`."""
    options = {"unimix": workload.sizes.unimix}
    sizes = workload.sizes.axes | {"horizon": workload.horizon}
    return [
        *definitions(prior_rollout, device, compiled=compiled, **options),
        *available("rollout", device, batch=workload.batch, sizes=sizes, **options),
    ]


def definitions(
    define: Callable[..., Any], device: torch.device, *, compiled: bool, **options: Any
) -> list[Implementation]:
    """What defines an operation, and what torch.compile makes of it.

    Args:
        define: the definition.
        device: where it runs.
        compiled: whether the second is wanted, too.
        options: of the operation.
    """
    found = [Implementation("reference", "fp32", partial(define, **options))]
    if compiled:
        found.append(Implementation("torch.compile", "fp32", partial(_compiled(define, device.type), **options)))
    return found


def available(
    op: str, device: torch.device, *, batch: int, sizes: Mapping[str, int], **options: Any
) -> list[Implementation]:
    """Implementations of an operation that can run here beside the reference, in each precision.

    Args:
        op: a key of `worldaction.kernels.DEFINITIONS`.
        device: where.
        batch: rows.
        sizes: lengths of the operation's axes.
        options: of the operation.
    """
    found = []
    for precision, dtype in DTYPES.items():
        asked = typical(device, dtype=dtype, batch=batch)
        for report in implementations(replace(asked, sizes={**asked.sizes, **sizes})):
            if report.op == op and report.name != REFERENCE and report.reason is None:
                run = partial(getattr(ops, op), **options, dtype=dtype, force=report.name)
                found.append(Implementation(report.name, precision, run))
    return found


@cache
def _compiled(define: Callable[..., Any], device: str) -> Callable[..., Any]:
    """The whole operation in one graph, replayed as a CUDA graph on a GPU."""
    compiled: Callable[..., Any] = torch.compile(
        define, dynamic=False, mode="reduce-overhead" if device == "cuda" else None
    )
    return compiled


def model(sizes: Sizes, device: torch.device, *, seed: int = 0) -> RSSM:
    """A frozen recurrent model with random weights and peaked distributions."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        core = RSSM(
            embed=1,
            action=sizes.action,
            deter=sizes.deter,
            groups=sizes.groups,
            classes=sizes.classes,
            hidden=sizes.hidden,
            unimix=sizes.unimix,
            null_action=(0.0,) * sizes.action,
        )
    core.prior_net[-1].weight.data.mul_(PEAKED)  # type: ignore[operator]
    return core.requires_grad_(False).to(device)


def start(workload: Workload, device: torch.device) -> Start:
    """Random latents and the workload's actions."""
    generator = torch.Generator().manual_seed(workload.seed + 1)
    sizes = workload.sizes
    belief = torch.empty(workload.batch, sizes.deter).uniform_(-1, 1, generator=generator)
    code = torch.randint(0, sizes.classes, (workload.batch, sizes.groups), generator=generator).to(torch.uint8)
    return Start(belief.to(device), code.to(device), workload.actions(device))


def draws(workload: Workload, device: torch.device, *, seed: int) -> Tensor:
    """The random numbers of a whole imagination, [B, H, S]."""
    shape = (workload.batch, workload.horizon)
    rows, steps = (t.flatten().to(device) for t in torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    return uniform(seed, Stream.PRIOR, rows, steps, workload.sizes.groups).view(*shape, -1)


class Ours:
    """The library.

    Args:
        device: where to compute.
        compiled: whether to enter the reference under torch.compile, which takes a minute for every batch size.
    """

    def __init__(self, device: torch.device, *, compiled: bool = True) -> None:
        self.device, self.compiled = device, compiled

    def imagination(self, workload: Workload) -> Mapping[str, Work]:
        """`prior_rollout` by every implementation, over given actions."""
        core, first = model(workload.sizes, self.device), start(workload, self.device)
        weights = core.prior_weights()
        parameters = count(
            *(core.input_state, core.input_action, core.input_norm, core.gates, core.gates_norm, core.prior_net)
        )
        eager = rollouts(workload, self.device, compiled=False)[0].run
        uniforms = draws(workload, self.device, seed=0)
        arithmetic = flops(without_gradients(lambda: eager(weights, *first, uniforms)))

        def work(each: Implementation) -> Work:
            run = without_gradients(lambda: each.run(weights, *first, draws(workload, self.device, seed=0)))
            about = "GRU with LayerNorm, gathered rows, one uniform a group"
            return Work(run, workload.steps, about, True, each.precision, parameters, arithmetic)

        chosen = rollouts(workload, self.device, compiled=self.compiled)
        return {f"ours, {each.name} {each.precision}": work(each) for each in chosen}

    def training(self, windows: Windows) -> Mapping[str, Work]:
        """One step of `worldaction.fit.Fit` on a `WorldModel` that sees one camera and no proprioception."""
        found = {f"ours, {precision}": self._training(windows, precision) for precision in DTYPES}
        if self.device.type == "cuda":
            found |= {
                f"ours, {precision}, graph": self._training(windows, precision, graph=True) for precision in DTYPES
            }
        return found

    def _training(self, windows: Windows, precision: Precision, *, graph: bool = False) -> Work:
        world, batch = world_model(windows, self.device), training_batch(windows, self.device)
        optimizer = torch.optim.AdamW(world.parameters(), lr=3e-4, weight_decay=0.05, eps=1e-5, fused=True)
        recorder = Graph(self.device) if graph else None
        fit = Fit(world, optimizer, steps=0, factor=lambda _: 1.0, clip=100.0, graph=recorder)

        def loss(_: int) -> tuple[Tensor, Mapping[str, Tensor]]:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                terms, metrics, _latents = world.losses_of(batch)
            return total(terms), metrics

        def step() -> None:
            fit.steps = fit.step + 1
            fit.run(loss, lambda *_: None)

        for _ in range(WARM + 1 if graph else 0):
            # what it takes to record a graph is not what it takes to replay it
            step()
        about = "its WorldModel: 4x4 convolutions of stride 2, AdamW"
        return Work(step, 1, about, True, precision, count(world), flops(step))


def world_model(windows: Windows, device: torch.device) -> WorldModel:
    """DreamerV2's stack for one camera: the same layers as LUMOS's."""
    sizes = windows.sizes
    layout = Layout((STATIC,), robot=0, scene=0, action=sizes.action, null_action=(0.0,) * sizes.action)
    config = ModelConfig(
        cameras=(STATIC,),
        image_size=windows.image,
        deter=sizes.deter,
        groups=sizes.groups,
        classes=sizes.classes,
        hidden=sizes.hidden,
        embed=32 * windows.depth,
        depth=windows.depth,
        patch=1,
        unimix=sizes.unimix,
        burn_in=1,
        losses=LOSSES,
        layout=layout,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(windows.seed)
        return WorldModel(config).to(device)


def training_batch(windows: Windows, device: torch.device) -> TensorDict:
    """Windows as a play store gives them, [B, T]."""
    images, actions, first = windows.data(device)
    previous = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)
    values = {STATIC: images, ACTION: actions, PREVIOUS_ACTION: previous, IS_INIT: first}
    return TensorDict(values, first.shape, device=device)

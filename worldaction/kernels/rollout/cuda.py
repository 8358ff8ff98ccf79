"""The rollout on an NVIDIA GPU: one kernel with the weights on chip where they fit, else torch's products between ours.

The route is chosen by what fits: bfloat16, and blocks for all rows at once. Where it should change is not yet measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from worldaction.kernels import UNPROVEN, Request
from worldaction.kernels.cuda.launch import Load, Replay, load, room, unavailable
from worldaction.kernels.cuda.source import Source
from worldaction.kernels.rollout.persistent import Persistent, Plan, persistent_source, plan
from worldaction.kernels.rollout.reference import PriorWeights, flat, sizes_of
from worldaction.kernels.rollout.steps import PriorStep, steps_source
from worldaction.kernels.weight_cache import WeightCache

PRIORITY = 30
OPT_IN = UNPROVEN
KEPT = 4
LARGEST = 4096  # deter, whose gates must fit into 48 KiB of a block's shared memory
_kept: WeightCache[Rollout] = WeightCache(KEPT)


def available(request: Request) -> str | None:
    """Why the kernels cannot serve a request; None if they can."""
    if request.dtype not in (torch.float32, torch.bfloat16):
        return f"{request.dtype} is not built; ask for float32 or bfloat16"
    if request.sizes.get("deter", 0) > LARGEST:
        return f"deter {request.sizes['deter']} is larger than {LARGEST}"
    return unavailable(request)


def run(
    weights: PriorWeights,
    belief: Tensor,
    code: Tensor,
    actions: Tensor,
    uniforms: Tensor,
    *,
    unimix: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`prior_rollout`; what is prepared for a model and a batch is kept, for the last few of them."""
    batch, horizon, _ = actions.shape
    groups = code.shape[1]

    def make() -> Rollout:
        blocks, shared = room(actions.device)
        cut = plan(sizes_of(weights, groups), batch, blocks=blocks, shared=shared) if dtype == torch.bfloat16 else None
        shape = {"batch": batch, "horizon": horizon, "groups": groups}
        return Rollout(weights, **shape, unimix=unimix, dtype=dtype, cut=cut, load=load)

    return _kept.get(flat(weights), (batch, horizon, groups, unimix, dtype), make)(belief, code, actions, uniforms)


def sources(sizes: Mapping[str, int], batch: int, *, blocks: int, shared: int) -> Iterator[Source]:
    """What is compiled for sizes (see `sizes_of`) and a batch, on a GPU of so many multiprocessors and bytes."""
    for dtype in (torch.float32, torch.bfloat16):
        yield steps_source(sizes, dtype)
    cut = plan(sizes, batch, blocks=blocks, shared=shared)
    if cut is not None:
        yield persistent_source(sizes, cut)


class Rollout:
    """A rollout made ready: packed weights, fixed buffers, and on a GPU a graph of all launches.

    Args:
        weights: see `PriorWeights`, float32; kept, so that their addresses stay theirs.
        batch: rows B.
        horizon: H.
        groups: S.
        unimix: share of the uniform distribution.
        dtype: of products, float32 or bfloat16.
        cut: how to cut the kernel that keeps weights on chip; None for products by torch.
        load: how programs come to the device.
    """

    def __init__(
        self,
        weights: PriorWeights,
        *,
        batch: int,
        horizon: int,
        groups: int,
        unimix: float,
        dtype: torch.dtype,
        cut: Plan | None,
        load: Load,
    ) -> None:
        device, deter, action = weights.gates.device, weights.hidden.shape[1], weights.action.shape[1]
        self._given = (
            torch.empty(batch, deter, device=device),
            torch.empty(batch, groups, dtype=torch.uint8, device=device),
            torch.empty(batch, horizon, action, device=device),
            torch.empty(batch, horizon, groups, device=device),
        )
        self._beliefs = torch.empty(batch, horizon, deter, device=device)
        self._codes = torch.empty(batch, horizon, groups, dtype=torch.uint8, device=device)
        self._weights = weights
        if cut is None:
            self._step = PriorStep(weights, groups, batch=batch, unimix=unimix, dtype=dtype, load=load)
            self._replay = Replay(self._steps, device)
        else:
            self._whole = Persistent(weights, groups, cut, batch=batch, unimix=unimix, load=load)
            self._replay = Replay(self._at_once, device)

    def __call__(self, belief: Tensor, code: Tensor, actions: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Arguments and results of `prior_rollout`."""
        for buffer, value in zip(self._given, (belief, code, actions, uniforms), strict=True):
            buffer.copy_(value)
        self._replay()
        return self._beliefs.clone(), self._codes.clone()

    def _at_once(self) -> None:
        self._whole.run(*self._given, beliefs=self._beliefs, codes=self._codes)

    def _steps(self) -> None:
        belief, code, actions, uniforms = self._given
        self._step.begin(belief)
        for t in range(actions.shape[1]):
            after = {"next_belief": self._beliefs[:, t], "next_code": self._codes[:, t]}
            self._step.advance(belief, code, actions[:, t], uniforms[:, t], **after)
            belief, code = after["next_belief"], after["next_code"]

"""The rollout of a small batch as one kernel whose weights stay on chip: how it is cut into blocks, and its launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worldaction.kernels.cuda.launch import Argument, Load
from worldaction.kernels.cuda.source import Source, source
from worldaction.kernels.rollout.reference import PriorWeights, sizes_of

PAD, STAGED = 8, 64  # PAD and KC of persistent.cuh
COUNTER = 32  # words between the counters of two groups, so that they lie in different cache lines


@dataclass(frozen=True)
class Plan:
    """How a rollout is cut: groups of `columns` blocks, each group imagining `rows` rows.

    Attributes:
        columns: blocks NC that share the columns of every matrix.
        rows: rows BM of a group.
        groups: how many groups the batch needs.
        padded: width U of the inner layers, rounded up with zeros so that it divides.
        threads: of a block.
        shared: bytes of shared memory of a block.
    """

    columns: int
    rows: int
    groups: int
    padded: int
    threads: int
    shared: int


def plan(sizes: Mapping[str, int], batch: int, *, blocks: int, shared: int) -> Plan | None:
    """The cut that spreads a batch over most blocks of four warps, or None if the weights do not fit on chip.

    Args:
        sizes: deter, hidden, groups, classes.
        batch: rows B.
        blocks: blocks that can be resident at once, one for each multiprocessor.
        shared: bytes of shared memory that a block may have.
    """
    cuts = [_cut(sizes, batch, columns, rows) for columns in (1, 2, 4, 8, 16, 32, 64) for rows in (16, 32, 64)]
    fit = [cut for cut in cuts if cut and cut.shared <= shared and cut.groups * cut.columns <= blocks]
    return max(fit, key=lambda cut: (min(cut.threads, 128), cut.groups * cut.columns, cut.columns), default=None)


def _cut(sizes: Mapping[str, int], batch: int, columns: int, rows: int) -> Plan | None:
    deter, groups, classes = sizes["deter"], sizes["groups"], sizes["classes"]
    unit = max(8 * columns, 16)
    padded = -(-sizes["hidden"] // unit) * unit
    owners = min(columns, groups)
    if deter % unit or groups % owners:
        return None
    tiles = deter // columns // 8
    threads = 32 * (rows // 16) * tiles
    if threads > 1024:
        return None
    scores = -(-groups // owners * classes // 8) * 8
    depth = padded + deter
    halves = 3 * deter // columns * (depth + PAD) + padded // columns * (deter + PAD) + scores * (padded + PAD)
    floats = rows * (deter // columns + scores + 1 + 2 * tiles + 2)
    shared = 2 * (halves + rows * (STAGED + PAD)) + 4 * floats
    return Plan(columns, rows, -(-batch // rows), padded, threads, shared)


def persistent_source(sizes: Mapping[str, int], cut: Plan) -> Source:
    """What is compiled for sizes (deter, hidden, groups, classes, action) and a cut."""
    macros = {"D": sizes["deter"], "U": sizes["hidden"], "UP": cut.padded, "S": sizes["groups"], "C": sizes["classes"]}
    macros |= {"A": sizes["action"], "NC": cut.columns, "BM": cut.rows, "SHARED": cut.shared}
    return source("persistent", BF16=1, **macros)


class Persistent:
    """The kernel with its weights, for one batch and horizon.

    Args:
        weights: see `PriorWeights`.
        groups: S.
        cut: from `plan`.
        batch: rows B.
        unimix: share of the uniform distribution.
        load: how programs come to the device.
    """

    def __init__(self, weights: PriorWeights, groups: int, cut: Plan, *, batch: int, unimix: float, load: Load) -> None:
        device, deter = weights.gates.device, weights.hidden.shape[1]
        self.program = load(persistent_source(sizes_of(weights, groups), cut), device)
        self.cut, self.batch, self.unimix = cut, batch, unimix
        self.weights = pack(weights, cut.padded)
        rows = cut.groups * cut.rows
        self.operand = torch.zeros(rows, cut.padded + deter, dtype=torch.bfloat16, device=device)
        self.raw = torch.zeros(rows, cut.padded, device=device)
        self.sums = torch.zeros(2, rows, cut.columns, 2, device=device)
        self.counters = torch.zeros(cut.groups, COUNTER, dtype=torch.int32, device=device)

    def run(
        self, belief: Tensor, code: Tensor, actions: Tensor, uniforms: Tensor, *, beliefs: Tensor, codes: Tensor
    ) -> None:
        """Imagine the horizon; arguments as for the reference, contiguous, results written."""
        self.counters.zero_()
        arguments: list[Argument] = [*self.weights, belief, code, actions, uniforms]
        arguments += [self.operand, self.raw, self.sums, self.counters]
        arguments += [beliefs, codes, self.unimix, self.batch, actions.shape[1]]
        grid = self.cut.groups * self.cut.columns
        self.program.launch(
            "rollout_persistent",
            grid,
            self.cut.threads,
            *arguments,
            shared=self.cut.shared,
            cooperative=True,
        )


def pack(weights: PriorWeights, padded: int) -> list[Tensor]:
    """The weights as the kernel takes them: matrices in bfloat16, the inner width padded with zeros, [A, UP] action."""
    hidden, half = weights.hidden.shape[0], torch.bfloat16
    more = padded - hidden

    def wide(tensor: Tensor) -> Tensor:
        return functional.pad(tensor, (0, more))

    # [3 D, UP + D]: the zeros stand between x and h
    x, h = weights.gates.split([hidden, weights.gates.shape[1] - hidden], -1)
    matrices = {
        "rows": wide(weights.state_rows),
        "action": wide(weights.action.t()),
        "gates": torch.cat([wide(x), h], -1),
        "hidden": functional.pad(weights.hidden, (0, 0, 0, more)),
        "logits": wide(weights.logits),
    }
    m = {name: matrix.to(half).contiguous() for name, matrix in matrices.items()}
    vectors = [wide(v).contiguous() for v in (weights.input_bias, *weights.input_norm)]
    inner = [wide(v).contiguous() for v in (weights.hidden_bias, *weights.hidden_norm)]
    first, gates = [m["rows"], m["action"], *vectors], [m["gates"], *weights.gates_norm]
    return [*first, *gates, m["hidden"], *inner, m["logits"], weights.logits_bias]

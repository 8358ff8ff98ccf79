"""Whole dreams on an NVIDIA GPU: one CUDA graph over the horizon, in which nothing returns to Python.

A decision is a product and a kernel for what the policy sees, a kernel for each network's denoising steps, and for each
of its actions the prior's step and the success classifier. Random numbers for all of it are made at the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from worldaction.kernels import UNPROVEN, Request
from worldaction.kernels.cuda.launch import Load, Replay, load, long, room
from worldaction.kernels.cuda.source import Source, source
from worldaction.kernels.denoise import cuda as denoising
from worldaction.kernels.dream.reference import Decider, Dreamed, SuccessWeights, flat_deciders
from worldaction.kernels.rollout import cuda as rolling
from worldaction.kernels.rollout.reference import PriorWeights, flat
from worldaction.kernels.rollout.steps import PriorStep
from worldaction.kernels.weight_cache import WeightCache
from worldaction.random import Stream

PRIORITY = 30
OPT_IN = UNPROVEN
THREADS = 128  # DREAM_THREADS of dream.cuh
_kept: WeightCache[Dreams] = WeightCache(4)


def available(request: Request) -> str | None:
    """Why the kernels cannot serve a request; None if they can."""
    if request.sizes.get("action", 0) > 63:
        return f"actions of {request.sizes['action']} numbers; at most 63 are served"
    return denoising.available(request) or rolling.available(request)


def run(
    prior: PriorWeights,
    deciders: Sequence[Decider],
    success: SuccessWeights,
    belief: Tensor,
    code: Tensor,
    rows: Tensor,
    *,
    seed: int,
    decisions: int,
    chunk: int,
    binary: Sequence[int],
    unimix: float,
    threshold: float,
    dtype: torch.dtype,
) -> Dreamed:
    """`dream`; what is prepared for a model, a policy and a batch is kept, for the last few of them."""
    tensors = [*flat(prior), *success, *flat_deciders(deciders)]
    groups, batch = code.shape[1], len(rows)

    def make() -> Dreams:
        return Dreams(
            prior,
            deciders,
            success,
            groups,
            batch=batch,
            decisions=decisions,
            chunk=chunk,
            binary=binary,
            unimix=unimix,
            threshold=threshold,
            dtype=dtype,
            room=room(belief.device),
            load=load,
        )

    more = (groups, batch, decisions, chunk, tuple(binary), unimix, threshold, dtype)
    return _kept.get(tensors, more, make)(belief, code, rows, seed)


def dream_source(sizes: Mapping[str, int], dtype: torch.dtype) -> Source:
    """What is compiled for sizes (groups, classes, width, success) and a precision of products."""
    macros = {"S": sizes["groups"], "C": sizes["classes"], "W": sizes["width"], "Q": sizes["success"]}
    return source("dream", BF16=int(dtype == torch.bfloat16), **macros)


def sources(sizes: Mapping[str, int]) -> Iterator[Source]:
    """What is compiled beside the prior's and the denoiser's, in both precisions."""
    for dtype in (torch.float32, torch.bfloat16):
        yield dream_source(sizes, dtype)


class Dreams:
    """Dreams made ready: packed weights, fixed buffers, and on a GPU a graph of all launches.

    Args:
        prior, deciders, success: weights, float32, as for `dream`.
        groups: S.
        batch: rows B.
        decisions: H.
        chunk: actions K of a decision.
        binary: dimensions of an action that are thresholded.
        unimix: share of the uniform distribution.
        threshold: probability from which a state counts as success.
        dtype: of products, float32 or bfloat16.
        room: multiprocessors, and bytes of shared memory of a block.
        load: how programs come to the device.
    """

    def __init__(
        self,
        prior: PriorWeights,
        deciders: Sequence[Decider],
        success: SuccessWeights,
        groups: int,
        *,
        batch: int,
        decisions: int,
        chunk: int,
        binary: Sequence[int],
        unimix: float,
        threshold: float,
        dtype: torch.dtype,
        room: tuple[int, int],
        load: Load,
    ) -> None:
        self._device, deter = prior.gates.device, prior.hidden.shape[1]
        self._action, self._half = prior.action.shape[1], prior.hidden.shape[0]
        self._shape, self._threshold = (batch, decisions, chunk), threshold
        self._binary = sum(1 << (index % self._action) for index in binary)
        self._prior = PriorStep(prior, groups, batch=batch, unimix=unimix, dtype=dtype, load=load)
        room_of = {"blocks": room[0], "shared": room[1]}
        self._networks = [
            denoising.Denoise(each.weights, batch, dtype=dtype, **room_of, load=load) for each in deciders
        ]
        self._tables = [each.table.contiguous() for each in deciders]
        self._sees = tuple(
            torch.cat(parts, -1).contiguous()
            for parts in (
                [each.belief.t().to(dtype) for each in deciders],
                [each.rows.to(dtype) for each in deciders],
                [each.bias for each in deciders],
            )
        )
        self._success = success
        self._success_in, self._success_rows = success.belief.t().to(dtype).contiguous(), success.rows.to(dtype)
        width, hidden = deciders[0].belief.shape[0], success.belief.shape[0]
        sizes = {"groups": groups, "classes": len(prior.state_rows) // groups, "width": width, "success": hidden}
        self._program = load(dream_source(sizes, dtype), self._device)
        self._random = load(source("random", BF16=0), self._device)
        self._allocate(deter, groups, width, hidden, dtype)
        self._replay = Replay(self._run, self._device)

    def __call__(self, belief: Tensor, code: Tensor, rows: Tensor, seed: int) -> Dreamed:
        """Arguments and results of `dream`."""
        keys = [[seed, int(Stream.POLICY), 0], [seed, int(Stream.PRIOR), 0]]
        self._keys.copy_(torch.tensor(keys))
        self._beliefs[0].copy_(belief)
        self._codes[0].copy_(code)
        self._rows.copy_(rows)
        self._replay()
        # a network after the first begins where the one before ended
        states = torch.cat([part[:, :, bool(k) :] for k, part in enumerate(self._states)], 2)
        results = (self._beliefs, self._codes, states, torch.cat(self._means, 2), self._done_at)
        return Dreamed(*(result.transpose(0, 1).clone() for result in results))

    def _allocate(self, deter: int, groups: int, width: int, hidden: int, dtype: torch.dtype) -> None:
        """Buffers; decisions come first where a kernel wants the rows of one of them together."""
        batch, decisions, chunk = self._shape
        counts, size = [len(table) for table in self._tables], chunk * self._action

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=self._device)

        self._keys, self._rows = empty(2, 3, dtype=torch.int64), empty(batch, dtype=torch.int64)
        self._noise = empty(batch, decisions, sum(counts) + 1, size)
        self._uniforms = empty(batch, decisions * chunk, groups)
        self._beliefs, self._codes = (
            empty(decisions + 1, batch, deter),
            empty(decisions + 1, batch, groups, dtype=torch.uint8),
        )
        self._between = [(empty(batch, deter), empty(batch, groups, dtype=torch.uint8)) for _ in range(2)]
        self._states = [empty(decisions, batch, count + 1, size) for count in counts]
        self._means = [empty(decisions, batch, count, size) for count in counts]
        self._done_at = empty(decisions, batch, dtype=torch.int32)
        self._actions = empty(batch, chunk, self._action)
        self._seen, self._condition = empty(batch, len(counts) * width, dtype=dtype), empty(len(counts), batch, width)
        self._judged = empty(batch, hidden, dtype=dtype)

    def _run(self) -> None:
        batch, decisions, chunk = self._shape
        per_row = self._noise.shape[2] * self._noise.shape[3]
        self._draw("normals", 0, self._noise, (decisions, per_row), batch * decisions * -(-per_row // 2))
        self._draw("uniforms", 1, self._uniforms, (decisions * chunk, self._uniforms.shape[2]), self._uniforms.numel())
        self._done_at.zero_()
        self._prior.begin(self._beliefs[0])
        for decision in range(decisions):
            self._decide(decision)
            self._imagine(decision)

    def _draw(self, kernel: str, which: int, out: Tensor, shape: tuple[int, int], threads: int) -> None:
        self._random.launch(kernel, -(-threads // 256), 256, self._keys[which], self._rows, out, len(out), *shape)

    def _decide(self, decision: int) -> None:
        batch, _, chunk = self._shape
        weight, rows, bias = self._sees
        code, noise = self._codes[decision], self._noise[:, decision]
        torch.mm(self._prior.operand[:, self._half :], weight, out=self._seen)
        out = (code, long(code.stride(0)), self._condition, batch, len(self._networks))
        self._program.launch("condition_step", batch, THREADS, self._seen, bias, rows, *out)
        x, taken = noise[:, 0], 1
        for k, (network, table) in enumerate(zip(self._networks, self._tables, strict=True)):
            after = {"states": self._states[k][decision], "means": self._means[k][decision]}
            network.into(self._condition[k], x, noise[:, taken:], table, **after)
            x, taken = after["states"][:, -1], taken + len(table)
        size = chunk * self._action
        given = (x, long(x.stride(0)), self._actions, batch, size, self._action, long(self._binary))
        self._program.launch("act_step", -(-batch * size // THREADS), THREADS, *given)

    def _imagine(self, decision: int) -> None:
        batch, _, chunk = self._shape
        belief, code = self._beliefs[decision], self._codes[decision]
        for k in range(chunk):
            step, last = decision * chunk + k, k == chunk - 1
            # the last of a decision's steps lands where the next decision looks
            after = (self._beliefs[decision + 1], self._codes[decision + 1]) if last else self._between[k % 2]
            kept = {"next_belief": after[0], "next_code": after[1]}
            self._prior.advance(belief, code, self._actions[:, k], self._uniforms[:, step], **kept)
            belief, code = after
            torch.mm(self._prior.operand[:, self._half :], self._success_in, out=self._judged)
            w = self._success
            weights = (self._judged, w.bias, self._success_rows, w.gain, w.offset, w.head, w.head_bias)
            judged = (code, long(code.stride(0)), self._done_at[decision], self._threshold, step + 1)
            self._program.launch("success_step", batch, THREADS, *weights, *judged)

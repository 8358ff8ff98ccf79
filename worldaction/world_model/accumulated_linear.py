"""Linear layers that are used once a frame, and whose weights' gradient is one product over all frames.

Written plainly, a recurrence adds one small product a frame to the gradient of every weight, and reads and writes that
gradient each time. Here each frame's backward pass keeps its two factors, and the weight's own backward pass, which
comes after all of them, multiplies them side by side. In bfloat16 the sum over frames is then not rounded every frame.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

WORTH = 2**18
"""Numbers in a weight from which on moving its gradient costs more than a call of Python (measured on a CPU)."""


class Deferred:
    """A linear layer for use in a loop: `layer(x)` as often as wanted within one forward pass.

    Args:
        weight: [O, I].
        bias: [O], or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        kind = weight.device.type
        if torch.is_autocast_enabled(kind):
            weight = weight.to(torch.get_autocast_dtype(kind))
        self._pairs = _Pairs()
        self._weight: Tensor = _Gather.apply(weight, self._pairs)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        result: Tensor = _Product.apply(x.to(self._weight.dtype), self._weight, self._pairs)
        return result if self._bias is None else result + self._bias.to(result.dtype)


def deferred(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """A linear layer [..., I] -> [..., O] for use in a loop, as `Deferred` where that is worth its overhead.

    Args:
        weight: [O, I].
        bias: [O], or None.
    """
    learns = torch.is_grad_enabled() and weight.requires_grad and not torch.compiler.is_compiling()
    if learns and weight.device.type == "cpu" and weight.numel() >= WORTH:
        return Deferred(weight, bias)
    return partial(F.linear, weight=weight, bias=bias)


class _Pairs:
    """Inputs and gradients [..., I] and [..., O] of one backward pass."""

    def __init__(self) -> None:
        self.task, self.kept = -1, list[tuple[Tensor, Tensor]]()

    def keep(self, x: Tensor, grad: Tensor) -> None:
        """Add a frame's; those of an earlier pass, which did not ask for the weight's gradient, are forgotten."""
        task = torch._C._current_graph_task_id()
        if task != self.task:
            self.task, self.kept = task, []
        self.kept.append((x, grad))

    def product(self) -> Tensor | None:
        """The weight's gradient [O, I], once."""
        kept, self.kept = self.kept, []
        if not kept or self.task != torch._C._current_graph_task_id():
            return None
        inputs, grads = (torch.cat([part.flatten(0, -2) for part in parts]) for parts in zip(*kept, strict=True))
        return grads.t() @ inputs


class _Gather(torch.autograd.Function):
    """The weight itself; backward, after all of its uses, their joint gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, pairs: _Pairs) -> Tensor:
        ctx.pairs = pairs
        ctx.set_materialize_grads(False)
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor | None, None]:
        return ctx.pairs.product(), None


class _Product(torch.autograd.Function):
    """x W^T, which gives the weight no gradient and keeps what it takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, pairs: _Pairs) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pairs = pairs
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        ctx.pairs.keep(x, grad)
        return grad @ weight if ctx.needs_input_grad[0] else None, None, None

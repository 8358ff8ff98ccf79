"""Work that a GPU does again and again, launched as one: a CUDA graph.

A training step of a small model is some thousand launches, and the host takes longer to make them than the GPU to do
them. A graph is recorded once and launched whole. What it was given when it was recorded is baked in: the same tensors,
the same numbers of the host. So what changes from call to call must lie in tensors that are filled before the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from worldaction.errors import UserError

WARM = 3
"""First calls that are made as usual, on a stream of their own: libraries choose their algorithms in them."""


class Graph:
    """Calls a function as usual at first, then records it and launches what was recorded.

    Random numbers go on from call to call as usual: PyTorch's generator of the device tells a graph where it stands.
    """

    def __init__(self, device: torch.device) -> None:
        """
        Args:
            device: a CUDA GPU.

        Raises:
            UserError: it is none.
        """
        if device.type != "cuda":
            raise UserError(f"graphs are recorded on CUDA GPUs, not on {device}; leave world_model.graph off")
        self.device, self.calls = device, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: Any = None

    def __call__(self, function: Callable[[], Any]) -> Any:
        """What the function returns; its tensors are the same ones in every call, with new numbers.

        Args:
            function: the same one in every call. It must not wait for the device.
        """
        self.calls += 1
        if self.calls <= WARM:
            return self._aside(function)
        if self.graph is None:
            graph = torch.cuda.CUDAGraph()
            # other threads go on copying batches meanwhile, which the default forbids
            with torch.cuda.device(self.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.result = function()
            self.graph = graph
        self.graph.replay()
        return self.result

    def _aside(self, function: Callable[[], Any]) -> Any:
        own = torch.cuda.Stream(self.device)
        usual = torch.cuda.current_stream(self.device)
        own.wait_stream(usual)
        with torch.cuda.stream(own):
            result = function()
        usual.wait_stream(own)
        return result

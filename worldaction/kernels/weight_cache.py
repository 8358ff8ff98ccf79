"""What was prepared for some weights, kept for as long as these weights do not change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class WeightCache(Generic[T]):
    """The last few results of preparing weights.

    Args:
        room: how many.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        # the weights are kept beside the result, so that nothing else can come to lie at their addresses
        self._entries: OrderedDict[tuple[Any, ...], tuple[list[Tensor], T]] = OrderedDict()

    def get(self, weights: Sequence[Tensor], more: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` returns, made once for the same weights in the same state.

        Args:
            weights: by address and version; weights of inference mode have no version, and are prepared at every call.
            more: all else that the result depends on.
            make: prepares the weights.
        """
        if any(weight.is_inference() for weight in weights):
            return make()
        key = (*((weight.data_ptr(), weight._version) for weight in weights), *more)
        if key not in self._entries:
            self._entries[key] = (list(weights), make())
        self._entries.move_to_end(key)
        while len(self._entries) > self._room:
            self._entries.popitem(last=False)
        return self._entries[key][1]

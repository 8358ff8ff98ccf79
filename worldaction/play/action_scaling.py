"""Actions of any range brought to [-1, 1] when asked for: by one straight line a number, recorded, never done twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from worldaction.errors import UserError
from worldaction.interface import RECORDED, ActionScale
from worldaction.play.layout import MAX_ACTION
from worldaction.play.readers.source import Source, Wrapped
from worldaction.spec import ACTION


class Scaled(Wrapped):
    """A source whose actions are scaled by `ActionScale`; see `Source`. Everything else is as it was.

    The null action is scaled with the others. A policy that learned from it gives actions in the source's own units.

    Args:
        source: the data set.
        low: [A], what becomes -1.
        high: [A], what becomes 1.

    Raises:
        UserError: the actions were scaled before, or the bounds do not fit them.
    """

    def __init__(self, source: Source, low: np.ndarray, high: np.ndarray) -> None:
        _refuse_twice(source)
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if low.shape != (source.layout.action,) or high.shape != low.shape or not (low <= high).all():
            remedy = f"give the lowest and the highest value of each of the {source.layout.action} numbers"
            raise UserError(f"{source.path}: {low.tolist()} and {high.tolist()} do not bound its actions; {remedy}")
        super().__init__(source)
        self._scale = ActionScale(tuple(low.tolist()), tuple(high.tolist()))
        null = self._scale.to_unit(np.array([source.layout.null_action]))[0]
        # a gripper's command is read by its sign, which scaling keeps around zero alone
        binary = tuple(i for i in source.layout.binary if low[i] == -high[i])
        self.layout = replace(source.layout, null_action=tuple(null.tolist()), binary=binary)
        config = source.origin.config | {RECORDED: {"low": low.tolist(), "high": high.tolist()}}
        self.origin = replace(source.origin, config=config)

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        for block in self._source.blocks(episode, image_size=image_size, start=start):
            yield block | {ACTION: self._scale.to_unit(block[ACTION])}


def scale_to_range(source: Source) -> Scaled:
    """Scale actions so that the lowest value of each number in the whole set becomes -1 and the highest 1.

    Args:
        source: the data set; its vectors are read once, its images are not.

    Raises:
        UserError: the actions lie in [-1, 1] already, or were scaled before.
    """
    _refuse_twice(source)
    low = np.full(source.layout.action, np.inf)
    high = -low
    for number in range(len(source.episodes)):
        for block in source.blocks(number, image_size=0):
            low = np.minimum(low, block[ACTION].min(0))
            high = np.maximum(high, block[ACTION].max(0))
    if max(-low.min(), high.max()) <= MAX_ACTION:
        raise UserError(f"{source.path}: its actions lie in [-1, 1] already; leave --scale out")
    return Scaled(source, low, high)


def _refuse_twice(source: Source) -> None:
    if (before := source.origin.config.get(RECORDED)) is not None:
        raise UserError(f"{source.path}: its actions were scaled already, from {before}; leave --scale out")

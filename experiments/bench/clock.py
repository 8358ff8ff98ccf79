"""Times of several pieces of work that take turns in one process, so that a busy machine is busy for all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from experiments.bench.base import Work
from experiments.report.statistics import Estimate, Interval

LEVEL = 0.95


class Times(NamedTuple):
    """Seconds of one run: of all threads of this process, and on the clock."""

    cpu: float
    wall: float


def time_in_turns(
    works: Mapping[str, Work], *, rounds: int, device: torch.device, seed: int = 0, least: float = 0.05
) -> dict[str, list[Times]]:
    """Let pieces of work take turns, in another order every round.

    Args:
        works: by name.
        rounds: how often each has its turn, after one that does not count.
        device: waited for at the end of every turn.
        seed: of the order.
        least: seconds that a turn lasts at least; short work is repeated within its turn.

    Returns:
        the times of one run, one entry a round.
    """
    rng, names = np.random.default_rng(seed), list(works)
    repeats = {}
    for name, work in works.items():
        # the first run compiles and allocates, the second says how often it must be repeated to be timed well
        _turn(work.run, 1, device)
        repeats[name] = max(1, math.ceil(least / max(_turn(work.run, 1, device).wall, 1e-9)))
    times: dict[str, list[Times]] = {name: [] for name in names}
    for _ in range(rounds):
        for place in rng.permutation(len(names)):
            name = names[place]
            times[name].append(_turn(works[name].run, repeats[name], device))
    return times


def _turn(run: Callable[[], object], repeats: int, device: torch.device) -> Times:
    _wait(device)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        run()
    _wait(device)
    return Times((time.process_time() - cpu) / repeats, (time.perf_counter() - wall) / repeats)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median(values: Sequence[float]) -> Estimate:
    """Median and its interval from order statistics, which assumes nothing about the values' distribution.

    Args:
        values: one or more. With fewer than six the interval is their range, whose confidence is below 95 %.

    Source: Hahn and Meeker 1991, Statistical Intervals, 5.2; ranks from the binomial distribution.
    """
    ordered = sorted(values)
    low = _rank(len(ordered))
    return Estimate(float(np.median(ordered)), Interval(ordered[low], ordered[-1 - low]))


def _rank(n: int) -> int:
    """The largest r for which values r and n - 1 - r enclose the median with the wanted confidence, or 0."""
    below, rank = 0.5**n, 0
    while below + math.comb(n, rank + 1) * 0.5**n <= (1 - LEVEL) / 2:
        rank += 1
        below += math.comb(n, rank) * 0.5**n
    return rank


def speedup(slow: Sequence[float], fast: Sequence[float]) -> Estimate:
    """How many times faster the second is than the first: median and interval of the ratios, round by round."""
    return median([a / b for a, b in zip(slow, fast, strict=True)])

"""Intervals and comparisons for success rates: how sure a handful of episodes and seeds can make us.

Two questions, two kinds of interval. *These trained policies on other start states*: `wilson`, `paired_difference` and
`average`, closed forms that stay honest at 0 % and 100 %, where a bootstrap has width zero. *Other training seeds*:
`seed_bootstrap` and `probability_of_improvement` over the seeds' scores, after Agarwal et al. 2021, "Deep reinforcement
learning at the edge of the statistical precipice" (rliable, whose numbers `stratified=True` reproduces). With three
seeds such an interval of a mean goes from the worst seed to the best, and holds the truth in about three of four cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldaction.errors import UserError

Scores = NDArray[np.float64]


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A number and its interval; `_asdict()` is what summary.json holds."""

    value: float
    interval: Interval


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Interval of a success rate: Wilson's score interval, without continuity correction.

    Args:
        successes: how many of the episodes succeeded.
        n: how many episodes there were, at least one.
        level: confidence, in (0, 1).

    Raises:
        UserError: when the counts or the level make no sense.

    Source: Wilson 1927; method 3 of Newcombe 1998, Statistics in Medicine 17:857.
    """
    if not 0 <= successes <= n or n < 1:
        raise UserError(f"{successes} successes in {n} episodes is not a rate; give 0 <= successes <= n, n >= 1")
    z = _quantile(level)
    rate = successes / n
    scale = 1 / (1 + z * z / n)
    centre = (rate + z * z / (2 * n)) * scale
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) * scale
    # exact at the ends, where the two terms are equal but for rounding
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high)


def success_rate(successes: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Success rate of recorded outcomes, with Wilson's interval.

    Args:
        successes: [...] bool, one entry an episode.
        level: confidence, in (0, 1).
    """
    outcomes = _outcomes(successes)
    return Estimate(float(outcomes.mean()), wilson(int(outcomes.sum()), outcomes.size, level))


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Estimate:
    """How much more often `a` succeeds than `b` from the same start states: mean(a) - mean(b), and its interval.

    Pairing matters: two policies fail on the same hard starts, so their difference is known better than either rate.
    Several seeds may be laid end to end; the interval then speaks for these trained policies, not for new seeds.

    Args:
        a: [n] bool, outcome of the first policy from each start state.
        b: [n] bool, outcome of the second from the same start states, in the same order.
        level: confidence, in (0, 1).

    Raises:
        UserError: when the two are empty or of different length.

    Source: method 10 of Newcombe 1998, Statistics in Medicine 17:2635 (square-and-add of two Wilson intervals, with
    the continuity-corrected correlation of the two outcomes).
    """
    first, second = _outcomes(a), _outcomes(b)
    if first.shape != second.shape:
        raise UserError(f"outcomes of shape {first.shape} and {second.shape} are not pairs; use the same start states")
    p, q = success_rate(first, level=level), success_rate(second, level=level)
    phi = _correlation(first, second)
    low = _square_and_add(p.value - p.interval.low, q.interval.high - q.value, phi)
    high = _square_and_add(p.interval.high - p.value, q.value - q.interval.low, phi)
    value = p.value - q.value
    return Estimate(value, Interval(value - low, value + high))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates, such as the tasks' rates or differences, with an interval from their intervals.

    Args:
        estimates: at least one, independent of each other, all of the same confidence.

    Source: MOVER, Zou and Donner 2008, Statistics in Medicine 27:1693; square-and-add as in Newcombe 1998.
    """
    if not estimates:
        raise UserError("no estimates to average; give at least one task")
    count = len(estimates)
    value = math.fsum(e.value for e in estimates) / count
    low = math.hypot(*(e.value - e.interval.low for e in estimates)) / count
    high = math.hypot(*(e.interval.high - e.value for e in estimates)) / count
    return Estimate(value, Interval(value - low, value + high))


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores: less moved by one lucky seed than the mean, less wasteful than the median.

    Args:
        scores: [...], flattened; a quarter of the count, rounded down, is left out at either end.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def seed_bootstrap(
    scores: ArrayLike,
    statistic: Callable[[Scores], float] = interquartile_mean,
    *,
    stratified: bool = False,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """A statistic over seeds and tasks, with the percentile interval of a bootstrap that draws seeds anew.

    Args:
        scores: [seeds, tasks], one score per training seed and task; at least two seeds.
        statistic: [seeds, tasks] -> a number.
        stratified: draw them anew for every task, as where tasks are trained apart from each other. The tasks of one
            of our seeds share a world model: drawn apart, its luck would be counted once a task.
        seed: of the resampling.
        resamples: how many.
        level: confidence, in (0, 1).

    Raises:
        UserError: when there is one seed only, which cannot tell how seeds vary.
    """
    table = _table(scores)
    rng = np.random.default_rng(seed)
    draws = [statistic(_resample(table, rng, stratified=stratified)) for _ in range(resamples)]
    return Estimate(float(statistic(table)), _percentiles(draws, level))


def probability_of_improvement(
    x: ArrayLike, y: ArrayLike, *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> Estimate:
    """How likely a run of `x` beats a run of `y` on a task: P(x > y) + P(x = y) / 2, averaged over tasks.

    Args:
        x: [seeds of x, tasks].
        y: [seeds of y, tasks], the same tasks in the same order.
        seed: of the resampling.
        resamples: how many.
        level: confidence, in (0, 1).

    Raises:
        UserError: when the tasks differ in number, or there is one seed only.

    Source: Mann and Whitney's U over the number of pairs; Agarwal et al. 2021, section 4.3.
    """
    first, second = _table(x), _table(y)
    if first.shape[1] != second.shape[1]:
        raise UserError(f"{first.shape[1]} and {second.shape[1]} tasks cannot be compared; give the same tasks")
    rng = np.random.default_rng(seed)
    draws = [_wins(_resample(first, rng), _resample(second, rng)) for _ in range(resamples)]
    return Estimate(_wins(first, second), _percentiles(draws, level))


def _quantile(level: float) -> float:
    """Half-width of a two-sided normal interval, in standard deviations."""
    if not 0 < level < 1:
        raise UserError(f"confidence level {level} is not in (0, 1); give for example 0.95")
    return NormalDist().inv_cdf((1 + level) / 2)


def _outcomes(values: ArrayLike) -> NDArray[np.bool_]:
    """Outcomes as booleans, refusing emptiness and anything that is neither 0 nor 1."""
    array: NDArray[Any] = np.asarray(values)
    if array.size == 0 or not np.isin(array, (0, 1)).all():
        raise UserError("outcomes must be true or false, one an episode, and at least one")
    return array.astype(np.bool_)


def _correlation(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Correlation of paired outcomes, shrunk by n / 2 where it is positive (Newcombe's correction)."""
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    margins = math.prod((both + only_a, only_b + neither, both + only_b, only_a + neither))
    if margins == 0:
        return 0.0
    agreement = both * neither - only_a * only_b
    return (max(agreement - a.size / 2, 0.0) if agreement > 0 else agreement) / math.sqrt(margins)


def _square_and_add(a: float, b: float, correlation: float) -> float:
    return math.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))


def _table(scores: ArrayLike) -> Scores:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1:
        raise UserError(f"scores of shape {table.shape} are not [seeds, tasks] with two seeds or more; add --seeds")
    return table


def _resample(table: Scores, rng: np.random.Generator, *, stratified: bool = False) -> Scores:
    """[seeds, tasks] of seeds drawn with replacement: whole, or for every task anew."""
    if stratified:
        return np.take_along_axis(table, rng.integers(len(table), size=table.shape), axis=0)
    return table[rng.integers(len(table), size=len(table))]


def _percentiles(draws: Sequence[float], level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _wins(x: Scores, y: Scores) -> float:
    # [seeds of x, seeds of y, tasks]
    difference = x[:, None] - y[None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())

"""Intervals and comparisons for success rates: how sure a handful of episodes and seeds can make us.

Two questions, two kinds of interval. *These trained policies on other start states*: `success_rate`,
`paired_difference` and `average`, closed forms that stay honest at 0 % and 100 %, where a bootstrap has width zero.
Seeds that are pooled share their start states, and a hard start is hard for all of them: a start state is a cluster of
episodes (`effective_size`). *Other training seeds*: `seed_bootstrap` and `probability_of_improvement` over the seeds'
scores, after Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice" (rliable,
whose numbers `stratified=True` reproduces). With three seeds such an interval of a mean goes from the worst seed to the
best, and holds the truth in about three of four cases; over fewer there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldaction.errors import UserError

Scores = NDArray[np.float64]

FEWEST_SEEDS = 3
"""Seeds from which on there is an interval over seeds."""


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether it says anything."""
        return math.isfinite(self.low) and math.isfinite(self.high)


UNKNOWN = Interval(-math.inf, math.inf)
"""Of a number of which nobody can say how sure it is: null in files, a dash in tables, and never a clear effect."""


class Estimate(NamedTuple):
    """A number and its interval."""

    value: float
    interval: Interval


def estimate_of(value: Mapping[str, Any], key: str = "value") -> Estimate:
    """An estimate of a summary.

    Args:
        value: with its interval.
        key: "rate" for the success of a task, else "value".
    """
    return Estimate(value[key], UNKNOWN if value["interval"] is None else Interval(*value["interval"]))


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
    return _score_interval(successes / n, n, level)


def effective_size(values: ArrayLike, starts: ArrayLike | None = None, *, lowest: float = 0.0) -> float:
    """How many independent episodes tell as much as these, of which several may begin in the same start state.

    The variance of their mean by clusters (a ratio estimator; a start state is a cluster) over that of independent
    episodes is the design effect, by which their number is divided. No fewer count than there are start states (as if
    all seeds did the same), and no more than there are episodes (as if they had nothing in common).

    At 0 % and 100 % both variances are zero and the design effect is anyone's guess. Therefore half a start is added
    from which every episode has the highest value, and half a start from which all have the lowest, as Jeffreys' prior
    adds half a success and half a failure: a rate near its end tends to the cautious side, where 300 successes from 100
    start states count as 100. Only the design effect is estimated so.

    Args:
        values: [n] of the episodes, `lowest` to 1.
        starts: [n] which start state each episode began in; left out, no two share one.
        lowest: 0 of outcomes, -1 of differences of paired ones.

    Raises:
        UserError: when there is not one start state for each value.

    Source: Korn and Graubard 1998, Survey Methodology 24:193, for the effective size in a closed form; Dean and Pagano
    2015, Journal of Survey Statistics and Methodology 3:484, for Wilson's interval with it.
    """
    value = np.asarray(values, dtype=np.float64).ravel()
    cluster = _clusters(value.size, starts)
    total, count = (np.bincount(cluster, weights).astype(np.float64) for weights in (value, None))
    if count.size == value.size:
        return float(value.size)
    effect = _design_effect(value, total, count, np.array([lowest, 1.0]))
    return float(value.size / np.clip(effect, 1.0, value.size / count.size))


def success_rate(successes: ArrayLike, starts: ArrayLike | None = None, *, level: float = 0.95) -> Estimate:
    """Success rate of recorded outcomes, with Wilson's interval for as many episodes as they are worth.

    Args:
        successes: [...] bool, one entry an episode; several seeds may be laid end to end.
        starts: [...] which start state each episode began in; left out, no two share one.
        level: confidence, in (0, 1).
    """
    outcomes = _outcomes(successes)
    rate = float(outcomes.mean())
    return Estimate(rate, _score_interval(rate, effective_size(outcomes, starts), level))


def paired_difference(a: ArrayLike, b: ArrayLike, starts: ArrayLike | None = None, *, level: float = 0.95) -> Estimate:
    """How much more often `a` succeeds than `b` from the same start states: mean(a) - mean(b), and its interval.

    Pairing matters: two policies fail on the same hard starts, so their difference is known better than either rate.
    Several seeds may be laid end to end; the interval then speaks for these trained policies, not for new seeds.

    Args:
        a: [n] bool, outcome of the first policy from each start state.
        b: [n] bool, outcome of the second from the same start states, in the same order.
        starts: [n] which start state each pair began in; left out, no two share one.
        level: confidence, in (0, 1).

    Raises:
        UserError: when the two are empty or of different length.

    Source: method 10 of Newcombe 1998, Statistics in Medicine 17:2635 (square-and-add of two Wilson intervals, with
    the continuity-corrected correlation of the two outcomes), all counts divided by the design effect of their
    difference.
    """
    first, second = _outcomes(a), _outcomes(b)
    if first.shape != second.shape:
        raise UserError(f"outcomes of shape {first.shape} and {second.shape} are not pairs; use the same start states")
    size = effective_size(first.astype(np.float64) - second, starts, lowest=-1.0)
    p, q = (Estimate(rate, _score_interval(rate, size, level)) for rate in (float(first.mean()), float(second.mean())))
    phi = _correlation(first, second, size)
    low = _square_and_add(p.value - p.interval.low, q.interval.high - q.value, phi)
    high = _square_and_add(p.interval.high - p.value, q.value - q.interval.low, phi)
    value = p.value - q.value
    return Estimate(value, Interval(value - low, value + high))


def independent_difference(a: Estimate, b: Estimate) -> Estimate:
    """How much larger one number is than another that was measured apart from it, such as rates from other starts.

    Args:
        a, b: of the same confidence.

    Source: method 10 of Newcombe 1998, Statistics in Medicine 17:873 (square-and-add of two Wilson intervals).
    """
    low = _square_and_add(a.value - a.interval.low, b.interval.high - b.value, 0.0)
    high = _square_and_add(a.interval.high - a.value, b.value - b.interval.low, 0.0)
    value = a.value - b.value
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


class TimeComparison(NamedTuple):
    """Times to success of two sets of episodes, set against each other over all of their time limit."""

    means: tuple[float, float]
    """Restricted mean of each: control steps to success, an episode without success counted as the time limit."""
    difference: Estimate
    """The first mean minus the second."""
    distance: Estimate
    """Largest distance between the two curves of success within so many steps, in [0, 1]."""
    at: int
    """Control steps at which it is reached."""


def compare_times(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    limit: int,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> TimeComparison:
    """Compare when episodes succeed as distributions: a mean over successes would call fast who fails where it is slow.

    Start states are drawn anew for the intervals, on each side by itself; among them are half a start from which
    success comes at once and half a one from which it never comes, as in `effective_size`, or nobody would doubt what
    three failures say. The interval of the distance is its value and on either side the 95 % quantile of the largest
    distance by which the drawn curves miss theirs: it holds 0 where the curves may be the same.

    Args:
        first, second: control steps until success, 0 without it, [n], and which start state each began in, [n].
        limit: time limit of both (control steps).
        seed: of the resampling.
        resamples: how many.
        level: confidence, in (0, 1).

    Source: Royston and Parmar 2013, BMC Medical Research Methodology 13:152, for the restricted mean; the distance is
    Kolmogorov and Smirnov's.
    """
    rng = np.random.default_rng(seed)
    (curve, miss), (other, slip) = (_curves(*each, limit, rng, resamples) for each in (first, second))
    # the mean of min(T, limit) is the sum of the shares that have not succeeded yet, [limit + 1] -> []
    means = [float((1 - each[:limit]).sum()) for each in (curve, other)]
    low, high = np.quantile((slip - miss)[:, :limit].sum(-1), [(1 - level) / 2, (1 + level) / 2])
    gap, off = np.abs(curve - other), float(np.quantile(np.abs(miss - slip).max(-1), level))
    at, difference = int(gap.argmax()), means[0] - means[1]
    distance = float(gap[at])
    return TimeComparison(
        (means[0], means[1]),
        Estimate(difference, Interval(difference + float(low), difference + float(high))),
        Estimate(distance, Interval(max(0.0, distance - off), min(1.0, distance + off))),
        at,
    )


def _curves(
    steps: ArrayLike, starts: ArrayLike, limit: int, rng: np.random.Generator, resamples: int
) -> tuple[Scores, Scores]:
    """Share of the episodes that succeeded after 0 .. limit steps, [limit + 1], and how far draws miss it, [R, ...].

    Args:
        steps: [n] until success, 0 without it.
        starts: [n] start states.
        limit: last step.
        rng: draws them.
        resamples: R.
    """
    taken = np.asarray(steps)
    cluster = _clusters(taken.size, starts)
    done = (taken[:, None] > 0) & (taken[:, None] <= np.arange(limit + 1))
    # [K + 2, limit + 1] successes and [K + 2] episodes of each start state, and of what is added
    usual, starts_known = taken.size / (cluster.max() + 1), int(cluster.max()) + 1
    total, count = np.zeros((starts_known + 2, limit + 1)), np.full(starts_known + 2, usual)
    np.add.at(total, cluster, done)
    total[-1], count[:-2] = usual, np.bincount(cluster)
    share = np.array([1.0] * starts_known + [0.5, 0.5]) / (starts_known + 1)
    weight = rng.multinomial(starts_known + 1, share, size=resamples).astype(np.float64)
    drawn = (weight @ total) / (weight @ count)[:, None]
    return total[:-2].sum(0) / taken.size, drawn - (share @ total) / (share @ count)


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

    The interval is `UNKNOWN` with fewer than `FEWEST_SEEDS` seeds.

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
    return Estimate(float(statistic(table)), _percentiles(draws, level, seeds=len(table)))


def probability_of_improvement(
    x: ArrayLike, y: ArrayLike, *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> Estimate:
    """How likely a run of `x` beats a run of `y` on a task: P(x > y) + P(x = y) / 2, averaged over tasks.

    The interval is `UNKNOWN` where either has fewer than `FEWEST_SEEDS` seeds.

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
    return Estimate(_wins(first, second), _percentiles(draws, level, seeds=min(len(first), len(second))))


def _score_interval(rate: float, n: float, level: float) -> Interval:
    """Wilson's interval; n may be an effective size."""
    z = _quantile(level)
    scale = 1 / (1 + z * z / n)
    centre = (rate + z * z / (2 * n)) * scale
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) * scale
    # exact at the ends, where the two terms are equal but for rounding
    return Interval(0.0 if rate == 0 else centre - half, 1.0 if rate == 1 else centre + half)


def _clusters(episodes: int, starts: ArrayLike | None) -> NDArray[np.intp]:
    """Number of the start state of each episode, counted from 0."""
    labels = np.arange(episodes) if starts is None else np.asarray(starts)
    if labels.size != episodes:
        raise UserError(f"{labels.size} start states for {episodes} episodes; give one for each")
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def _design_effect(value: Scores, total: Scores, count: Scores, extremes: Scores) -> float:
    """Variance of the mean by clusters over that of independent episodes, with half a cluster of each extreme.

    Args:
        value: [n] of the episodes.
        total, count: [K] of the clusters, the sum of their values and how many there are.
        extremes: [2] the lowest and the highest value.
    """
    clusters, usual = count.size + 1, value.size / count.size
    episodes = value.size + usual
    mean = (total.sum() + usual * extremes.sum() / 2) / episodes
    between = np.square(total - mean * count).sum() + np.square(usual * (extremes - mean)).sum() / 2
    spread = np.square(value - mean).sum() + usual * np.square(extremes - mean).sum() / 2
    return float(clusters / (clusters - 1) * between / spread)


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


def _correlation(a: NDArray[np.bool_], b: NDArray[np.bool_], size: float) -> float:
    """Correlation of paired outcomes, shrunk by n / 2 where it is positive (Newcombe's correction).

    Args:
        a, b: [n] outcomes.
        size: how many independent pairs they are worth, n at most, by which they count.
    """
    weight = size / a.size
    both, neither = weight * int((a & b).sum()), weight * int((~a & ~b).sum())
    only_a, only_b = weight * int((a & ~b).sum()), weight * int((~a & b).sum())
    margins = math.prod((both + only_a, only_b + neither, both + only_b, only_a + neither))
    if margins == 0:
        return 0.0
    agreement = both * neither - only_a * only_b
    return (max(agreement - size / 2, 0.0) if agreement > 0 else agreement) / math.sqrt(margins)


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


def _percentiles(draws: Sequence[float], level: float, *, seeds: int) -> Interval:
    """Interval of resampled values; of two seeds it would be as wide as they happen to lie apart."""
    if seeds < FEWEST_SEEDS:
        return UNKNOWN
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _wins(x: Scores, y: Scores) -> float:
    # [seeds of x, seeds of y, tasks]
    difference = x[:, None] - y[None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())

"""Intervals against published numbers, exact enumerations and float64 loops."""

import itertools
import math

import numpy as np
import pytest

from experiments.report.statistics import (
    UNKNOWN,
    Estimate,
    Interval,
    average,
    compare_times,
    effective_size,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
    seed_bootstrap,
    success_rate,
    wilson,
)
from worldaction.errors import UserError


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_solve_the_score_equation() -> None:
    for successes, n in [(3, 10), (25, 50), (49, 50)]:
        for p in wilson(successes, n):
            assert abs(successes / n - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / n), rel=1e-6)


def test_wilson_covers_the_true_rate_about_as_often_as_it_says() -> None:
    n = 50
    intervals = [wilson(k, n) for k in range(n + 1)]
    for p in (0.1, 0.3, 0.5, 0.86):
        mass = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        covered = sum(m for m, i in zip(mass, intervals, strict=True) if i.low <= p <= i.high)
        assert 0.93 < covered < 0.975


def test_wilson_is_exact_and_not_degenerate_at_the_ends() -> None:
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0
    assert wilson(0, 7).high == pytest.approx(1 - wilson(7, 7).low)
    assert wilson(0, 7).high > 0.3


@pytest.mark.parametrize(("successes", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 1.0)])
def test_impossible_counts_and_levels_are_refused_in_one_line(successes: int, n: int, level: float) -> None:
    with pytest.raises(UserError) as error:
        wilson(successes, n, level)
    assert "\n" not in str(error.value)


def _pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_paired_difference_gives_the_published_interval() -> None:
    # Cavo et al. 2012, in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, section 8.6
    value, interval = paired_difference(*_pairs(59, 6, 16, 80))
    assert value == pytest.approx(-0.0621, abs=5e-5)
    assert interval == pytest.approx((-0.1186, -0.0046), abs=5e-5)


def test_paired_difference_covers_the_true_difference_about_as_often_as_it_says() -> None:
    n = 16
    truth = (0.45, 0.30, 0.10, 0.15)  # both, only a, only b, neither
    covered = 0.0
    for both, only_a, only_b in itertools.product(range(n + 1), repeat=3):
        neither = n - both - only_a - only_b
        if neither < 0:
            continue
        cells = (both, only_a, only_b, neither)
        ways = math.factorial(n) // math.prod(math.factorial(c) for c in cells)
        interval = paired_difference(*_pairs(*cells)).interval
        if interval.low <= 0.20 <= interval.high:
            covered += ways * math.prod(p**c for p, c in zip(truth, cells, strict=True))
    assert 0.93 < covered < 0.985


def test_paired_difference_changes_sign_with_the_order() -> None:
    a, b = _pairs(20, 9, 3, 18)
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert forward.value == -backward.value
    assert forward.interval == pytest.approx((-backward.interval.high, -backward.interval.low))


def test_pairing_narrows_the_interval_of_policies_that_fail_on_the_same_starts() -> None:
    a, b = _pairs(25, 5, 0, 20)
    paired = paired_difference(a, b).interval
    apart = paired_difference(a, b[::-1]).interval
    assert paired.high - paired.low < 0.7 * (apart.high - apart.low)


def test_equal_outcomes_still_leave_room_for_a_difference() -> None:
    value, (low, high) = paired_difference([True] * 30, [True] * 30)
    assert value == 0
    assert low < -0.05
    assert high > 0.05


def test_outcomes_that_are_not_pairs_or_not_outcomes_are_refused() -> None:
    with pytest.raises(UserError, match="same start states"):
        paired_difference([1, 0], [1, 0, 1])
    with pytest.raises(UserError, match="true or false"):
        success_rate([0.5, 1])


# Seeds that share start states ----------------------------------------------------------------------------------------

SEEDS, STARTS = 3, 100
SHARED = np.tile(np.arange(STARTS), SEEDS)


def _shared(rng: np.random.Generator, hardness: np.ndarray) -> np.ndarray:
    """Outcomes of three seeds, laid end to end; each start has its own rate [STARTS]."""
    return (rng.random((SEEDS, STARTS)) < hardness).astype(int).ravel()


def _beta(rng: np.random.Generator, rate: float, icc: float) -> np.ndarray:
    """Rates of start states [STARTS] of this mean, with this correlation of the outcomes of one start."""
    share = (1 - icc) / icc
    return rng.beta(rate * share, (1 - rate) * share, STARTS)


@pytest.mark.parametrize(("icc", "old"), [(0.2, 0.89), (0.5, 0.82)])
@pytest.mark.parametrize("rate", [0.5, 0.8])
def test_pooled_rates_cover_the_truth_as_often_as_they_say(icc: float, old: float, rate: float) -> None:
    rng = np.random.default_rng(int(100 * (icc + rate)))
    pooled = [_shared(rng, _beta(rng, rate, icc)) for _ in range(2000)]
    intervals = [success_rate(outcomes, SHARED).interval for outcomes in pooled]
    as_if_independent = [wilson(int(outcomes.sum()), outcomes.size) for outcomes in pooled]
    assert 0.93 <= np.mean([i.low <= rate <= i.high for i in intervals]) <= 0.97
    assert np.mean([i.low <= rate <= i.high for i in as_if_independent]) == pytest.approx(old, abs=0.02)


@pytest.mark.parametrize("icc", [0.2, 0.5])
def test_pooled_differences_cover_the_truth_as_often_as_they_say(icc: float) -> None:
    rng = np.random.default_rng(int(100 * icc))
    covered, old = [], []
    for _ in range(1500):
        a, b = _shared(rng, _beta(rng, 0.8, icc)), _shared(rng, _beta(rng, 0.6, icc))
        low, high = paired_difference(a, b, SHARED).interval
        covered.append(low <= 0.2 <= high)
        low, high = paired_difference(a, b).interval
        old.append(low <= 0.2 <= high)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(old) < 0.92


def test_one_seed_has_the_interval_of_independent_episodes_to_the_bit() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(60) < 0.8, rng.random(60) < 0.5
    starts = np.arange(600, 660)
    assert success_rate(a, starts) == (a.mean(), wilson(int(a.sum()), 60))
    assert paired_difference(a, b, starts) == paired_difference(a, b)


def test_seeds_that_do_the_same_count_once_and_never_less() -> None:
    once = np.random.default_rng(4).random(STARTS) < 0.6
    assert success_rate(np.tile(once, 3), SHARED).interval == pytest.approx(success_rate(once).interval)
    other = np.roll(once, 7)
    thrice = paired_difference(np.tile(once, 3), np.tile(other, 3), SHARED).interval
    assert thrice == pytest.approx(paired_difference(once, other).interval)


def test_seeds_that_have_nothing_in_common_count_fully_and_never_more() -> None:
    outcomes = np.zeros((3, STARTS), bool)
    # every start is met by exactly one seed: their mean does not vary at all
    outcomes[np.arange(STARTS) % 3, np.arange(STARTS)] = True
    assert effective_size(outcomes, SHARED) == outcomes.size


def test_the_closer_a_rate_is_to_its_end_the_less_is_believed_of_pooled_seeds() -> None:
    always = np.ones(3 * STARTS, bool)
    assert effective_size(always, SHARED) == pytest.approx(STARTS, rel=0.01)
    assert success_rate(always, SHARED).interval.low == pytest.approx(wilson(STARTS, STARTS).low, abs=1e-3)
    lows = []
    for failures in range(6):
        outcomes = always.copy()
        outcomes[:failures] = False
        lows.append(success_rate(outcomes, SHARED).interval.low)
    # a failure more lowers the end, or leaves it where it is to within half a point: there is no jump away from 100 %
    assert all(after < before + 0.005 for before, after in itertools.pairwise(lows))
    assert lows[-1] < lows[0]


def test_each_episode_needs_its_start_state() -> None:
    with pytest.raises(UserError, match="3 start states for 4 episodes"):
        success_rate([1, 0, 1, 1], [0, 1, 2])


def test_an_average_over_tasks_is_as_much_wider_as_its_tasks() -> None:
    rng = np.random.default_rng(5)
    tasks = [_shared(rng, _beta(rng, 0.6, 0.5)) for _ in range(4)]
    shared, apart = (average([success_rate(t, s) for t in tasks]).interval for s in (SHARED, None))
    assert 1.2 < (shared.high - shared.low) / (apart.high - apart.low) < 1.6


@pytest.mark.parametrize(
    ("a", "m", "b", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: the difference of two independent rates
    [(56, 70, 48, 80, 0.0524, 0.3339), (9, 10, 3, 10, 0.1705, 0.8090), (5, 56, 0, 29, -0.0381, 0.1926)],
)
def test_average_squares_and_adds_as_published(a: int, m: int, b: int, n: int, low: float, high: float) -> None:
    minus = wilson(b, n)
    one = Estimate(a / m, wilson(a, m))
    other = Estimate(-b / n, Interval(-minus.high, -minus.low))
    assert average([one, other]).interval == pytest.approx((low / 2, high / 2), abs=5e-5)


def test_average_of_one_is_itself_and_of_four_equal_ones_half_as_wide() -> None:
    one = success_rate([True, True, False, False])
    assert average([one]).interval == pytest.approx(one.interval)
    four = average([one] * 4)
    assert four.value == one.value
    assert four.interval.high - four.interval.low == pytest.approx((one.interval.high - one.interval.low) / 2)


def test_interquartile_mean_leaves_a_quarter_out_at_either_end() -> None:
    assert interquartile_mean([100, 2, 3, -50]) == 2.5
    assert interquartile_mean(np.arange(8).reshape(2, 4)) == 3.5
    # ten scores: two are left out at either end, as scipy.stats.trim_mean(scores, 0.25) does
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 7, 8, 900]) == 4.5
    assert interquartile_mean([7]) == 7


def test_stratified_bootstrap_agrees_with_every_possible_resample() -> None:
    scores = np.array([[0.1, 0.9], [0.4, 0.5], [0.8, 0.7]])
    columns = [[np.mean(c) for c in itertools.product(scores[:, task], repeat=3)] for task in range(2)]
    every = [np.mean(pair) for pair in itertools.product(*columns)]
    estimate = seed_bootstrap(scores, np.mean, stratified=True, seed=1, resamples=20_000)
    assert estimate.value == pytest.approx(scores.mean())
    assert estimate.interval == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.02)


def test_seeds_that_share_a_world_model_are_drawn_with_all_their_tasks() -> None:
    scores = np.random.default_rng(0).uniform(size=(5, 8))
    every = [scores[list(rows)].mean() for rows in itertools.product(range(5), repeat=5)]
    interval = seed_bootstrap(scores, np.mean, resamples=20_000).interval
    assert tuple(interval) == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.005)
    # of three, one seed three times in a row is likelier than 2.5 %
    three = scores[:3].mean(1)
    assert tuple(seed_bootstrap(scores[:3], np.mean).interval) == pytest.approx((three.min(), three.max()))
    # a seed that is lucky with every task is luck once, not eight times
    lucky = np.repeat([[0.1], [0.5], [0.9]], 8, axis=1)
    whole, apart = (seed_bootstrap(lucky, np.mean, stratified=s).interval for s in (False, True))
    assert whole.high - whole.low > 2 * (apart.high - apart.low)


def test_stratified_bootstrap_never_mixes_tasks() -> None:
    scores = np.array([[0.0, 1.0]] * 3)
    assert seed_bootstrap(scores, np.mean, stratified=True) == (0.5, (0.5, 0.5))


def test_the_seed_decides_the_resamples() -> None:
    scores = np.random.default_rng(0).uniform(size=(5, 3))
    assert seed_bootstrap(scores, seed=3, resamples=50) == seed_bootstrap(scores, seed=3, resamples=50)
    assert seed_bootstrap(scores, seed=3, resamples=50) != seed_bootstrap(scores, seed=4, resamples=50)


def test_one_seed_cannot_tell_how_seeds_vary() -> None:
    with pytest.raises(UserError, match="two seeds"):
        seed_bootstrap([[0.3, 0.4]])


def test_over_fewer_than_three_seeds_there_is_a_number_and_no_interval() -> None:
    two = [[0.1, 0.5], [0.3, 0.9]]
    assert seed_bootstrap(two, np.mean) == (pytest.approx(0.45), UNKNOWN)
    assert probability_of_improvement(two, [[0.0, 0.0]] * 5) == (1, UNKNOWN)
    assert not UNKNOWN.known
    assert seed_bootstrap([*two, [0.2, 0.2]], np.mean).interval.known


def test_probability_of_improvement_counts_wins_and_half_the_ties() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.integers(4, size=(4, 3)), rng.integers(4, size=(5, 3))
    wins = 0.0
    for task in range(3):
        wins += sum((a > b) + 0.5 * (a == b) for a in x[:, task] for b in y[:, task]) / 20 / 3
    estimate = probability_of_improvement(x, y, resamples=200)
    assert estimate.value == pytest.approx(wins)
    assert estimate.interval.low <= wins <= estimate.interval.high
    assert probability_of_improvement(y, x, resamples=2).value == pytest.approx(1 - wins)
    assert probability_of_improvement([[2, 2]] * 3, [[1, 1]] * 3, resamples=2) == (1, (1, 1))


# Time to success ------------------------------------------------------------------------------------------------------


def test_restricted_mean_and_largest_distance_by_hand() -> None:
    # success after 2 and 3 of 10 steps and never, against success after 4, 4 and 10
    found = compare_times(([2, 3, 0], range(3)), ([4, 4, 10], range(3)), 10)
    assert found.means == pytest.approx(((2 + 3 + 10) / 3, (4 + 4 + 10) / 3))
    assert found.difference.value == pytest.approx(-1)
    # after three steps two thirds have succeeded, and none
    assert found.distance.value == pytest.approx(2 / 3)
    assert found.at == 3


def test_a_mean_over_successes_would_call_fast_who_fails_where_it_is_slow() -> None:
    slow = np.repeat([40, 90], 50)
    failing = np.where(slow == 90, 0, slow)
    found = compare_times((failing, np.arange(100)), (slow, np.arange(100)), 100)
    assert failing[failing > 0].mean() < slow.mean()
    assert found.difference.value == pytest.approx(5.0)
    assert (found.distance.value, found.at) == (0.5, 90)
    assert found.distance.interval.low > 0.3


def test_nobody_is_sure_of_what_a_few_failures_say() -> None:
    found = compare_times(([0, 0], range(2)), ([0, 0, 0, 0], range(4)), 16)
    assert (found.difference.value, found.distance.value) == (0, 0)
    assert found.difference.interval.low < -4
    assert found.difference.interval.high > 4
    assert found.distance.interval.high > 0.4


def test_equal_laws_are_within_the_intervals_as_often_as_they_say() -> None:
    held = {"difference": 0, "distance": 0}
    for trial in range(60):
        rng = np.random.default_rng(trial)
        both = [np.where(rng.random(150) < 0.7, rng.integers(20, 100, 150), 0) for _ in range(2)]
        found = compare_times(*((steps, np.arange(150)) for steps in both), 100, resamples=200)
        held["difference"] += found.difference.interval.low <= 0 <= found.difference.interval.high
        held["distance"] += found.distance.interval.low == 0
    assert held["difference"] >= 53
    assert held["distance"] >= 53


def test_seeds_that_share_start_states_make_the_intervals_no_narrower() -> None:
    rng = np.random.default_rng(0)
    steps, other = (np.where(rng.random(80) < 0.7, rng.integers(20, 100, 80), 0) for _ in range(2))
    once = compare_times((steps, np.arange(80)), (other, np.arange(80)), 100)
    thrice = compare_times(
        (np.tile(steps, 3), np.tile(np.arange(80), 3)), (np.tile(other, 3), np.tile(np.arange(80), 3)), 100
    )
    for one, three in zip(once.difference.interval, thrice.difference.interval, strict=True):
        assert three == pytest.approx(one, abs=0.6)
    assert thrice.distance.value == pytest.approx(once.distance.value)
    assert thrice.distance.interval.high == pytest.approx(once.distance.interval.high, abs=0.02)

"""Times are compared round by round, and intervals hold what they promise."""

import math
import time
from functools import partial

import pytest
import torch

from experiments.bench.base import Work
from experiments.bench.clock import median, speedup, time_in_turns
from experiments.bench.results import Comparison, Entry, table

CPU = torch.device("cpu")


def _entry(name: str, cpu: list[float], *, ours: bool = True, precision: str = "fp32") -> Entry:
    return Entry(name, "nothing", ours, precision, 0, 0.0, tuple(cpu), tuple(2 * s for s in cpu))


@pytest.mark.parametrize("n", [6, 9, 15, 30])
def test_the_interval_of_a_median_covers_it_with_the_promised_probability(n: int) -> None:
    low, high = median(list(range(n))).interval
    # by symmetry: the median lies outside if at most `low` of n fair coins show heads, or at most that many tails
    outside = 2 * sum(math.comb(n, k) for k in range(round(low) + 1)) / 2**n
    assert outside <= 0.05
    assert outside + 2 * math.comb(n, round(low) + 1) / 2**n > 0.05, "it could be narrower"
    assert low + high == n - 1


def test_with_few_rounds_the_interval_is_their_range() -> None:
    assert median([3.0, 1.0, 2.0]).interval == (1.0, 3.0)


def test_a_round_that_is_slow_for_all_changes_no_ratio() -> None:
    quiet, busy = [1.0] * 8, 7.0
    ratio = speedup([2.0 * s for s in [*quiet, busy]], [*quiet, busy])
    assert ratio.value == 2.0
    assert ratio.interval == (2.0, 2.0)


def test_every_library_has_the_same_number_of_turns_and_only_computing_costs_cpu_time() -> None:
    works = {
        "sleeps": Work(lambda: time.sleep(0.03), 1, ""),
        "computes": Work(lambda: sum(range(300_000)), 1, ""),
    }
    times = time_in_turns(works, rounds=3, device=CPU, least=0.01)
    assert {name: len(turns) for name, turns in times.items()} == {"sleeps": 3, "computes": 3}
    assert all(turn.cpu < 0.5 * turn.wall and turn.wall >= 0.03 for turn in times["sleeps"])
    assert all(turn.cpu > 0 for turn in times["computes"])


def test_short_work_is_repeated_within_its_turn_and_counted_once() -> None:
    calls = []
    turn = time_in_turns({"short": Work(lambda: calls.append(0), 1, "")}, rounds=1, device=CPU, least=0.01)["short"][0]
    assert len(calls) > 100
    assert turn.wall < 0.01


def test_order_changes_from_round_to_round_and_not_from_seed_to_seed() -> None:
    def order(seed: int) -> str:
        calls: list[str] = []
        works = {name: Work(partial(calls.append, name), 1, "") for name in "abc"}
        time_in_turns(works, rounds=4, device=CPU, seed=seed, least=0.0)
        return "".join(calls[6:])

    assert order(0) == order(0)
    assert len({order(0)[i : i + 3] for i in range(0, 12, 3)}) > 1


def test_each_entry_is_held_against_the_fastest_of_ours_in_every_precision() -> None:
    entries = (_entry("slow", [4.0] * 9), _entry("fast", [2.0] * 9), _entry("half", [1.0] * 9, precision="bf16"))
    comparison = Comparison("a task", "steps", (*entries, _entry("peer", [6.0] * 9, ours=False)))
    assert {p: best.name for p, best in comparison.fastest().items()} == {"fp32": "fast", "bf16": "half"}
    assert {p: r.value for p, r in comparison.against(comparison.entries[-1]).items()} == {"fp32": 3.0, "bf16": 6.0}
    assert comparison.against(entries[1]).keys() == {"bf16"}
    assert comparison.speed(entries[0], "cpu").value == 0.25
    assert "| peer | 0.167 | 0.0833 | 3.00 [3.00, 3.00] | 6.00 [6.00, 6.00] |" in table([comparison])


def test_slow_work_is_told_in_milliseconds() -> None:
    comparison = Comparison("a task", "a step", (_entry("ours", [0.5, 0.5]),), slow=True)
    assert "| ours | 500 | 1,000 |" in table([comparison])


def test_a_gpu_is_judged_by_the_clock_on_the_wall() -> None:
    peer = Entry("peer", "", False, "fp32", 0, 0.0, (1.0,), (3.0,))
    comparison = Comparison(
        "a task", "steps", (Entry("ours", "", True, "fp32", 0, 0.0, (1.0,), (1.0,)), peer), clock="wall"
    )
    assert comparison.against(peer)["fp32"].value == 3.0

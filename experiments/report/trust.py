"""What dreams of a task are worth: a word, and why, from held-out attempts of which it is known how they ended.

The summary is that of `experiments/report/pages/run_page.py`, as plain JSON values. The first word that holds:

- "not known": fewer than three attempts of a kind were held out;
- "no-go": Youden's J, the true-positive rate minus the false-positive rate, is below what is asked for, as far as these
  attempts say: a rewarded dream may well be a failure;
- "not known": J is not clearly above 0, its 95 % interval reaches it;
- "with care": the rates fall short of what is asked of each;
- "go".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from experiments.report.statistics import Estimate, estimate_of, independent_difference
from experiments.report.table import percent, points
from worldaction.config import SuccessConfig

Verdicts = Mapping[str, Any]
KINDS: Final = {"succeeded": "successful", "failed": "failed"}
FEWEST: Final = 3
"""Attempts of a kind below which nothing is said of dreams."""


class Trust(NamedTuple):
    """What dreams of a task are worth."""

    word: str
    why: list[str]
    """A sentence each; empty of a "go"."""

    @property
    def no_go(self) -> bool:
        return self.word == "no-go"


def youden(verdicts: Verdicts) -> Estimate | None:
    """True-positive rate minus false-positive rate: by how much more dreams of successes succeed than of failures.

    Args:
        verdicts: of dreams of held-out attempts, see docs/metrics.md.

    Returns:
        Youden's J, in [-1, 1], with Newcombe's interval; None where there is no attempt of a kind.
    """
    done, failed = (verdicts.get(outcome) or {"rate": None} for outcome in KINDS)
    if done["rate"] is None or failed["rate"] is None:
        return None
    return independent_difference(estimate_of(done, "rate"), estimate_of(failed, "rate"))


def trust(verdicts: Verdicts, options: SuccessConfig) -> Trust:
    """What dreams are worth by what is asked of them.

    Args:
        verdicts: of dreams of held-out attempts, see docs/metrics.md.
        options: with `min_youden`, `min_true_positives` and `max_false_positives`.
    """
    if "skipped" in verdicts:
        return Trust("not known", [str(verdicts["skipped"])])
    short, found = _shortfalls(verdicts, options), youden(verdicts)
    counts = {outcome: verdicts[outcome]["attempts"] for outcome in KINDS}
    if found is None or min(counts.values()) < FEWEST:
        few = [(outcome, count) for outcome, count in counts.items() if count < FEWEST]
        named = [f"{count or 'no'} held-out attempt{'s' * (count > 1)} {outcome}" for outcome, count in few]
        return Trust("not known", [f"{' and '.join(named)}, where {FEWEST} are the fewest that tell", *short])
    (low, high), (done, failed) = found.interval, (verdicts[outcome] for outcome in KINDS)
    told = (
        f"{percent(done['rate'])} of dreams of {done['attempts']} attempts that succeeded and {percent(failed['rate'])}"
        f" of {failed['attempts']} that failed end in success, a difference of {100 * found.value:+.1f} points"
        f" (95 % interval {points(low)} to {points(high)})"
    )
    # differences of decimals are a hair off
    if found.value < options.min_youden - 1e-9:
        return Trust("no-go", [f"{told}, where {points(options.min_youden)} are asked for"])
    if low <= 0:
        return Trust("not known", [f"{told}; more held-out attempts of both kinds would tell"])
    return Trust("with care", short) if short else Trust("go", [])


def trust_of(verdicts: Verdicts) -> Trust:
    """What a summary says of a seed's dreams; summaries of older versions did not put it so."""
    if "trust" in verdicts:
        return Trust(verdicts["trust"], list(verdicts["why"]))
    return trust(verdicts, SuccessConfig())


def left_as_cloned(seed: Mapping[str, Any]) -> bool:
    """Whether a seed's policy was not trained, because its dreams were a no-go.

    Args:
        seed: of a task in a summary.
    """
    return seed.get("stop_reason") == "no_go"


def _shortfalls(verdicts: Verdicts, options: SuccessConfig) -> list[str]:
    """In which rates dreams fall short of what is asked of them."""
    least, most = options.min_true_positives, options.max_false_positives
    why = []
    for outcome, wrong, wanted in (
        ("succeeded", lambda rate: rate < least, f"at least {percent(least)}"),
        ("failed", lambda rate: rate > most, f"at most {percent(most)}"),
    ):
        found = verdicts.get(outcome) or {"rate": None}
        if found["rate"] is not None and wrong(found["rate"]):
            why.append(
                f"{percent(found['rate'])} of {found['dreams']} dreams of {found['attempts']} {KINDS[outcome]} attempts"
                f" end in success, {wanted} should"
            )
    return why

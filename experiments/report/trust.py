"""What dreams of a task are worth: a word, and why, from held-out attempts of which it is known how they ended.

The summary is that of `experiments/report/pages/run_page.py`, as plain JSON values. The words:

- "go": dreams of successes succeed, those of failures do not, as often as was asked for;
- "with care": less often than that, but the former clearly more often than the latter;
- "not known": too few attempts of a kind to tell, or none;
- "no-go": the former hardly more often than the latter, if at all. What is rewarded there need be no success.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from experiments.report.statistics import Estimate, estimate_of, independent_difference
from experiments.report.table import percent, points
from worldaction.config import SuccessConfig

Verdicts = Mapping[str, Any]
KINDS: Final = {"succeeded": "successful", "failed": "failed"}


class Trust(NamedTuple):
    """What dreams of a task are worth."""

    word: str
    why: list[str]
    """A sentence each; empty of a "go"."""

    @property
    def no_go(self) -> bool:
        return self.word == "no-go"


def youden(verdicts: Verdicts) -> Estimate | None:
    """True positives minus false positives: by how much more often dreams of successes succeed than those of failures.

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
    if found is None:
        missing = [outcome for outcome in KINDS if verdicts[outcome]["rate"] is None]
        return Trust("not known", [f"no held-out attempt {' or '.join(missing)}", *short])
    (low, high), (done, failed) = found.interval, (verdicts[outcome] for outcome in KINDS)
    told = (
        f"{percent(done['rate'])} of dreams of {done['attempts']} attempts that succeeded and {percent(failed['rate'])}"
        f" of {failed['attempts']} that failed end in success ({points(found.value)} points, 95 % interval"
        f" {points(low)} to {points(high)}"
    )
    if found.value < options.min_youden:
        return Trust("no-go", [f"{told}; at least {points(options.min_youden)} are asked for)"])
    if low <= 0:
        return Trust("not known", [f"{told}), and more held-out attempts of both kinds would tell"])
    return Trust("with care", short) if short else Trust("go", [])


def trust_of(verdicts: Verdicts) -> Trust:
    """What a summary says of a seed's dreams; summaries of older versions did not put it so."""
    if "trust" in verdicts:
        return Trust(verdicts["trust"], list(verdicts["why"]))
    return trust(verdicts, SuccessConfig())


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

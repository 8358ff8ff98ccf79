"""What dreams are worth is said in a word, with the attempts that it rests on, and fewer than three say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evaluations import held_out

from experiments.report.trust import trust, trust_of, youden
from worldaction.config import SuccessConfig

ASKED = SuccessConfig()


@pytest.mark.parametrize(
    ("succeeded", "failed", "word"),
    [
        ((44, 0.96), (21, 0.05), "go"),
        ((44, 0.95), (21, 0.10), "go"),
        # the play table's slider and drawer, where PPO in such dreams gains
        ((44, 0.77), (21, 0.38), "with care"),
        ((42, 0.83), (22, 0.23), "with care"),
        # dreams that see success wherever they look, that see none, and that see it the wrong way round
        ((27, 1.0), (13, 1.0), "no-go"),
        ((27, 0.0), (13, 0.0), "no-go"),
        ((27, 0.38), (13, 0.54), "no-go"),
        ((7, 0.95), (3, 1.0), "no-go"),
        # better than that, but from so few attempts that it may be luck
        ((7, 1.0), (3, 0.67), "not known"),
        # fewer than three of a kind say nothing, good or bad
        ((2, 1.0), (1, 0.0), "not known"),
        ((1, 1.0), (1, 1.0), "not known"),
        ((44, 1.0), (2, 0.0), "not known"),
        # a tenth is enough, though a difference of decimals is a hair less
        ((40, 0.6), (20, 0.5), "not known"),
        ((4000, 0.6), (2000, 0.5), "with care"),
        ((27, 0.4), (0, None), "not known"),
        ((0, None), (13, 1.0), "not known"),
        ((7, 1.0), (3, 0.0), "go"),
    ],
)
def test_dreams_are_worth_what_held_out_attempts_say(
    succeeded: tuple[int, float | None], failed: tuple[int, float | None], word: str
) -> None:
    found = {"succeeded": held_out(*succeeded), "failed": held_out(*failed)}
    said, why = trust(found, ASKED)
    assert said == word
    assert bool(why) == (word != "go")
    apart = youden(found)
    if succeeded[1] is None or failed[1] is None:
        assert apart is None
    else:
        assert apart is not None
        assert apart.value == pytest.approx(succeeded[1] - failed[1])
        assert apart.interval.low < apart.value < apart.interval.high or apart.value in (-1, 1)


def test_dreams_of_which_nothing_was_held_out_are_not_known() -> None:
    assert trust({"skipped": "no window"}, ASKED) == ("not known", ["no window"])
    assert youden({"skipped": "no window"}) is None


@pytest.mark.parametrize(
    ("succeeded", "failed", "why"),
    [
        (0.80, 0.05, ["80 % of 60 dreams of 20 successful attempts end in success, at least 95 % should"]),
        (1.00, 0.40, ["40 % of 30 dreams of 10 failed attempts end in success, at most 10 % should"]),
        (
            0.80,
            None,
            [
                "no held-out attempt failed, where 3 are the fewest that tell",
                "80 % of 60 dreams of 20 successful attempts end in success, at least 95 % should",
            ],
        ),
        (None, 0.05, ["no held-out attempt succeeded, where 3 are the fewest that tell"]),
    ],
)
def test_in_what_dreams_fall_short_is_said_in_figures(
    succeeded: float | None, failed: float | None, why: list[str]
) -> None:
    found = {"succeeded": held_out(20, succeeded), "failed": held_out(10, failed)}
    assert trust(found, ASKED).why == why


def test_what_is_asked_of_dreams_is_an_option() -> None:
    found = {"succeeded": held_out(20, 0.8), "failed": held_out(10, 0.3)}
    assert trust(found, ASKED).word == "with care"
    assert trust(found, replace(ASKED, min_true_positives=0.8, max_false_positives=0.3)).word == "go"
    strict = trust(found, replace(ASKED, min_youden=0.6))
    assert strict.no_go
    assert "a difference of +50.0 points (95 % interval" in strict.why[0]
    assert strict.why[0].endswith(", where +60 are asked for")


def test_summaries_of_older_versions_mean_what_they_mean_now() -> None:
    found = {"succeeded": held_out(42, 0.83), "failed": held_out(22, 0.23)}
    old = found | {"no_go": ["83 % of ..., at least 95 % should", "23 % of ..., at most 10 % should"]}
    assert trust_of(old) == trust(found, ASKED)
    assert trust_of(found | {"trust": "go", "why": []}) == ("go", [])

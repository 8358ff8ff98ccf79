"""A table is the same on a terminal, in a document and on a page; numbers have one form."""

from __future__ import annotations

import pytest

from experiments.report.statistics import Estimate, Interval
from experiments.report.table import Cell, Table, change, duration, estimate, number, percent, points, rate, shares

TABLE = Table(("arm", "BC %"), [("reconstruction+kl", "50 [43, 57]"), ("a|b", "-")], total=("average", "7"))


def test_columns_line_up_on_a_terminal_below_a_rule_as_long_as_the_longest_row() -> None:
    head, rule, *rows = TABLE.text().splitlines()
    assert head == "arm                BC %"
    assert rule == "-" * len("reconstruction+kl  50 [43, 57]")
    assert rows == ["reconstruction+kl  50 [43, 57]", "a|b                -", "average            7"]
    assert TABLE.text(rule=False).splitlines() == [head, *rows]


def test_markdown_has_a_row_a_row_and_escapes_what_would_end_a_cell() -> None:
    assert TABLE.markdown().splitlines() == [
        "| arm | BC % |",
        "|---|---|",
        "| reconstruction+kl | 50 [43, 57] |",
        "| a\\|b | - |",
        "| average | 7 |",
    ]


def test_a_page_sets_intervals_small_breaks_long_names_and_can_scroll() -> None:
    html = TABLE.html()
    assert html.startswith('<div class="scroll"><table class="numbers">')
    assert "<td>reconstruction+<wbr>kl</td><td class=number>50 <small>[43, 57]</small></td>" in html
    assert '<tr class="total"><td>average</td>' in html


def test_text_cannot_become_markup_and_markup_stays() -> None:
    html = Table(("<b>", "x"), [("<script>", Cell("<svg></svg>", "html"))]).html("text")
    assert "<script>" not in html
    assert "&lt;b&gt;" in html
    assert "<td class=number><svg></svg></td>" in html


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.1, 0.4, '<span class="good">+25</span> <small>[+10, +40]</small>'),
        (-0.4, -0.1, '<span class="bad">-25</span> <small>[-40, -10]</small>'),
        (-0.1, 0.4, ">+25 <small>[-10, +40]</small>"),
    ],
)
def test_only_a_difference_that_is_clear_stands_out(low: float, high: float, shown: str) -> None:
    cell = change(Estimate(-0.25 if high < 0 else 0.25, Interval(low, high)))
    assert shown in Table(("a", "b"), [("", cell)]).html()


def test_numbers_have_one_form_and_what_is_not_known_is_a_dash() -> None:
    value = Estimate(0.5, Interval(0.428, 0.574))
    assert (rate(value), rate(value, " %"), estimate(value, "+.2f")) == (
        "50 [43, 57]",
        "50 % [43, 57]",
        "+0.50 [+0.43, +0.57]",
    )
    assert (percent(0.126), points(0.126), shares(0.6, None), number(1.25, 1)) == ("13 %", "+13", "60, -", "1.2")
    assert (percent(None), points(None), number(None, 2), estimate(None, ".2f")) == ("-",) * 4
    assert [duration(seconds) for seconds in (None, 90, 600, 9000)] == ["", "90 s", "10 min", "2.5 h"]

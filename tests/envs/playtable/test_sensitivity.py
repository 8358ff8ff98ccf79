"""How far the end of an attempt can be foreseen: replays of the same commands with the hand elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.playtable.env import PlayTableEnv
from envs.playtable.tools.sensitivity import FIRST_SEED, Attempt, attempts_at, foreseen, main, replay
from worldaction.errors import UserError

TASK = "turn_on_led"


@pytest.fixture(scope="module")
def table() -> Any:
    return PlayTableEnv(cameras=False)


@pytest.fixture(scope="module")
def attempts(table: Any) -> list[Attempt]:
    found = attempts_at(table, TASK, 8)
    assert {a.success for a in found} == {True, False}
    return found


def test_an_attempt_ends_as_it_did_until_the_hand_is_far_from_where_it_was(table: Any, attempts: list[Attempt]) -> None:
    for attempt in attempts:
        assert replay(table, TASK, attempt, np.zeros(3)) == attempt.success
        assert not replay(table, TASK, attempt, np.array([0.0, -0.12, 0.08]))


def test_the_hand_is_displaced_by_what_is_asked_for(table: Any) -> None:
    still = Attempt(FIRST_SEED, np.tile(np.float32([0, 0, 0, 0, 0, 0, 1]), (30, 1)), False)
    replay(table, TASK, still, np.zeros(3))
    before = table.unwrapped.tcp_position.copy()
    displaced = np.array([0.004, -0.006, 0.002])
    replay(table, TASK, still, displaced)
    assert table.unwrapped.tcp_position - before == pytest.approx(displaced, abs=5e-4)


def test_shares_are_of_the_attempts_that_succeeded_and_of_those_that_failed(
    table: Any, attempts: list[Attempt]
) -> None:
    done, failed = foreseen(table, TASK, attempts, mm=0, replays=3, seed=0)
    assert (done.value, failed.value) == (1.0, 0.0)
    assert done.low == done.high == 1.0
    none = foreseen(table, TASK, [a for a in attempts if a.success], mm=0, replays=1, seed=0)[1]
    assert np.isnan(none.value)


def test_the_program_prints_a_row_for_every_displacement(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tasks", TASK, "--attempts", "3", "--replays", "1", "--mm", "0", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(TASK)
    assert [line.split()[0] for line in lines[2:]] == ["0", "3"]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--attempts", "0", "1 or more"), ("--mm", "-2", "0 or more"), ("--seed", "-1", "from 0 on")],
)
def test_what_cannot_be_measured_is_refused(option: str, value: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        main(["--tasks", TASK, option, value])

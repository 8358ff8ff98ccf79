"""Idle threads spin on an idle machine, sleep on a busy one, and do as the user says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.study import waiting
from experiments.study.waiting import CHOSEN, choose_waiting

SPIN, SLEEP = {"GOMP_SPINCOUNT": "2000"}, {"OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """In which nothing is chosen, and nothing stays chosen."""
    for name in CHOSEN:
        # first set, so that what is chosen meanwhile is undone
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def chosen() -> dict[str, str]:
    choose_waiting()
    return {name: os.environ[name] for name in CHOSEN if name in os.environ}


@pytest.mark.parametrize(
    ("ticks", "says"),
    [
        # two cores in 0.2 s: 40 ticks
        ((2, 0, 1, 36, 1, 0, 0, 0), SPIN),
        ((20, 0, 1, 19, 0, 0, 0, 0), SLEEP),
        # another guest of the machine has them
        ((1, 0, 0, 20, 0, 0, 0, 19), SLEEP),
    ],
)
def test_threads_wait_as_the_cores_are_used_just_now(
    ticks: tuple[int, ...], says: dict[str, str], environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # the load of the last minute is another's
    environment.setattr(os, "getloadavg", lambda: (1.9, 1.9, 1.9) if says is SPIN else (0.0, 0.0, 0.0))
    clocks = tmp_path / "stat"
    before = [1000] * 8

    def write(numbers: list[int]) -> None:
        clocks.write_text(f"cpu  {' '.join(map(str, numbers))} 0 0\ncpu0 1 2 3\n")

    write(before)
    environment.setattr(waiting, "CLOCKS", clocks)
    environment.setattr(waiting.time, "sleep", lambda _: write([a + b for a, b in zip(before, ticks, strict=True)]))
    assert chosen() == says


@pytest.mark.parametrize("clocks", [None, "cpu  0 0 0 0 0 0 0 0 0 0\n"])
@pytest.mark.parametrize(("load", "says"), [(0.1, SPIN), (1.5, SLEEP)])
def test_where_the_system_does_not_say_the_last_minute_decides(
    load: float, says: dict[str, str], clocks: str | None, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if clocks is not None:
        (tmp_path / "stat").write_text(clocks)
    environment.setattr(waiting, "CLOCKS", tmp_path / "stat")
    environment.setattr(os, "cpu_count", lambda: 2)
    environment.setattr(os, "getloadavg", lambda: (load, load, load))
    assert chosen() == says


@pytest.mark.parametrize("before", [SLEEP, {"GOMP_SPINCOUNT": "7"}])
def test_what_a_user_has_chosen_stays(before: dict[str, str], environment: pytest.MonkeyPatch) -> None:
    for name, value in before.items():
        environment.setenv(name, value)
    assert chosen() == before

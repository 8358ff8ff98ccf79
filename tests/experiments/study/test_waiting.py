"""Idle threads spin on an idle machine, sleep on a busy one, and do as the user says."""

from __future__ import annotations

import os

import pytest

from experiments.study.waiting import CHOSEN, choose_waiting


@pytest.mark.parametrize(
    ("load", "before", "after"),
    [
        (0.1, {}, {"GOMP_SPINCOUNT": "2000"}),
        (1.5, {}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        (0.1, {"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        (9.0, {"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_threads_wait_as_the_machine_or_the_user_says(
    load: float, before: dict[str, str], after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    choose_waiting()
    assert {name: os.environ[name] for name in CHOSEN if name in os.environ} == after
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)

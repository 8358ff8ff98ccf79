"""`worldaction arm` writes a set that the other commands read, and says how often a policy succeeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.policy import Policy
from experiments import __main__ as cli
from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json


class Still:
    """A policy that stays where it is."""

    task = "reach_the_red_block"

    def reset(self, *, seed: int | None = None) -> None:
        """Nothing to forget."""

    def select_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(observation["observation.state"])


def test_what_is_recorded_can_be_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    cli.command(["arm", "record", str(tmp_path / "set"), "--episodes", "4", "--failures", "1", "--seed", "3"])
    assert f"worldaction data inspect {tmp_path / 'set'}" in capsys.readouterr().out
    cli.command(["data", "inspect", str(tmp_path / "set")])
    said = capsys.readouterr().out
    assert "LeRobot 3.0" in said
    assert "push the blue block to the left" in said


def test_an_evaluation_says_its_count_and_interval_and_keeps_the_outcomes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Policy, "from_pretrained", lambda folder: Still())
    out = tmp_path / "outcomes.json"
    cli.command(
        ["arm", "evaluate", "folder", "--episodes", "2", "--task", "pick up the green block", "--out", str(out)]
    )
    assert "pick up the green block: 0 of 2 episodes, 95 % interval 0 to 66 %" in capsys.readouterr().out
    found = read_json(out)
    assert (found["task"], found["successes"], found["episodes"]) == ("pick_up_the_green_block", 0, 2)
    assert [one["steps"] for one in found["outcomes"]] == [180, 180]


@pytest.mark.parametrize("arguments", [["--episodes", "0"], ["--seed", "-1"]])
def test_numbers_out_of_range_are_refused(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least"):
        cli.command(["arm", "record", str(tmp_path / "set"), *arguments])
    assert list(tmp_path.iterdir()) == []


def test_a_task_of_another_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "from_pretrained", lambda folder: Still())
    with pytest.raises(UserError, match="unknown task 'open_drawer'"):
        cli.command(["arm", "evaluate", "folder", "--task", "open_drawer"])

"""The tables of docs/results.md say what the summary says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.report.pages.markdown import markdown
from worldaction.io.atomic import write_json
from worldaction.io.sealed_json import read_json


def _policy(rate: float, low: float, high: float) -> dict[str, Any]:
    return {"successes": round(200 * rate), "rate": rate, "interval": [low, high]}


def _run(folder: Path) -> Path:
    difference = {"value": 0.25, "interval": [0.1, 0.4]}
    seed = {
        "bc": 0.5,
        "ppo": 0.75,
        "difference": difference,
        "imagined_bc": 0.6,
        "imagined_ppo": 0.9,
        "iterations": 12,
        "stop_reason": "max_imagined",
    }
    task = {
        "n": 200,
        "bc": _policy(0.5, 0.43, 0.57),
        "ppo": _policy(0.75, 0.69, 0.8),
        "difference": difference,
        "imagined": {"bc": 0.6, "ppo": 0.9},
        "per_seed": [{"seed": 3, **seed}, {"seed": 5, **seed}],
    }
    mean = {"value": 0.5, "interval": [0.43, 0.57]}
    summary = {
        "preset": "quick",
        "seeds": [3, 5],
        "settings": "abc",
        "commit": "0123456789",
        "renderer": "rays",
        "seconds": 660,
        "tasks": {"open_drawer": task},
        "average": {"bc": mean, "ppo": mean, "difference": difference, "imagined": {"bc": 0.6, "ppo": 0.9}},
    }
    write_json(folder / "summary.json", summary)
    made = {"started": "2026-11-21T01:02:03+0000", "device": "cpu", "cores": 2, "processor": "some processor"}
    write_json(folder / "env.json", made)
    return folder


def test_every_figure_stands_beside_what_made_it(tmp_path: Path) -> None:
    origin = markdown(_run(tmp_path)).splitlines()[0]
    for part in ("2026-11-21", "0123456789", "abc", "seeds 3 5", "2 cores (some processor)", "rays", "11 minutes"):
        assert part in origin


def test_seeds_are_listed_with_their_own_number_of_episodes(tmp_path: Path) -> None:
    text = markdown(_run(tmp_path))
    assert "| open_drawer | 3 | 100 | 50 | 75 | +25 [+10, +40] | 60, 90 | 12 | max_imagined |" in text
    assert "| open_drawer | 5 | 100 |" in text


def test_a_seed_that_was_not_evaluated_takes_no_episodes_from_the_others(tmp_path: Path) -> None:
    summary = read_json(_run(tmp_path) / "summary.json")
    task = summary["tasks"]["open_drawer"]
    task["n"], task["per_seed"] = 100, task["per_seed"][:1]
    write_json(tmp_path / "summary.json", summary)
    assert "| open_drawer | 3 | 100 | 50 | 75 |" in markdown(tmp_path)


@pytest.mark.parametrize("nothing", [{}, {"tasks": {}, "average": {}}])
def test_without_an_evaluated_policy_there_is_the_verdict_instead_of_tables(
    tmp_path: Path, nothing: dict[str, Any]
) -> None:
    summary = read_json(_run(tmp_path) / "summary.json")
    del summary["tasks"], summary["average"]
    psnr = {"world_model": {"psnr": {"rgb_static": [29.0, 19.0]}}}
    write_json(tmp_path / "summary.json", summary | nothing | psnr)
    origin, empty, said = markdown(tmp_path).splitlines()
    assert "commit 0123456789" in origin
    assert empty == ""
    assert said.startswith("World model only, no policy was evaluated. Open loop: rgb_static 29.0 dB")


def test_tasks_are_shown_with_intervals_and_the_gap_of_imagination(tmp_path: Path) -> None:
    text = markdown(_run(tmp_path))
    assert "| open_drawer | 200 | 50 [43, 57] | 75 [69, 80] | +25 [+10, +40] | +15 |" in text
    assert "\n| average | 200 | 50 [43, 57]" in text
    # by seed, as the run had two
    assert text.splitlines()[-1].startswith("| all | 50 | 75 | above 0 in 2 of 2 |")

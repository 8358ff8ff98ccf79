"""A fair clone: under the better of its samplers, chosen from start states that the evaluation does not use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_study import SETTINGS, copied, finished_run, forget, place

from agents.policy import Policy
from envs.benchmark import START_STATES
from experiments.stages import samplers
from experiments.stages.all_of_task import learn_stage
from experiments.stages.evaluation import compare
from experiments.stages.rollout import Evaluation
from experiments.stages.task_run import TaskRun
from experiments.study.checks import start_states
from experiments.study.run import Run
from worldaction.io.artefact import read_json
from worldaction.io.atomic import write_json

TASK, PLACE = "turn_on_led", "seed0/turn_on_led"
LIMIT = SETTINGS["table.max-steps"]


def values(path: Path) -> Any:
    """The content of a JSON file."""
    return read_json(path)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A finished run without the choice of a sampler and what follows it."""
    copied(finished_run(), tmp_path / "run")
    forget(tmp_path / "run", f"{PLACE}/sampler", f"{PLACE}/evaluation")
    return tmp_path / "run"


def chosen(copy: Path, monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, list[int]]) -> list[range]:
    """Choose between samplers that come to these outcomes; gives the start states of each."""
    asked = []

    def made_up(policy: Policy, benchmark: Any, *, indices: range, **_: Any) -> Evaluation:
        asked.append(indices)
        success = np.array(outcomes[policy.sampler], bool)
        return Evaluation(np.array(indices), success, np.full(len(success), LIMIT))

    monkeypatch.setattr(samplers, "evaluate", made_up)
    learn_stage(Run.open(copy), 0, TASK, "sampler")
    return asked


def test_both_samplers_are_tried_where_nothing_is_evaluated_and_both_are_in_the_evaluation() -> None:
    evaluation = Run.open(finished_run()).study.evaluation
    tried = values(place(finished_run(), f"{PLACE}/sampler") / "sampler.json")
    assert tried.keys() == {"stochastic", "deterministic"}
    for result in tried.values():
        assert result["index"] == list(start_states(evaluation, START_STATES).sampler)
    found = values(finished_run() / "evaluation" / f"{TASK}-seed0.json")
    rates = {sampler: result["successes"] / result["n"] for sampler, result in tried.items()}
    assert found["choice"] == rates | {"n": SETTINGS["evaluation.sampler-episodes"]}
    assert found["limit"] == LIMIT
    for name in ("bc", "bc_other", "ppo"):
        assert found[name]["index"] == list(range(evaluation.first, evaluation.first + evaluation.episodes))
        assert max(found[name]["steps"]) <= LIMIT
    assert (found["task"], found["seed"]) == (TASK, 0)


@pytest.mark.parametrize(
    ("stochastic", "deterministic", "best"),
    [([1, 0], [1, 1], "deterministic"), ([1, 0], [0, 1], "stochastic"), ([1, 1], [1, 0], "stochastic")],
    ids=["better", "as good", "worse"],
)
def test_the_better_sampler_is_the_baseline_s_and_the_saved_policy_s(
    copy: Path, monkeypatch: pytest.MonkeyPatch, stochastic: list[int], deterministic: list[int], best: str
) -> None:
    chosen(copy, monkeypatch, {"stochastic": stochastic, "deterministic": deterministic})
    compare(TaskRun(Run.open(copy), 0, TASK))
    found = values(copy / "evaluation" / f"{TASK}-seed0.json")
    assert found["sampler"] == best
    assert Policy.from_pretrained(copy / "policies" / f"{TASK}-seed0-bc").sampler == best
    assert Policy.from_pretrained(copy / "policies" / f"{TASK}-seed0-ppo").sampler == "stochastic"
    before = values(finished_run() / "evaluation" / f"{TASK}-seed0.json")
    same = before["sampler"] == best
    assert (found["bc"], found["bc_other"]) == (
        (before["bc"], before["bc_other"]) if same else (before["bc_other"], before["bc"])
    )
    # the update began with the same clone, whatever the choice
    assert found["ppo"] == before["ppo"]


def test_a_study_that_chooses_no_sampler_has_the_stochastic_one_and_no_other(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = values(copy / "config.json")
    config["evaluation"]["sampler_episodes"] = 0
    write_json(copy / "config.json", config)
    assert chosen(copy, monkeypatch, {}) == []
    compare(TaskRun(Run.open(copy), 0, TASK))
    found = values(copy / "evaluation" / f"{TASK}-seed0.json")
    assert (found["sampler"], found["choice"], found["bc_other"]) == ("stochastic", None, None)


def test_a_head_with_one_sampler_has_nothing_to_choose(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.policies.diffusion.DiffusionPolicy.has_deterministic", False)
    assert chosen(copy, monkeypatch, {}) == []
    assert Run.open(copy).task(0, TASK, "sampler").results == {"sampler": "stochastic", "choice": None}


def test_dreams_beside_real_success_are_as_long_as_its_episodes_and_of_both_samplers() -> None:
    imagined = Run.open(finished_run()).task(0, TASK, "ppo").results["imagined"]
    assert imagined.keys() == {"bc", "bc_deterministic", "ppo"}
    for found in imagined.values():
        assert found["limit"] == LIMIT
        assert len(found["success_step"]) == SETTINGS["update.starts"]
        assert max(found["success_step"]) <= LIMIT
        assert found["success"] == np.mean([step > 0 for step in found["success_step"]])

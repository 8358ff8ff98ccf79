"""The classifier asks what the simulator asks, and is measured, as dreams are, on attempts that nothing has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_study import copied, finished_run, forget, summary

from envs.playtable.benchmark import PlayTable
from experiments.report.trust import Trust
from experiments.stages import improve, success
from experiments.stages.all_of_task import learn_stage
from experiments.stages.bc import load_actor
from experiments.stages.task_run import TaskRun
from experiments.study.run import Run
from experiments.study.settings import PRESETS
from worldaction.config import TableConfig
from worldaction.play.store import PlayStore, StoreWriter
from worldaction.spec import CALVIN

TASK, PLACE = "turn_on_led", "seed0/turn_on_led"
DRAWER = "open_drawer"
ROWS = success.CLASSIFIER_SAMPLES


def results(run: Path, name: str) -> Any:
    """What the stage of a run says of itself."""
    return Run.open(run).task(0, TASK, name).results


def drawers(path: Path, *values: Sequence[float]) -> PlayStore:
    """A store of play in which nothing but the drawer moves, an episode a list of its places (m)."""
    with StoreWriter(path, image_size=1, source="x", renderer="none", layout=replace(CALVIN, cameras=())) as writer:
        for drawer in values:
            arrays = {key: np.zeros((len(drawer), size)) for key, size in CALVIN.vectors.items()}
            arrays["scene_obs"][:, 1] = drawer
            writer.add_episode(arrays, kind="play", scene="D")
    return PlayStore.open(path)


def looking_at(store: PlayStore, task: str = DRAWER) -> Any:
    """As much of a task's run as looks at play."""
    return SimpleNamespace(store=store, task=task, benchmark=PlayTable(TableConfig()), told_by_recording=False)


# Labels ---------------------------------------------------------------------------------------------------------------


def test_frames_are_labelled_by_what_was_done_since_the_first_of_their_row(tmp_path: Path) -> None:
    store = drawers(tmp_path / "s", [0.0, 0.05, 0.13, 0.20, 0.05])
    rows = torch.tensor([[0, 1, 2, 3, 4], [1, 1, 2, 3, 4], [3, 3, 3, 4, 4]])
    assert TaskRun.label(looking_at(store), rows).tolist() == [
        [False, False, True, True, False],
        # from 5 cm on, 13 cm are too little
        [False, False, False, True, False],
        # open already, it cannot be opened
        [False, False, False, False, False],
    ]


def test_windows_of_play_begin_where_the_task_can_still_be_done(tmp_path: Path) -> None:
    length = success.PLAY_LENGTH
    opened, shut = [0.2] * (length + 30), [0.0] * (length + 10)
    store = drawers(tmp_path / "s", opened + shut, shut[:20], opened)
    windows = success._play_windows(looking_at(store), torch.Generator().manual_seed(0))
    assert len(windows) == success.PLAY_WINDOWS
    first, last = len(opened), len(opened) + len(shut)
    assert {stop - start for start, stop in windows} == {length}
    assert {start for start, _ in windows} == set(range(first, last - length + 1))
    closing = success._play_windows(looking_at(store, "close_drawer"), torch.Generator().manual_seed(0))
    assert all(float(store.frames["scene_obs"][start, 1]) > 0.1 for start, _ in closing)
    nothing = drawers(tmp_path / "t", opened)
    assert success._play_windows(looking_at(nothing), torch.Generator().manual_seed(0)) == []


# Held out -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A finished run without its classifier, its clone and what follows."""
    copied(finished_run(), tmp_path / "run")
    forget(tmp_path / "run", *(f"{PLACE}/{name}" for name in ("success", "clone", "sampler", "ppo", "evaluation")))
    return tmp_path / "run"


def test_held_out_attempts_are_measured_on_and_never_learned_from(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[tuple[int, int]]] = []
    encode = success.encode

    def spy(model: Any, frames: Any, ranges: Sequence[tuple[int, int]], **options: Any) -> Any:
        asked.append(set(ranges))
        return encode(model, frames, ranges, **options)

    for stage in ("success", "bc"):
        monkeypatch.setattr(f"experiments.stages.{stage}.encode", spy)
    run = Run.open(copy)
    learn_stage(run, 0, TASK, "success")
    learn_stage(run, 0, TASK, "clone")
    store, held = TaskRun(run, 0, TASK).store, set(TaskRun(run, 0, TASK).attempts("validation"))
    assert held
    classifier, *measured, clone = asked
    assert all(ranges == held for ranges in measured)
    assert len(measured) == 2
    for learned in (classifier, clone):
        assert {store.episode_of(start).split for start, _ in learned} == {"training"}
    # and the same is found as before
    assert results(copy, "success") == results(finished_run(), "success")


def test_a_run_says_what_dreams_made_of_them() -> None:
    found, task_run = results(finished_run(), "success"), TaskRun(Run.open(finished_run()), 0, TASK)
    attempts = task_run.attempts("validation")
    known = {segment.start: segment.success for segment in task_run.store.segments}
    assert found["held_out"]["attempts"] == len(attempts)
    for outcome, wanted in (("succeeded", True), ("failed", False)):
        verdict = found["verdicts"][outcome]
        assert verdict["attempts"] == sum(known[start] is wanted for start, _ in attempts)
        assert verdict["dreams"] == ROWS * verdict["attempts"]
        if verdict["attempts"]:
            low, high = verdict["interval"]
            assert low <= verdict["called"] / verdict["dreams"] == verdict["rate"] <= high
    (seed,) = summary(finished_run())["tasks"][TASK]["per_seed"]
    assert {name: seed["verdicts"][name] for name in found["verdicts"]} == found["verdicts"]
    assert seed["verdicts"]["trust"] in ("go", "with care", "not known", "no-go")
    assert "Dreams of attempts that nothing was trained on" in (finished_run() / "report.html").read_text()


@pytest.mark.parametrize(
    ("play", "why"), [("set", "set has no validation window of a"), (None, "no attempt at a is held out")]
)
def test_without_a_held_out_attempt_nothing_is_measured_and_the_reason_is_said(play: str | None, why: str) -> None:
    here: Any = SimpleNamespace(study=SimpleNamespace(play=play), task="a", attempts=lambda split: [])
    found = success._measured(here, SimpleNamespace(), torch.Generator())  # type: ignore[arg-type]
    assert found.keys() == {"held_out", "verdicts"}
    for part in found.values():
        assert part["skipped"].startswith(why)


# Go, or no-go ---------------------------------------------------------------------------------------------------------


def improved(run: Run) -> tuple[Any, Any]:
    """The improved policy of a run, and what the stage says of itself."""
    learn_stage(run, 0, TASK, "ppo")
    return load_actor(TaskRun(run, 0, TASK), "ppo"), run.task(0, TASK, "ppo").results


def test_a_no_go_leaves_the_cloned_policy_as_it_is_only_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(finished_run(), tmp_path / "run")
    forget(tmp_path / "run", f"{PLACE}/ppo", f"{PLACE}/evaluation")
    monkeypatch.setattr(improve, "dreams_of", lambda task_run: Trust("no-go", ["dreams are wrong"]))
    run = Run.open(tmp_path / "run")
    asked = Run(replace(run.study, success=replace(run.study.success, stop_on_no_go=True)), run.folder)
    policy, found = improved(asked)
    assert (found["iterations"], found["kept"], found["stop_reason"], found["curve"]) == (0, 0, "no_go", [])
    cloned = load_actor(TaskRun(run, 0, TASK), "clone")
    assert isinstance(found["imagined"]["ppo"]["success"], float)
    noise = torch.zeros(2, *cloned.noise_shape)
    feature = torch.randn(2, TaskRun(run, 0, TASK).model.feature_size)
    torch.testing.assert_close(policy.sample(feature, noise), cloned.sample(feature, noise))
    # the run itself did not ask, and learned
    assert results(finished_run(), "ppo")["iterations"] > 0
    assert results(finished_run(), "ppo")["stop_reason"] != "no_go"


def test_what_is_held_out_makes_play_anew_and_what_is_asked_of_dreams_only_what_it_stops(tmp_path: Path) -> None:
    def made(**options: Any) -> dict[str, str]:
        study = replace(PRESETS["debug"], success=replace(PRESETS["debug"].success, **options))
        return {at.rpartition("/")[2]: one.digest for at, one in Run(study, tmp_path / "run").artefacts().items()}

    first = made()
    assert made(held_out=0.3)["play"] != first["play"]
    words = made(min_true_positives=0.5, max_false_positives=0.5, min_youden=0.3)
    assert words == first
    stopping = made(stop_on_no_go=True)
    assert {name for name in first if first[name] != stopping[name]} == {"ppo", "evaluation"}
    assert made(stop_on_no_go=True, min_youden=0.3)["ppo"] != stopping["ppo"]
    # what is asked for beyond that only warns
    assert made(stop_on_no_go=True, min_true_positives=0.5)["ppo"] == stopping["ppo"]


@pytest.mark.parametrize(
    ("demos", "cloned", "held"), [(20, 10, 4), (20, 18, 2), (20, 20, 0), (20, 0, 0), (20, 30, 0), (8, 1, 2)]
)
def test_demonstrations_are_held_out_beyond_those_that_are_cloned(demos: int, cloned: int, held: int) -> None:
    study = PRESETS["quick"]
    study = replace(study, data=replace(study.data, demos=demos), clone=replace(study.clone, demos=cloned))
    assert study.held_out_demos == held

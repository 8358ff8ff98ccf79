"""Wherever agents live, the same study runs: starts, labels, crashes survived, and whole runs in foreign places."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from paths import DATA, ROOT
from test_calvin_data import root
from test_calvin_env import interpreter
from tiny_study import options, study, summary

from agents.policy import Policy
from envs import CALVIN_ID, METAWORLD_ID
from envs.benchmark import open_benchmark
from envs.calvin.benchmark import Calvin
from envs.episodes import Job
from envs.general.benchmark import General
from envs.playtable.benchmark import PlayTable
from envs.playtable.scenes import SCENES
from envs.tasks import EIGHT, LYING, TASKS, get_task
from experiments.stages.rollout import Evaluation, evaluate
from experiments.study.settings import PRESETS
from worldaction.config import GymConfig, StressConfig, TableConfig
from worldaction.errors import UserError
from worldaction.interface import RobotInterface
from worldaction.play.store import PlayStore

__all__ = ["root"]  # a fixture

SUPPORT = ROOT / "tests" / "support"
TABLE = TableConfig(image_size=16, max_steps=16)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the tests, for studies in processes of their own."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))


# CALVIN's simulator, played by one that is none -----------------------------------------------------------------------


class Pull:
    """Pulls the drawer shut, whatever it sees."""

    task = "close_drawer"
    interface = RobotInterface()
    model = SimpleNamespace(proprio_mean=torch.zeros(1), config=SimpleNamespace(observed=("rgb_static", "robot_obs")))

    def act(self, observation: Any, state: Any, *, start: torch.Tensor, rows: torch.Tensor) -> Any:
        """At a speed that the start state's number decides."""
        action = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0, 0.0, -1.0]).repeat(len(rows), 1)
        action[:, 1] += 0.15 * rows
        return action, 0


def closing(monkeypatch: pytest.MonkeyPatch, folder: Path, fault: str, *, parallel: int = 1) -> Evaluation:
    monkeypatch.setenv("WORLDACTION_CALVIN_PYTHON", interpreter(folder, fault))
    policy: Any = Pull()
    return evaluate(policy, Calvin(TABLE), indices=range(4), parallel=parallel)


def test_an_evaluation_survives_crashes_of_the_simulator_to_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = closing(monkeypatch, tmp_path, "none:step:0", parallel=2)
    assert whole.success.all()
    assert len(set(whole.steps)) > 1
    # every process dies at its second reset
    broken = closing(monkeypatch, tmp_path, "crash:reset:2")
    assert broken.to_dict() == whole.to_dict()
    assert "begun again: the simulator ended" in caplog.text


def test_a_simulator_that_never_survives_ends_the_evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the simulator ended with exit status 139"):
        closing(monkeypatch, tmp_path, "crash:step:3")


def test_start_states_of_calvin_are_the_play_table_s_or_a_data_set_s_windows(root: Path) -> None:
    for task in ("open_drawer", "turn_off_led"):
        assert Calvin(TABLE).starts(task) == PlayTable(TABLE).starts(task)
    first, second = Calvin(TABLE, recorded=str(root)).starts("open_drawer")
    assert first.options is not None
    assert second.options is not None
    assert first.options["task"] == "open_drawer"
    assert first.options["robot_obs"].shape == (15,)
    assert not np.array_equal(first.options["scene_obs"], second.options["scene_obs"])


def test_switches_of_the_play_table_are_refused_elsewhere() -> None:
    for env in (CALVIN_ID, "Pendulum-v1"):
        hard = replace(PRESETS["debug"], env=env, stress=StressConfig(distractors=0.5))
        with pytest.raises(UserError, match=r"--stress.distractors works at the .*table only"):
            open_benchmark(hard)
        # what is hidden is hidden in any data
        open_benchmark(replace(hard, stress=StressConfig(hidden_actions=0.5)))


def test_a_switch_that_works_at_the_table_alone_is_refused_for_a_judge_with_words_that_fit_it() -> None:
    with pytest.raises(UserError, match="set it to 0, or leave out"):
        open_benchmark(replace(PRESETS["debug"], env=CALVIN_ID, stress=StressConfig(pushes=0.5)))


def test_starts_are_drawn_or_given_and_not_both(root: Path) -> None:
    asked = replace(PRESETS["debug"], env=CALVIN_ID, starts=str(root), stress=StressConfig(positions=0.5))
    with pytest.raises(UserError, match=r"--stress.positions draws starts, --starts gives them; leave one out"):
        open_benchmark(asked)
    open_benchmark(replace(asked, starts=None))
    open_benchmark(replace(asked, stress=StressConfig()))


@pytest.mark.parametrize("where", SCENES)
def test_a_block_is_labelled_by_its_place_in_the_scene_s_own_order(where: Any) -> None:
    place = PlayTable(replace(TABLE, scene=where))
    task = get_task("push_pink_block_right", where)
    scene = np.zeros((2, 24))
    scene[:, [8, 14, 20]] = LYING
    for entry in (6, 12, 18):
        scene[:] = np.where(np.arange(24) == entry, -0.5, scene)
    scene[1, task.entry()] += task.delta + 0.01
    assert place.label("push_pink_block_right", scene, scene[0]).tolist() == [False, True]
    assert all(place.shows("push_pink_block_right", other) for other in SCENES)
    assert not place.labels_recordings("push_pink_block_right")
    assert all(place.labels_recordings(name) for name in EIGHT)


def test_labels_are_those_of_the_scene_and_of_the_tolerance() -> None:
    scene = np.zeros((2, 24))
    scene[:, 1] = [0.05, 0.14]
    assert PlayTable(TABLE).label("open_drawer", scene, np.zeros(24)).tolist() == [False, True]
    strict = PlayTable(TABLE, StressConfig(tolerance=1.0))
    assert strict.label("open_drawer", scene, np.zeros(24)).tolist() == [False, False]


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
@pytest.mark.parametrize("name", EIGHT)
def test_the_label_is_what_the_simulator_says_of_an_episode_that_began_there(name: str, tolerance: float) -> None:
    place = PlayTable(TABLE, StressConfig(tolerance=tolerance))
    judge = get_task(name, tolerance=tolerance)
    rng = np.random.default_rng(0)
    starts, scenes = rng.uniform(0, 0.3, (2, 40, 24))
    for scene in (starts, scenes):
        scene[:, 4:6] = scene[:, 4:6] > 0.15
    expected = judge.achieved(starts[:, None], scenes[None])
    assert expected.any()
    np.testing.assert_array_equal(place.label(name, scenes[None], starts[:, None]), expected)
    # done already, it cannot be done
    assert not place.label(name, scenes, scenes).any()
    np.testing.assert_array_equal(place.possible(name, scenes), judge.possible(scenes))


def test_an_environment_that_judges_every_step_labels_it_whatever_the_start() -> None:
    place = General("reach_env:Reach-v0", GymConfig(), TABLE)
    seen = np.array([[[0.0], [1.0]], [[1.0], [1.0]]])
    assert place.label("Reach_v0", seen, seen[:, :1]).tolist() == [[False, True], [True, True]]
    assert place.possible("Reach_v0", seen).all()


def test_an_environment_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="unknown environment 'Pendulom-v1'; did you mean 'Pendulum-v1'"):
        open_benchmark(replace(PRESETS["debug"], env="Pendulom-v1", stress=StressConfig()))


# Whole studies --------------------------------------------------------------------------------------------------------


def checked(result: Any, run: Path, task: str) -> None:
    """A study that came to its end, with policies that can be loaded."""
    assert result.returncode == 0, result.stderr
    tasks = summary(run)["tasks"]
    assert list(tasks) == [task]
    assert tasks[task]["n"] == 2
    assert (run / "report.html").exists()
    for name in ("bc", "ppo"):
        assert Policy.from_pretrained(run / "policies" / f"{task}-seed0-{name}").task == task


@pytest.mark.parametrize("sees", ["numbers", "both"])
def test_a_study_runs_in_any_environment(tmp_path: Path, sees: str) -> None:
    asked = {"env": "reach_env:Reach-v0", "gym__expert": "reach_env:Straight", "run_dir": "run", "workers": 1}
    asked |= {"world_model__patch": 2, "table__image_size": 16, "world_model__cameras": "image"}
    if sees == "numbers":
        asked |= {"gym__camera": "none"}
    arguments = options(**asked)
    if sees == "numbers":
        at = arguments.index("--world-model.cameras")
        del arguments[at : at + 2]
    result = study(*arguments, cwd=tmp_path)
    checked(result, tmp_path / "run", "Reach_v0")
    store = PlayStore.open(tmp_path / "run/artefacts/play/store")
    assert store.meta.cameras == (() if sees == "numbers" else ("image",))
    policy = Policy.from_pretrained(tmp_path / "run/policies/Reach_v0-seed0-ppo")
    seen = {key: store.frames[key][0].numpy() for key in policy.model.config.observed}
    action, _ = policy.predict(seen)
    assert action.shape == (2,)
    assert np.abs(action).max() <= 1


def test_a_study_runs_on_calvin_s_recorded_frames_and_in_its_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = DATA / "calvin_sample_64"
    monkeypatch.setenv("WORLDACTION_CALVIN_PYTHON", interpreter(tmp_path, "none:step:0"))
    task = next(name for name in TASKS if has_windows(recorded, name))
    result = study(
        *options(
            env=CALVIN_ID, play=recorded, tasks=task, run_dir="run", workers=1, table__image_size=32,
            starts=recorded, evaluation__episodes=1, evaluation__curve_episodes=0, evaluation__sampler_episodes=0,
            update__evaluate_every=0,
        ),
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert summary(tmp_path / "run")["tasks"][task]["n"] == 1
    shutil.rmtree(tmp_path / "run")


def has_windows(folder: Path, task: str) -> bool:
    """Whether both splits of a data set have windows of a task."""
    for split in ("training", "validation"):
        found = np.load(folder / split / "lang_annotations/auto_lang_ann.npy", allow_pickle=True).item()
        if task not in found["language"]["task"]:
            return False
    return True


def test_success_in_one_task_s_environment_is_no_label_of_another_task(tmp_path: Path) -> None:
    from experiments.stages.success import _play_windows

    place = General("reach_env:Reach-v0", GymConfig(expert="reach_env:Straight"), TABLE)
    jobs = [Job("play", 1, "Reach_v0", frames=40)]
    place.generate(tmp_path / "s", jobs, data=PRESETS["debug"].data)
    store = PlayStore.open(tmp_path / "s")
    assert {episode.scene for episode in store.episodes} == {"Reach_v0"}
    here: Any = SimpleNamespace(store=store, benchmark=place, task="Reach_v0", seed=0, told_by_recording=False)
    assert _play_windows(here, torch.Generator().manual_seed(0))
    here.task = "another"
    assert not _play_windows(here, torch.Generator().manual_seed(0))


def test_meta_world_s_tasks_are_shown_by_its_own_experts() -> None:
    pytest.importorskip("metaworld")
    study = replace(PRESETS["debug"], env=METAWORLD_ID, tasks=("drawer-close-v3",))
    benchmark = open_benchmark(study.env_config)
    env: Any = benchmark.make("drawer-close-v3")
    first = env.reset(seed=3)[0]["robot_obs"]
    starts = [env.reset(seed=seed)[1] for seed in (4, 3)]
    assert starts
    assert np.array_equal(env.reset(seed=3)[0]["robot_obs"], first)
    expert = env.unwrapped.expert()
    done = any(env.step(env.to_unit(expert()))[4]["is_success"] for _ in range(100))
    assert done
    with pytest.raises(UserError, match="unknown Meta-World task 'drawer-clothe-v3'"):
        benchmark.check("drawer-clothe-v3")


def test_presets_of_meta_world_name_its_environment(capsys: pytest.CaptureFixture[str]) -> None:
    from experiments import metaworld
    from experiments.calvin import main

    main(["quick", "--print-config"], metaworld.presets())
    shown = json.loads(capsys.readouterr().out)
    assert shown["env"] == METAWORLD_ID
    assert shown["tasks"] == ["drawer-open-v3", "drawer-close-v3", "button-press-v3"]
    assert shown["table"]["max_steps"] % shown["policy"]["chunk"] == 0

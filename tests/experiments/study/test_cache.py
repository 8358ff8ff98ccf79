"""What equal settings have made is not made again, wherever it was made, and a run is whole all the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import environment, evaluations, finished_run, metrics, options, summary

from experiments.calvin import main
from experiments.guard import guarded
from experiments.study.run import Run, settings_of
from experiments.study.settings import PRESETS, load_study
from worldaction.errors import UserError
from worldaction.io.artefact import Artefact, Cache
from worldaction.io.atomic import write_json

TASK = "seed0/turn_on_led"
BEFORE_PPO = ("success", "clone", "sampler")


def conducted(folder: Path, *more: str, **changes: Any) -> Path:
    """A tiny study that shares the finished one's artefacts."""
    cache = () if "--cache" in more else ("--cache", str(finished_run()))
    arguments = [*options(run_dir=folder, workers=1, **changes), *cache, *more]
    assert guarded(lambda: main(arguments)) == 0
    return folder


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the finished run's settings, which makes nothing of its own."""
    return conducted(tmp_path_factory.mktemp("same") / "run")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The finished run's artefacts in a folder that may be added to."""
    return Path(shutil.copytree(finished_run() / "cache", tmp_path / "shared"))


@pytest.fixture
def other_ppo(shared: Path, tmp_path: Path) -> Path:
    """A run with another setting of PPO, on the finished run's world model and clone."""
    return conducted(tmp_path / "run", "--cache", str(shared), update__bc=0.0)


def made(cache: Path) -> set[str]:
    """The artefacts in a cache: stage and digest."""
    return {str(path.parent.relative_to(cache)) for path in cache.glob("*/*/manifest.json")}


def new_stages(cache: Path) -> list[str]:
    """Stages of which a cache has more artefacts than the finished run's."""
    return sorted(name.partition("/")[0] for name in made(cache) - made(finished_run() / "cache"))


def test_a_run_of_the_same_settings_makes_nothing_and_has_the_same_results(same: Path) -> None:
    assert not (same / "cache").exists()
    assert new_stages(finished_run() / "cache") == []
    assert evaluations(same) == evaluations(finished_run())
    mine, theirs = summary(same), summary(finished_run())
    assert set(mine.pop("reused")) == set(Run.open(finished_run()).artefacts())
    assert theirs.pop("reused") == []
    assert mine == theirs


def test_it_has_the_metrics_films_and_policies_too(same: Path) -> None:
    assert metrics(same) == metrics(finished_run())
    for path in sorted([*finished_run().glob("videos/*"), *finished_run().glob("policies/*/*")]):
        assert (same / path.relative_to(finished_run())).read_bytes() == path.read_bytes()
    assert "turn on led" in (same / "report.html").read_text()


def test_what_is_linked_takes_no_room_of_its_own(same: Path) -> None:
    for name in ("policies/turn_on_led-seed0-ppo/model.safetensors", "artefacts/play/store/store.json"):
        assert (same / name).samefile(finished_run() / name)


def test_a_run_can_be_moved_with_its_artefacts(tmp_path: Path) -> None:
    run = conducted(tmp_path / "run", "--cache", str(tmp_path / "run" / "mine"))
    assert load_study(run).cache == str(tmp_path / "run" / "mine")
    shutil.copytree(finished_run(), tmp_path / "moved", symlinks=True)
    assert (tmp_path / "moved/artefacts/play").is_symlink()
    assert Run.open(tmp_path / "moved").play().complete
    assert (tmp_path / "moved/artefacts/play").resolve().is_relative_to(tmp_path / "moved")


def test_only_what_depends_on_a_changed_setting_is_made_anew(other_ppo: Path, shared: Path) -> None:
    assert new_stages(shared) == ["evaluation", "ppo"]
    reused = json.loads((other_ppo / "summary.json").read_text())["reused"]
    assert set(reused) == {"play", "seed0/world_model", "seed0/fidelity", *(f"{TASK}/{s}" for s in BEFORE_PPO)}
    prefixes = [line["prefix"] for line in metrics(other_ppo)]
    assert {"seed0/world_model", f"{TASK}/clone", TASK} <= set(prefixes)
    # its own PPO, not that of the other run too
    assert prefixes.count(TASK) == 3


def test_what_is_measured_otherwise_or_saved_more_often_is_learned_and_evaluated_as_before(
    shared: Path, tmp_path: Path
) -> None:
    changed = {"evaluation__probes": 3, "evaluation__parallel": 1, "world_model__save_every": 7}
    run = conducted(tmp_path / "run", "--cache", str(shared), **changed)
    assert new_stages(shared) == ["fidelity"]
    assert evaluations(run) == evaluations(finished_run())


def test_a_resumed_run_remembers_its_cache(same: Path) -> None:
    before = evaluations(same)
    assert guarded(lambda: main(["--resume", str(same)])) == 0
    assert not (same / "cache").exists()
    assert evaluations(same) == before


def test_the_cache_is_no_part_of_the_settings(same: Path) -> None:
    one, other = load_study(same), load_study(finished_run())
    assert one.cache != other.cache
    assert settings_of(one) == settings_of(other)
    assert Run.open(same).play().digest == Run.open(finished_run()).play().digest


def test_an_incomplete_artefact_is_gone_on_with_and_not_taken_as_it_is(shared: Path, tmp_path: Path) -> None:
    model = Run.open(finished_run()).world_model(0)
    (shared / "world_model" / model.digest / "manifest.json").unlink()
    study = replace(load_study(finished_run()), run_dir=str(tmp_path / "run"), cache=str(shared))
    run = Run.create(study)
    assert run.play().complete
    assert not run.world_model(0).complete
    assert run.world_model(0).path == shared / "world_model" / model.digest


def test_two_processes_do_not_make_the_same_artefact_at_once(shared: Path) -> None:
    script = (
        "import sys, time; from worldaction.io.artefact import Cache\n"
        "Cache(sys.argv[1]).artefact('clone', {'a': 1}).folder; print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(shared)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(UserError, match="is being made by another process; wait for it"):
            _ = Cache(shared).artefact("clone", {"a": 1}).folder
    finally:
        process.kill()
        process.wait()
    assert Cache(shared).artefact("clone", {"a": 1}).folder.is_dir()


def test_a_cache_in_which_nothing_fits_says_by_which_setting_its_nearest_play_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.study.conduct._learn_all", nothing)
    arguments = [*options(run_dir=tmp_path / "run", data__demos=4), "--cache", str(finished_run())]
    assert guarded(lambda: main(arguments)) == 130
    assert "its play was made with data.demos = 3, not 4" in capsys.readouterr().err


def test_the_option_of_before_says_its_new_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*options(run_dir=tmp_path / "run"), "--reuse", str(tmp_path)]
    assert guarded(lambda: main(arguments)) == 2
    assert "--reuse is now --cache" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# What settings only name ----------------------------------------------------------------------------------------------


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Begins a run with modules of the user's, or goes on with it; all share one cache."""
    (tmp_path / "brought_losses.py").write_text("SLOPE = 1\n")
    (tmp_path / "brought_judge.py").write_text("def done(): ...\n")
    monkeypatch.chdir(tmp_path)
    # a copy, to which this working directory and no other test's is added
    monkeypatch.setattr(sys, "path", [*sys.path])

    def begun(name: str, **changes: Any) -> Run:
        study = replace(PRESETS["debug"], workers=1, run_dir=name, **changes)
        return Run.create(replace(study, cache="shared"))

    return begun


def finish(*artefacts: Artefact) -> None:
    for artefact in artefacts:
        assert artefact.folder.is_dir()
        artefact.finish({})


MINE = (*PRESETS["debug"].losses, "brought_losses:Mine=0.1")
"""With a loss of the user's."""


def test_a_world_model_is_not_reused_once_its_loss_has_been_edited(begin: Callable[..., Run]) -> None:
    first = begin("first", losses=MINE)
    finish(first.play(), first.world_model(0))
    assert begin("second", losses=MINE).world_model(0).complete
    Path("brought_losses.py").write_text("SLOPE = 2\n")
    third = begin("third", losses=MINE)
    assert third.play().complete
    assert not third.world_model(0).complete


def test_a_run_whose_loss_was_edited_before_its_training_ended_does_not_go_on(begin: Callable[..., Run]) -> None:
    first = begin("first", losses=MINE)
    Path("brought_losses.py").write_text("SLOPE = 2\n")
    with pytest.raises(UserError, match=r"brought_losses has changed since the run in first began; undo that, or"):
        Run.open(Path("first"))
    Path("brought_losses.py").write_text("SLOPE = 1\n")
    finish(*(Run.open(Path("first")).world_model(seed) for seed in first.study.seeds))
    Path("brought_losses.py").write_text("SLOPE = 2\n")
    assert Run.open(Path("first")).world_model(0).complete
    with pytest.raises(UserError, match="brought_losses has changed"):
        begin("first", losses=MINE)


def test_play_and_what_it_led_to_are_not_reused_once_another_set_lies_in_its_place(begin: Callable[..., Run]) -> None:
    Path("set.hdf5").write_text("one")
    first = begin("first", play="set.hdf5")
    finish(first.play(), first.world_model(0))
    assert begin("second", play="set.hdf5").world_model(0).complete
    Path("set.hdf5").write_text("two")
    third = begin("third", play="set.hdf5")
    assert not third.play().complete
    assert not third.world_model(0).complete
    with pytest.raises(UserError, match=r"--play set\.hdf5 has changed since the run in first began"):
        begin("first", play="set.hdf5")
    # it goes on with what it has read, and one that has read nothing does not
    assert Run.open(Path("first")).world_model(0).complete
    Path("set.hdf5").write_text("three")
    with pytest.raises(UserError, match="--play set"):
        Run.open(Path("third"))
    Path("set.hdf5").unlink()
    assert Run.open(Path("first")).play().complete


def test_a_run_is_evaluated_from_the_starts_it_began_with(begin: Callable[..., Run]) -> None:
    asked: dict[str, Any] = {"env": "worldaction/Calvin-v0", "starts": "starts"}
    Path("starts").mkdir()
    Path("starts/states.npy").write_text("one")
    first = begin("first", **asked)
    Path("starts/states.npy").write_text("two")
    with pytest.raises(UserError, match="--starts starts has changed since the run in first began"):
        Run.open(Path("first"))
    second, stages = begin("second", **asked), ("clone", "ppo", "evaluation")
    (task,) = first.study.tasks
    same = [first.task(0, task, stage).digest == second.task(0, task, stage).digest for stage in stages]
    assert same == [True, False, False]


def test_classifiers_of_recorded_play_are_reused_in_the_scene_that_labelled_it_alone(tmp_path: Path) -> None:
    def made(scene: Any, stage: str) -> Artefact:
        table = replace(PRESETS["debug"].table, scene=scene)
        study = replace(PRESETS["debug"], play="set", env="worldaction/Calvin-v0", table=table)
        return Run(study, tmp_path / "run").task(0, "turn_on_led", stage)

    assert made("B", "success").digest != made("D", "success").digest
    assert made("B", "clone").digest == made("D", "clone").digest


@pytest.mark.parametrize(
    ("env", "remade"), [("worldaction/PlayTable-v0", False), ("worldaction/Calvin-v0", False), ("Pendulum-v1", True)]
)
def test_another_time_limit_makes_play_anew_only_where_it_ends_what_is_recorded(
    env: str, remade: bool, tmp_path: Path
) -> None:
    def made(limit: int) -> dict[str, str]:
        table = replace(PRESETS["debug"].table, max_steps=limit)
        run = Run(replace(PRESETS["debug"], env=env, table=table, tasks=("one",)), tmp_path / "run")
        return {place.rpartition("/")[2]: artefact.digest for place, artefact in run.artefacts().items()}

    short, long = made(72), made(152)
    for stage in ("play", "world_model", "success", "clone"):
        assert (short[stage] != long[stage]) == remade, stage
    assert short["evaluation"] != long["evaluation"]


def test_a_world_model_is_not_reused_once_another_one_names_its_actions(begin: Callable[..., Run]) -> None:
    Path("model").mkdir()
    Path("model/model.safetensors").write_text("one")
    asked = {"world_model": replace(PRESETS["debug"].world_model, named_by="model")}
    first = begin("first", **asked)
    finish(first.play(), first.world_model(0))
    Path("model/model.safetensors").write_text("two")
    second = begin("second", **asked)
    assert second.play().complete
    assert not second.world_model(0).complete


def test_a_study_begun_again_looks_for_the_losses_of_its_arms(begin: Callable[..., Run]) -> None:
    text = "from worldaction.losses.kl import KL\n\n\nclass Mine(KL):\n    name = 'mine'\n"
    Path("armed_losses.py").write_text(text)
    asked = {"arms": ("none:reconstruction+kl", "mine:reconstruction+kl+armed_losses:Mine=0.1")}
    begin("first", **asked)
    Path("armed_losses.py").write_text(text + "\nSLOPE = 2\n")
    with pytest.raises(UserError, match="armed_losses has changed"):
        begin("first", **asked)


def test_a_run_is_looked_at_where_its_modules_are_not(begin: Callable[..., Run]) -> None:
    finish(begin("first", losses=MINE).world_model(0))
    Path("brought_losses.py").unlink()
    assert Run.open(Path("first")).world_model(0).complete


def test_a_judge_is_a_part_of_what_it_judges(begin: Callable[..., Run]) -> None:
    asked: dict[str, Any] = {
        "env": "Pendulum-v1",
        "gym": replace(PRESETS["debug"].gym, success="brought_judge:done"),
        "tasks": ("pendulum",),
    }
    first = begin("first", **asked)
    stages = first.play(), first.task(0, "pendulum", "ppo")
    Path("brought_judge.py").write_text("def done(): return 1\n")
    with pytest.raises(UserError, match="brought_judge has changed"):
        Run.open(Path("first"))
    second = begin("second", **asked)
    assert second.play().digest != stages[0].digest
    assert second.task(0, "pendulum", "ppo").made_by["content"] != stages[1].made_by["content"]


def test_losses_of_our_own_are_no_code_that_a_user_brought(begin: Callable[..., Run]) -> None:
    begin("first")
    assert "content" not in json.loads(Path("first/env.json").read_text())


def test_runs_that_name_nothing_and_those_from_before_are_what_they_were(begin: Callable[..., Run]) -> None:
    plain = begin("first")
    assert "content" not in json.loads(Path("first/env.json").read_text())
    assert not any("content" in artefact.made_by for artefact in plain.artefacts().values())
    env = json.loads((begin("second", losses=MINE).folder / "env.json").read_text())
    del env["content"]
    write_json("second/env.json", env)
    assert "content" not in Run.open(Path("second")).world_model(0).made_by

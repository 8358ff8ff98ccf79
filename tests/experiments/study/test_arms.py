"""Studies with arms: how arms are written, what they share, and that each is a run of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tiny_study import Started, copied, evaluations, finished_run, forget, options, weights

from experiments import __main__ as cli
from experiments.calvin import main
from experiments.guard import guarded
from experiments.report.pages.run_page import write_report
from experiments.study import conduct as stages
from experiments.study.arms import arms_of
from experiments.study.options import parse_study
from experiments.study.run import Run
from experiments.study.settings import PRESETS, Study, load_study
from worldaction.errors import UserError

RECONSTRUCTION, KL, INVERSE = PRESETS["debug"].losses
TASK = "seed0/turn_on_led"


def arm(text: str, **changes: object) -> Study:
    """The settings of an arm beside one that is like no other."""
    study = replace(PRESETS["debug"], arms=(text, "far:clone.steps=7"), **changes)  # type: ignore[arg-type]
    return arms_of(study)[0].study


# How arms are written -------------------------------------------------------------------------------------------------


def test_losses_of_an_arm_replace_all_and_keep_the_options_of_the_preset() -> None:
    assert arm("reconstruction+kl").losses == (RECONSTRUCTION, KL)
    assert arm("kl+reconstruction=2").losses[1] == RECONSTRUCTION.replace("=1", "=2", 1)


def test_losses_that_the_study_leaves_out_come_back_as_the_preset_has_them() -> None:
    assert arm("reconstruction+inverse_dynamics", losses=(KL,)).losses == (RECONSTRUCTION, INVERSE)


def test_options_of_a_loss_belong_to_the_loss_before_them() -> None:
    found = arm("reconstruction+kl=0.5,free_nats=2+inverse_dynamics,update.bc=0").losses
    assert found == (RECONSTRUCTION, "kl=0.5,free_nats=2", INVERSE)
    assert arm("kl=1e+3,free_nats=2").losses == ("kl=1e+3,free_nats=2",)


def test_overrides_are_read_in_the_type_of_their_option() -> None:
    study = arm(
        "update.bc=0,world-model.steps=20,stress.frame_mirror=true,table.renderer=rays,gym.success_reward=none,"
        "world_model.cameras=rgb_gripper+rgb_static"
    )
    assert (study.update.bc, study.world_model.steps) == (0.0, 20)
    assert study.stress.frame_mirror is True
    assert study.table.renderer == "rays"
    assert study.gym.success_reward is None
    assert study.world_model.cameras == ("rgb_gripper", "rgb_static")
    assert study.losses == PRESETS["debug"].losses


def test_a_name_stands_before_a_colon_and_else_the_text_is_the_name() -> None:
    arms = arms_of(
        replace(PRESETS["debug"], arms=("base:", "reconstruction+kl,update.bc=0.1", "my-arm_0.2:update.bc=0"))
    )
    assert [a.name for a in arms] == ["base", "reconstruction+kl,update.bc=0.1", "my-arm_0.2"]
    assert [a.slug for a in arms] == ["base", "reconstruction-kl-update.bc-0.1", "my-arm_0.2"]
    assert arms[0].study == PRESETS["debug"]


def test_the_command_line_keeps_the_text_of_arms() -> None:
    study, *_ = parse_study(["debug", "--arms", "base:", "update.bc=0"])
    assert study.arms == ("base:", "update.bc=0")


@pytest.mark.parametrize(
    ("arms", "value", "remedy"),
    [
        (["update.bc=0"], "update.bc=0 is one arm", "add another, such as base:"),
        (["base:", ""], "''", "write base:"),
        (["base:", "same:"], "'base' and 'same' are the same settings", "leave one out"),
        (["base:", "x:update.bc=0.05"], "'base' and 'x' are the same settings", "leave one out"),
        (["update.bc=0", "update.bc=0,"], "''", "write for instance"),
        (["base:", "base:update.bc=0"], "two arms are called 'base'", "name one of them"),
        (["base:", "update.bcc=0"], "'bcc'", "did you mean 'bc'"),
        (["base:", "updat.bc=0"], "'updat'", "did you mean 'update'"),
        (["base:", "update.bc=much"], "'much' is no float", "give a number"),
        (["base:", "update.iterations=1.5"], "'1.5' is no int", "give a number"),
        (["base:", "update.iterations=-1"], "--update.iterations -1", "give 0 or more"),
        (["base:", "update.bc"], "'update.bc' has no value", "write update.bc=VALUE"),
        (["base:", "table.renderer=vulkan"], "'vulkan'", "known: auto, egl"),
        (["base:", "stress.frame_mirror=maybe"], "frame_mirror='maybe'", "give a truth value"),
        (["base:", "reconstrution+kl"], "'reconstrution'", "did you mean 'reconstruction'"),
        (["base:", "reconstruction,kl"], "'kl' is not OPTION=VALUE", "write"),
        (["base:", "kl+kl=2"], "'kl' is listed twice", "once"),
        (["base:", "kl,update.bc=0,free_nats=1"], "'free_nats=1' follows an option", "losses first"),
        (["base:", "mine:Mine=1+kl"], "mine before the colon is read as the arm's name", "unknown loss 'Mine'"),
        (["base:", "evaluation.episodes=4"], "evaluation.episodes", "for all"),
        (["base:", "stress.distractors=2"], "2", "0 is off"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arms_that_cannot_be_are_refused_in_one_line_with_a_remedy(arms: list[str], value: str, remedy: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_study(["debug", "--arms", *arms])
    said = str(refusal.value)
    assert "\n" not in said
    assert value in said
    assert remedy in said


# What they share ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three arms, of which two share their world model, on the finished run's play."""
    folder = tmp_path_factory.mktemp("arms") / "run"
    # in the place where the study keeps its own
    shutil.copytree(finished_run() / "cache", folder / "cache")
    arms = ["--arms", "base:", "reconstruction+kl", "no_bc:update.bc=0"]
    assert guarded(lambda: main([*options(run_dir=folder, workers=1), *arms])) == 0
    return folder


def made(cache: Path) -> list[str]:
    """The stages of the artefacts in a cache."""
    return sorted(path.parts[-3] for path in cache.glob("*/*/manifest.json"))


def test_every_artefact_is_made_once(study: Path) -> None:
    # the first arm is the finished run, of which all is there
    assert not any((study / "arms" / arm / "cache").exists() for arm in ("base", "no_bc", "reconstruction-kl"))
    without_bc = ["ppo", "evaluation"]
    without_inverse = ["world_model", "fidelity", "success", "clone", "sampler", "ppo", "evaluation"]
    assert made(study / "cache") == sorted(made(finished_run() / "cache") + without_bc + without_inverse)


def test_an_arm_is_a_run_like_any_other(study: Path) -> None:
    for name in ("base", "reconstruction-kl", "no_bc"):
        folder = study / "arms" / name
        assert load_study(folder).arms == ()
        assert len(evaluations(folder)) == 1
        assert (folder / "policies/turn_on_led-seed0-ppo/model.safetensors").exists()
        assert (folder / "report.html").exists()
    assert evaluations(study / "arms/base") == evaluations(finished_run())
    before = dict(weights(study / "arms/no_bc"))
    assert guarded(lambda: main(["--resume", str(study / "arms/no_bc")])) == 0
    assert dict(weights(study / "arms/no_bc")).keys() == before.keys()


def test_a_study_that_was_moved_still_finds_what_its_arms_share(study: Path, tmp_path: Path) -> None:
    copied(study, tmp_path / "moved")
    run = Run.open(tmp_path / "moved")
    assert list(run.arms()) == ["base", "reconstruction+kl", "no_bc"]
    for arm in run.arms().values():
        assert all(artefact.complete for artefact in arm.artefacts().values())


def test_world_models_have_as_many_threads_as_all_that_are_trained_leave_to_each() -> None:
    def threads(*arms: str, workers: int, seeds: tuple[int, ...] = (0,)) -> set[int]:
        run = Run(replace(PRESETS["debug"], arms=arms, workers=workers, seeds=seeds), Path("nowhere"))
        return {arm.threads for arm in run.arms().values()}

    assert threads("base:", "reconstruction+kl", workers=4) == {2}
    assert threads("base:", "reconstruction+kl", "kl", workers=2) == {1}
    assert threads("base:", "reconstruction+kl", workers=8, seeds=(0, 1)) == {2}
    # arms of one world model leave it all that a run of its own would have, so that they can reuse that run's
    assert threads("base:", "update.bc=0", workers=4) == {4}


def test_work_that_several_want_is_listed_once(tmp_path: Path) -> None:
    config = replace(PRESETS["debug"], arms=("base:", "update.bc=0", "reconstruction+kl"), workers=1)
    runs = list(Run(config, tmp_path).arms().values())
    for shared, expected in ((False, [0, 2]), (True, [0])):
        wanted = [stages.Wanted(run.task(0, "turn_on_led", "clone"), partial(int, n)) for n, run in enumerate(runs)]
        assert [job() for job in stages.unmade(wanted, shared=shared)] == expected


@pytest.mark.timeout(300)
def test_a_study_with_arms_goes_on_where_it_was_killed(study: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    copied(study, run)
    (run / "summary.json").unlink()
    task = run / "arms/reconstruction-kl/artefacts" / TASK
    forget(run / "arms/reconstruction-kl", *(f"{TASK}/{stage}" for stage in ("clone", "ppo", "evaluation")))
    process = Started(["--resume", "run"], cwd=tmp_path)
    try:
        process.wait_for((task / "clone/manifest.json").exists)
    finally:
        process.clean_up()
    assert not (run / "summary.json").exists()
    # what there is can be looked at
    stages.refresh(run)
    interim = json.loads((run / "summary.json").read_text())
    assert interim["unfinished"] == {"reconstruction+kl": 2}
    assert "Not finished" in write_report(run).read_text()
    assert guarded(lambda: main(["--resume", str(run)])) == 0
    assert evaluations(run / "arms/reconstruction-kl") == evaluations(study / "arms/reconstruction-kl")


def test_the_study_has_a_summary_a_page_and_tables_of_its_arms(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = json.loads((study / "summary.json").read_text())["arms"]
    assert list(arms) == ["base", "reconstruction+kl", "no_bc"]
    assert [arm["folder"] for arm in arms.values()] == ["arms/base", "arms/reconstruction-kl", "arms/no_bc"]
    # what is shared is the same, and its time is counted in all arms
    assert arms["base"]["world_model"] == arms["no_bc"]["world_model"]
    assert arms["base"]["seconds"]["world_model"] == arms["no_bc"]["seconds"]["world_model"] > 0
    assert "arms/no_bc/report.html" in (study / "report.html").read_text()
    cli.command(["report", str(study), "--markdown"])
    said = capsys.readouterr().out
    assert all(f"| {name} |" in said for name in arms)
    assert "Against base" in said


def test_a_change_of_the_arms_is_another_study(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = ["--arms", "base:", "no_bc:update.bc=0"]
    assert guarded(lambda: main([*options(run_dir=study, workers=1), *arms])) == 2
    assert "give another --run-dir" in capsys.readouterr().err


def test_the_settings_of_every_arm_are_kept(study: Path) -> None:
    config = json.loads((study / "arms/no_bc/config.json").read_text())
    assert config["update"]["bc"] == 0.0
    assert config["arms"] == []

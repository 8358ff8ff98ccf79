"""Losses side by side: the arms that a command line makes, and ranks and probabilities that are right by hand."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import ROOT, options

from experiments.calvin import main as calvin
from experiments.losses import main, parse, zoo
from experiments.report.comparison import compare
from experiments.report.pages.loss_page import write_losses
from experiments.study.arms import arms_of
from experiments.study.run import Run
from worldaction.errors import UserError
from worldaction.io.recorder import Recorder
from worldaction.io.sealed_json import read_json

# The command line -----------------------------------------------------------------------------------------------------


def test_every_loss_stands_beside_reconstruction_and_kl_with_the_presets_options() -> None:
    found = arms_of(parse(["debug"]).study)
    assert [arm.name for arm in found] == ["base", *zoo()]
    assert {"taco", "inverse_dynamics", "alignment"} <= set(zoo())
    base = ("reconstruction=1,proprio=50,share=0.25", "kl=0.3,free_nats=1")
    assert found[0].study.losses == base
    by_name = {arm.name: arm.study.losses for arm in found}
    assert by_name["taco"] == (*base, "taco")
    assert by_name["inverse_dynamics"] == (*base, "inverse_dynamics=100,hidden=64")


def test_losses_that_read_privileged_numbers_are_compared_when_they_are_named() -> None:
    assert "success" not in zoo()
    assert [arm.name for arm in arms_of(parse(["debug", "--compare", "success"]).study)] == ["base", "success"]


def test_each_strength_has_all_arms_and_a_base_of_its_own() -> None:
    asked = parse(["debug", "--compare", "taco", "dynamo,ema=0.9", "--distractors", "0", "0.5", "--seeds", "0", "1"])
    found = {arm.name: arm.study for arm in arms_of(asked.study)}
    assert [study.stress.distractors for study in found.values()] == [0.0] * 3 + [0.5] * 3
    assert list(found)[3:] == ["base-distracted0.5", "taco-distracted0.5", "dynamo-ema0.9-distracted0.5"]
    assert found["dynamo-ema0.9-distracted0.5"].losses[-1] == "dynamo,ema=0.9"
    assert asked.study.seeds == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["debug", "--compare"], "--compare is empty"),
        (["debug", "--compare", "taco", "taco"], "names something twice"),
        (["debug", "--compare", "tacos"], "did you mean 'taco'"),
        (["debug", "--arms", "base:", "x:taco"], "--arms are what --compare makes"),
        (["debug", "--compare", "taco", "--distractors", "much"], "is no float"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(arguments)


def test_the_arms_can_be_looked_at_before_anything_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    main(["debug", "--compare", "taco", "--print-config"])
    assert capsys.readouterr().out.splitlines() == ["base:reconstruction+kl", "taco:reconstruction+kl+taco"]


# The page -------------------------------------------------------------------------------------------------------------


def measured(good: float, seed: int) -> dict[str, Any]:
    """What is measured of a world model that is better the larger a number between 0 and 1."""
    scores = {"r2_drawer": good + 0.01 * seed, "r2_slider": -3.0, "auroc_led": None}
    return {
        "probes": dict.fromkeys(("seen", "imagined_8", "imagined_late"), scores),
        "tcp_error": {"probe": {"imagined_late": {"median": 50 * (1 - good)}}},
        "action_probe": {"pictures": {"mlp": {"imagined_8": {"translation": {"relative": 1 - good}}}}},
        "psnr": {"rgb_static": [25.0, 20.0 + good]},
    }


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """A study whose world models have been measured: taco's are better than the base's, and dynamo's are worse."""
    quality: Mapping[str, float] = {"base": 0.5, "taco": 0.7, "dynamo": 0.2}
    arguments = [*options(), "--compare", "taco", "dynamo", "--seeds", "0", "1", "--run-dir", str(tmp_path / "run")]
    run = Run.create(parse(arguments).study)
    for name, arm in run.arms().items():
        Run.at(arm.folder, arm.study)
        for seed in (0, 1):
            arm.fidelity(seed).finish(measured(quality[name], seed))
            with Recorder(arm.world_model(seed).folder, boards=arm.boards) as recorder:
                for step, share in ((1, 0.9), (40, 0.2)):
                    figures = {"gradient_share/kl": 0.1, f"gradient_share/{name}": share, f"loss/{name}": 1.0 / step}
                    recorder.log(
                        step, figures if name != "base" else {"loss/kl": 1.0}, prefix=f"seed{seed}/world_model"
                    )
    compare(run)
    return run.folder


def test_the_better_model_is_ranked_first_and_the_probability_says_so(compared: Path) -> None:
    path, text = write_losses(compared)
    assert [line.split()[0] for line in text.splitlines()] == ["arm", "taco", "base", "dynamo"]
    arms = read_json(compared / "losses.json")["arms"]
    assert [arms[name]["rank"] for name in ("taco", "base", "dynamo")] == [1.0, 2.0, 3.0]
    # of three probes a place one is better in every pairing of seeds, and two are equal
    assert arms["taco"]["better"]["probes"]["value"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert arms["dynamo"]["better"]["probes"]["value"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert "better" not in arms["base"]
    # 0.2 better on one probe of three a place, by both seeds, which are too few for an interval
    assert arms["taco"]["gain"]["probes"] == {"value": pytest.approx(0.2 / 3), "interval": None}
    assert arms["dynamo"]["gain"]["probes"]["value"] == pytest.approx(-0.3 / 3)
    assert "+0.07 -" in text
    assert arms["taco"]["measures"]["seen"] == pytest.approx((0.705 + 0.0) / 2)
    assert arms["taco"]["measures"]["bc"] is None
    page = path.read_text()
    rows = (compared / "curves/losses.csv").read_text().splitlines()
    assert "taco: share of the gradient,distractors 0: seed0/world_model,40,0.2" in rows
    assert page.index("<td>taco") < page.index("<td>base") < page.index("<td>dynamo")
    assert "BC" not in text.splitlines()[0]


def test_the_share_is_that_of_what_an_arm_adds_in_the_second_half(compared: Path) -> None:
    write_losses(compared)
    arms = read_json(compared / "losses.json")["arms"]
    assert arms["taco"]["share"] == pytest.approx(0.2)
    assert arms["base"]["share"] is None


def test_the_page_can_be_written_again(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--page", str(compared)])
    assert capsys.readouterr().out.strip().endswith("losses.html")


@pytest.mark.parametrize(
    ("option", "instead"), [("--page", "worldaction report"), ("--resume", "python -m experiments.calvin --resume")]
)
def test_a_run_without_arms_is_refused_and_left_as_it_is(compared: Path, option: str, instead: str) -> None:
    arm = compared / "arms/base"
    before = sorted(arm.rglob("*"))
    with pytest.raises(UserError, match="has no arms") as error:
        main([option, str(arm)])
    assert str(arm) in str(error.value)
    assert str(error.value).endswith(f"use: {instead} {arm}")
    assert sorted(arm.rglob("*")) == before


def test_equal_arms_share_a_rank(compared: Path) -> None:
    run = Run.open(compared)
    for seed in (0, 1):
        again = run.arms()["dynamo"].fidelity(seed)
        (again.path / "manifest.json").unlink()
        again.finish(measured(0.7, seed))
    write_losses(compared)
    arms = read_json(compared / "losses.json")["arms"]
    assert (arms["taco"]["rank"], arms["dynamo"]["rank"], arms["base"]["rank"]) == (1.5, 1.5, 3.0)
    assert arms["taco"]["strength"] == 0.0


# The page on the zoo --------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_on_the_zoo_are_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (ROOT / "docs/losses.md").read_text()
    commands = [line.split() for line in re.findall(r"^    (python -m .*)$", text, re.MULTILINE)]
    assert len(commands) == 6
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loss = "from worldaction.losses.taco import TACO\n\n\nclass Mine(TACO):\n    name = 'mine'\n"
    (tmp_path / "my_losses.py").write_text(loss)
    for _, _, module, *arguments in commands:
        if module == "experiments.calvin":
            calvin([*arguments, "--print-config"])
        elif "--resume" in arguments:
            with pytest.raises(UserError, match="there is no run"):
                parse(arguments)
        else:
            assert len(arms_of(replace(parse(arguments).study, run_dir=None))) >= 4
    # the next test may have a file of this name, too
    sys.modules.pop("my_losses", None)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_world_models_of_two_arms_are_trained_measured_and_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*options(), "--compare", "taco", "--models-only", "--run-dir", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "taco" in said
    assert (tmp_path / "run/losses.html").exists()
    assert (tmp_path / "run/report.html").exists()

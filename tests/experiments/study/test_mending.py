"""What a run has made is compared with what it was before anything is built on it; what is damaged is made again."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import assert_same_run, copied, finished_run, place, study

from experiments.__main__ import command
from experiments.study.finished import mended
from experiments.study.run import Run
from worldaction.errors import UserError
from worldaction.io.atomic import save_checkpoint, write_json
from worldaction.io.recorder import read_metrics
from worldaction.io.sealed_json import SEAL

TASK = "seed0/turn_on_led"


def turn_a_sign(path: Path) -> None:
    """One bit of a file: the sign of a number in the middle of it."""
    content = bytearray(path.read_bytes())
    content[4 * (len(content) // 8) + 3] ^= 0x80
    path.write_bytes(content)


def change_a_number(path: Path) -> None:
    """A digit of a JSON file, which stays JSON."""
    text = path.read_text()
    at = next(i for i, character in enumerate(text) if character in "23456789")
    path.write_text(text[:at] + "1" + text[at + 1 :])


DAMAGES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "a sign in the play": ("play", "store/frames/robot_obs.memmap", turn_a_sign),
    "an emptied model": ("seed0/world_model", "model.safetensors", lambda path: path.write_bytes(b"")),
    "a bit of a model": ("seed0/world_model", "model.safetensors", turn_a_sign),
    "a bit of an actor": (f"{TASK}/clone", "actor.safetensors", turn_a_sign),
    "another policy config": (f"{TASK}/evaluation", "policies/ppo/config.json", change_a_number),
    "an evaluation that is gone": (f"{TASK}/evaluation", "evaluation.json", Path.unlink),
    "policies that are gone": (f"{TASK}/evaluation", "policies", shutil.rmtree),
    "a manifest of a list": (f"{TASK}/success", "manifest.json", lambda path: path.write_text("[]")),
    "a manifest that was cut": (f"{TASK}/ppo", "manifest.json", lambda path: path.write_text("{")),
    "a store that was cut": ("play", "store/store.json", lambda path: os.truncate(path, 500)),
    "a model of another size": ("seed0/world_model", "config.json", change_a_number),
    "settings that were cut": (f"{TASK}/sampler", "made_by.json", lambda path: path.write_text("{")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named_and_set_aside_to_be_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished_run(), tmp_path / "run")
    where, name, harm = DAMAGES[damage]
    path = place(run, where) / name
    harm(path)
    with pytest.raises(SystemExit):
        command(["verify", str(run)])
    assert str(path) in capsys.readouterr().out
    with caplog.at_level(logging.WARNING):
        found = mended(Run.open(run))
    assert str(path) in caplog.text
    assert [place for place, artefact in found.artefacts().items() if not artefact.complete] == [where]
    # nothing is lost: whoever knows better finds it there
    assert (path.parent if damage != "policies that are gone" else path).name
    assert place(run, where).with_name(f"{place(run, where).name}.damaged").is_dir()


def test_verify_names_a_part_of_a_finished_run_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished_run(), tmp_path / "run")
    (place(run, f"{TASK}/clone") / "manifest.json").unlink()
    with pytest.raises(SystemExit):
        command(["verify", str(run)])
    said = capsys.readouterr().out
    assert str(place(run, f"{TASK}/clone")) in said
    assert f"--resume {run}" in said
    # a run that has not come to its end lacks parts, and nothing is wrong with it
    (run / "summary.json").unlink()
    command(["verify", str(run)])


def test_a_run_with_a_damaged_play_ends_as_one_without(tmp_path: Path) -> None:
    run = copied(finished_run(), tmp_path / "run")
    turn_a_sign(place(run, "play") / "store/frames/action.memmap")
    result = study("--resume", str(run), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "action.memmap has changed since it was written" in result.stderr
    shutil.rmtree(place(run, "play").with_name(f"{place(run, 'play').name}.damaged"))
    assert_same_run(run, finished_run())


def test_a_whole_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.open(copied(finished_run(), tmp_path / "run"))
    assert mended(run) is run
    command(["verify", str(run.folder)])
    assert "is as it was written" in capsys.readouterr().out


def test_a_checkpoint_that_was_cut_makes_its_stage_begin_again(tmp_path: Path) -> None:
    run = copied(finished_run(), tmp_path / "run")
    model = place(run, "seed0/world_model")
    (model / "manifest.json").unlink()
    save_checkpoint(model / "checkpoint.safetensors", {"step": 1})
    assert mended(Run.open(run)).world_model(0).path.exists()
    content = (model / "checkpoint.safetensors").read_bytes()
    # the model itself is no checkpoint, either
    whole = (model / "model.safetensors").read_bytes()
    for other in (content[: len(content) // 2], whole):
        model.mkdir(exist_ok=True)
        (model / "checkpoint.safetensors").write_bytes(other)
        assert not mended(Run.open(run)).world_model(0).path.exists()


def test_on_a_gpu_what_was_built_on_it_is_made_again_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(copied(finished_run(), tmp_path / "run"))
    turn_a_sign(place(run.folder, f"{TASK}/clone") / "actor.safetensors")
    # its artefacts go by the CPU's names; only what to do about them is asked of a GPU's run
    monkeypatch.setattr("experiments.study.finished._built_on", _as_on_a_gpu())
    unmade = [place for place, artefact in mended(run).artefacts().items() if not artefact.complete]
    assert unmade == [f"{TASK}/{stage}" for stage in ("clone", "sampler", "ppo", "evaluation")]


def _as_on_a_gpu() -> Callable[..., list[str]]:
    from experiments.study.finished import _built_on

    return lambda where, places, _, judged: _built_on(where, places, "cuda", judged=judged)


def test_verify_reads_stores_and_policies_and_refuses_what_is_neither(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished_run(), tmp_path / "run")
    store, policy = place(run, "play") / "store", next((run / "policies").iterdir())
    for path in (store, policy, place(run, "seed0/world_model")):
        command(["verify", str(path)])
    turn_a_sign(store / "frames/action.memmap")
    turn_a_sign(policy / "model.safetensors")
    for path in (store, policy):
        with pytest.raises(SystemExit):
            command(["verify", str(path)])
    assert capsys.readouterr().out.count("has changed since it was written") == 2
    with pytest.raises(UserError, match="holds no run, play store, policy or model"):
        command(["verify", str(tmp_path)])


def test_files_under_names_for_people_are_those_of_their_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished_run(), tmp_path / "run")
    shown = next((run / "evaluation").glob("*.json"))
    content = shown.read_text()
    shown.unlink()
    for text, message in ((None, "is missing"), ("[]", "is not what")):
        if text is not None:
            shown.write_text(text)
        with pytest.raises(SystemExit):
            command(["verify", str(run)])
        assert f"{shown} {message}" in capsys.readouterr().out
    shown.write_text(content)
    command(["verify", str(run)])


@pytest.mark.parametrize("line", ["\x00\xff", "[]", '{"prefix": 1, "step": 1, "time": 1}', "[" * 5000])
def test_a_line_of_metrics_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is damaged"):
        list(read_metrics(tmp_path))


def test_what_is_written_by_hand_is_taken_once_its_seal_is_deleted(tmp_path: Path) -> None:
    run = copied(finished_run(), tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["evaluation"]["videos"] = 0
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json has changed since it was written; .* delete its 'seal'"):
        Run.open(run)
    del config[SEAL]
    (run / "config.json").write_text(json.dumps(config))
    assert Run.open(run).study.evaluation.videos == 0
    write_json(run / "config.json", config)
    assert Run.open(run).study.evaluation.videos == 0

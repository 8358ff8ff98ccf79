"""A stage's folder knows what made it, when it is finished, and what has changed in it since."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from worldaction.errors import UserError
from worldaction.io import artefact
from worldaction.io.artefact import Artefact, Cache
from worldaction.io.atomic import (
    write_json,
)
from worldaction.io.sealed_json import read_json


@dataclass(frozen=True)
class Settings:
    lr: float
    cameras: tuple[str, ...]


def test_a_stage_is_complete_once_it_has_finished_with_the_same_settings(tmp_path: Path) -> None:
    made_by = {"config": Settings(0.1, ("x", "y")), "seed": 1, "inputs": {"play": "abc"}}
    stage = Artefact(tmp_path / "a", made_by=made_by)
    assert not stage.complete
    assert not stage.path.exists()
    (stage.folder / "weights").write_text("...")
    assert not Artefact(tmp_path / "a", made_by=made_by).complete
    stage.finish({"loss": 0.5})
    again = Artefact(tmp_path / "a", made_by=made_by)
    assert again.complete
    assert again.results == {"loss": 0.5}
    assert again.digest == stage.digest
    manifest = read_json(tmp_path / "a" / "manifest.json")
    assert manifest["made_by"]["config"] == {"lr": 0.1, "cameras": ["x", "y"]}
    # not torch.__version__, to which some builds add what they were made for
    assert manifest["versions"]["torch"] == version("torch")


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_other_settings_is_refused_by_the_setting_that_differs(tmp_path: Path, finished: bool) -> None:
    stage = Artefact(tmp_path / "a", made_by={"config": Settings(0.1, ()), "seed": 1})
    assert stage.folder.is_dir()
    if finished:
        stage.finish({})
    with pytest.raises(UserError, match=r"made with config\.lr = 0\.1, not 0\.2; delete it or"):
        Artefact(tmp_path / "a", made_by={"config": Settings(0.2, ()), "seed": 1})
    with pytest.raises(UserError, match="made with losses = not set, not x"):
        Artefact(tmp_path / "a", made_by={"config": Settings(0.1, ()), "seed": 1, "losses": "x"})


def test_equal_settings_find_each_others_results_in_a_cache(tmp_path: Path) -> None:
    first = Cache(tmp_path).artefact("model", {"lr": 1, "sizes": {"steps": 2}})
    first.finish({"loss": 3})
    again = Cache(tmp_path).artefact("model", {"sizes": {"steps": 2}, "lr": 1})
    assert again.complete
    assert (again.path, again.results) == (first.path, {"loss": 3})
    other = Cache(tmp_path).artefact("model", {"lr": 1, "sizes": {"steps": 4}})
    assert not other.complete
    assert Cache(tmp_path).why_not("model", other) == "its model was made with sizes.steps = 2, not 4"
    assert Cache(tmp_path).why_not("play", other) == ""


def test_an_artefact_is_found_under_its_link_once_there_is_one(tmp_path: Path) -> None:
    stage = Cache(tmp_path / "cache").artefact("model", {"lr": 1}, link=tmp_path / "run/artefacts/seed0/model")
    assert not (tmp_path / "run").exists()
    (stage.folder / "weights").write_text("one")
    assert (tmp_path / "run/artefacts/seed0/model/weights").read_text() == "one"
    assert not Path(os.readlink(tmp_path / "run/artefacts/seed0/model")).is_absolute()
    # what is left of a cache that was deleted is no reason to fail
    shutil.rmtree(tmp_path / "cache")
    again = Cache(tmp_path / "cache").artefact("model", {"lr": 1}, link=tmp_path / "run/artefacts/seed0/model")
    assert (again.folder, list(again.path.glob("weights"))) == (again.path, [])


def test_two_objects_of_one_stage_count_its_time_once(tmp_path: Path) -> None:
    first = Artefact(tmp_path / "a", made_by={})
    assert first.folder == tmp_path / "a"
    time.sleep(0.2)
    second = Artefact(tmp_path / "a", made_by={})
    assert second.folder == tmp_path / "a"
    second.finish({})
    assert 0.2 <= read_json(tmp_path / "a" / "manifest.json")["seconds"] < 0.35


def test_what_another_process_has_finished_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    slow = Artefact(tmp_path / "a", made_by={})
    Artefact(tmp_path / "a", made_by={}).finish({"by": "the other"})
    slow.finish({"by": "me"})
    assert slow.results == {"by": "the other"}


def test_a_cached_artefact_that_has_more_settings_is_no_reason_to_fail(tmp_path: Path) -> None:
    Cache(tmp_path).artefact("play", {"lr": 1, "stress": {"x": 1}}).finish({})
    wanted = Cache(tmp_path).artefact("play", {"lr": 1, "stress": {}})
    assert Cache(tmp_path).why_not("play", wanted) == "its play was made with stress.x = 1, not not set"


def test_links_into_a_shared_cache_stay_right_when_the_run_is_moved(tmp_path: Path) -> None:
    link = tmp_path / "runs/one/artefacts/play"
    stage = Cache(tmp_path / "shared", shared=True).artefact("play", {"lr": 1}, link=link)
    (stage.folder / "frames").write_text("x")
    (tmp_path / "runs/one").rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/artefacts/play/frames").read_text() == "x"


def test_a_stage_that_was_interrupted_has_taken_the_time_of_all_its_sessions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for taken in (100, 20, 0):
        # saved after so many seconds, and killed
        folder = Artefact(path, made_by={}).folder
        (folder / "parts").mkdir(exist_ok=True)
        began = 1e9
        for name, at in (("sessions.json", began), ("made_by.json", began - 50), ("parts/checkpoint", began + taken)):
            (folder / name).touch()
            os.utime(folder / name, (at, at))
        # as when a process ends
        artefact._held.pop(path.resolve()).lock.release()
    stage = Artefact(path, made_by={})
    assert stage.folder == stage.folder
    stage.finish({})
    assert read_json(path / "manifest.json")["seconds"] == pytest.approx(120, abs=5)
    assert {file.name for file in path.iterdir()} == {"made_by.json", "manifest.json", "parts"}
    # and a look at what is finished leaves it as it is
    assert Artefact(path, made_by={}).folder == path
    assert not (path / "sessions.json").exists()


def test_a_finished_stage_says_what_has_changed_in_it(tmp_path: Path) -> None:
    artefact = Artefact(tmp_path / "a", made_by={"x": 1})
    for name in ("one", "two/three", "four"):
        (artefact.folder / name).parent.mkdir(exist_ok=True)
        (artefact.folder / name).write_text(name)
    artefact.finish({})
    assert artefact.damage() == []
    (tmp_path / "a/one").write_text("eno")
    (tmp_path / "a/two/three").unlink()
    (tmp_path / "a/four").write_text("more than four")
    said = artefact.damage()
    assert len(said) == 3
    assert all(
        any(word in line for line in said) for word in ("one has changed", "three is missing", "14 bytes, not 4")
    )


def test_names_in_a_manifest_that_lead_out_of_its_folder_are_not_opened(tmp_path: Path) -> None:
    artefact = Artefact(tmp_path / "a", made_by={"x": 1})
    _ = artefact.folder
    artefact.finish({})
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    for name in ("../../x", "/dev/zero"):
        write_json(tmp_path / "a/manifest.json", manifest | {"files": {name: {"bytes": 1, "sha256": ""}}})
        assert [line.endswith("is missing") for line in artefact.damage()] == [True]

"""Actions of play that nobody recorded, named by the world model of an earlier study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_study import finished_run

from experiments.stages.play import open_play, training_play
from experiments.study.resolve import check_resolved, resolve
from experiments.study.run import Run
from experiments.study.settings import load_study
from worldaction.errors import UserError
from worldaction.spec import ACTION, ACTION_MASK

MODEL = "artefacts/seed0/world_model"


def run(*, hidden: float, named_by: str | None, folder: Path | None = None) -> Run:
    """A study of the finished run's play, or in another folder; nothing is written."""
    study = load_study(finished_run())
    model = replace(study.world_model, named_by=named_by)
    stress = replace(study.stress, hidden_actions=hidden)
    return Run(replace(study, stress=stress, world_model=model), folder or finished_run())


def test_hidden_actions_are_named_and_count_as_known() -> None:
    naming = run(hidden=1.0, named_by=str(finished_run() / MODEL))
    hidden, named = open_play(naming), training_play(naming)
    before, after = hidden.frames[ACTION_MASK], named.frames[ACTION_MASK]
    episodes = [e for e in hidden.episodes if not before[e.start]]
    assert episodes
    for episode in episodes:
        assert after[episode.start : episode.stop - 1].all()
        assert not after[episode.stop - 1]
    gained = after & ~before
    # one command for all of them would be no name
    assert named.frames[ACTION][gained].std(0)[:6].min() > 0.0
    assert torch.equal(named.frames[ACTION][before], hidden.frames[ACTION][before])


def test_naming_remakes_the_world_model_and_its_absence_does_not(tmp_path: Path) -> None:
    plain = run(hidden=0.5, named_by=None, folder=tmp_path)
    named = run(hidden=0.5, named_by=str(finished_run() / MODEL), folder=tmp_path)
    assert plain.play().digest == named.play().digest
    assert plain.world_model(0).digest != named.world_model(0).digest
    assert plain.world_model(0).made_by["world_model"]["named_by"] is None


def test_what_cannot_name_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    study = run(hidden=0.5, named_by=str(tmp_path)).study
    known = resolve(study)
    with pytest.raises(UserError, match=r"config\.json"):
        check_resolved(study, known)
    with pytest.raises(UserError, match="all actions of this play are known; leave it out"):
        training_play(run(hidden=0.0, named_by=str(finished_run() / MODEL)))

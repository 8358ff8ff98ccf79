"""Probes read everything off an oracle, nothing off noise, and what the layout names."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from metrics_world import Believer, noise, oracle, play, rolls

from worldaction.metrics.state_probes import probed, state_probes
from worldaction.spec import CALVIN, ROBOT, SCENE, SCENE_FIELDS

BANDS = ["seen", "imagined_8", "imagined_late"]


def test_an_oracle_scores_one() -> None:
    frames = play()
    found = state_probes(rolls(frames, oracle(frames)))
    assert list(found) == BANDS
    for scores in found.values():
        assert {"r2_slider", "r2_drawer", "r2_switch", "auroc_lightbulb", "auroc_led"} == scores.keys()
        assert all(score == pytest.approx(1.0, abs=1e-3) for score in scores.values())


def test_shuffled_latents_explain_nothing() -> None:
    frames = play()
    shuffled = oracle(frames)[torch.randperm(len(frames), generator=torch.Generator().manual_seed(3))]
    for scores in state_probes(rolls(frames, shuffled)).values():
        assert all(scores[f"r2_{part}"] <= 0.05 for part in ("slider", "drawer", "switch"))
        assert all(scores[f"auroc_{light}"] == pytest.approx(0.5, abs=0.2) for light in ("lightbulb", "led"))


def test_only_what_is_imagined_suffers_from_wrong_imagination() -> None:
    frames = play()
    good = oracle(frames)
    found = state_probes(rolls(frames, good, imagined=noise(frames)))
    assert found["seen"]["r2_drawer"] == pytest.approx(1.0, abs=1e-3)
    assert found["imagined_8"]["r2_drawer"] < 0.5


def test_a_wrong_scale_is_caught() -> None:
    frames = play()
    good = oracle(frames)
    found = state_probes(rolls(frames, good, imagined=3.0 * good))
    assert found["imagined_late"]["r2_drawer"] < 0.5


def test_a_joint_that_moves_by_no_more_than_rounding_has_no_score() -> None:
    frames = play()
    latents = oracle(frames)
    frames[SCENE][:, SCENE_FIELDS["slider"]] = 0.28 + 1e-8 * torch.arange(len(frames))
    for scores in state_probes(rolls(frames, latents)).values():
        assert math.isnan(scores["r2_slider"])
        assert scores["r2_drawer"] == pytest.approx(1.0, abs=1e-3)


def test_a_number_that_never_changes_takes_no_part_in_a_mean_over_numbers() -> None:
    frames = play()
    latents = oracle(frames)
    frames[ROBOT][:, 0] = 1.0
    scores = state_probes(rolls(frames, latents, model=Believer(replace(CALVIN, scene=0))))
    assert scores["seen"]["r2"] == pytest.approx(1.0, abs=1e-3)


def test_what_is_probed_depends_on_the_layout() -> None:
    assert probed(CALVIN) == SCENE
    # one number of scene is success, which is rarer than a body
    assert probed(replace(CALVIN, scene=1)) == ROBOT
    assert probed(replace(CALVIN, scene=1, robot=0)) == SCENE
    assert probed(replace(CALVIN, scene=0, robot=0)) == ""
    frames = play()
    scores = state_probes(rolls(frames, oracle(frames), model=Believer(replace(CALVIN, scene=0))))
    assert scores["seen"]["r2"] == pytest.approx(1.0, abs=1e-3)
    assert state_probes(rolls(frames, oracle(frames), model=Believer(replace(CALVIN, scene=0, robot=0)))) == {}

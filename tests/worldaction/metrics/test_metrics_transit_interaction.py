"""Frames are apart as one would sort them by hand, and errors go where they were made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from metrics_world import CONTEXT, EPISODES, HORIZON, LENGTH, Believer, decoder, oracle, play, rolls
from tensordict import TensorDict
from torch import Tensor

from worldaction.metrics.transit_interaction import REACH, moving, near, transit_interaction
from worldaction.spec import CALVIN, ROBOT, SCENE, SCENE_FIELDS

ONE = torch.zeros(12, dtype=torch.int64)


def quiet(frames: TensorDict) -> TensorDict:
    """The same play with a scene that stands still in each episode of the second half, which is measured."""
    frames = frames.clone()
    scene = frames[SCENE].unflatten(0, (EPISODES, LENGTH))
    scene[EPISODES // 2 :] = scene[EPISODES // 2 :, :1].clone()
    return frames


def numbers(mask: Tensor) -> list[int]:
    return mask.nonzero()[:, 0].tolist()


def test_a_change_belongs_to_the_frames_on_both_sides() -> None:
    scene = torch.tensor([0.0] * 5 + [1.0] * 7)[:, None]
    assert numbers(moving(scene, ONE, still=torch.tensor([0.5]))[:, 0]) == [4, 5]
    assert numbers(moving(scene, ONE, still=torch.tensor([1.0]))[:, 0]) == []


def test_nothing_moves_from_one_episode_to_the_next() -> None:
    scene, episode = torch.tensor([0.0] * 5 + [1.0] * 7)[:, None], (torch.arange(12) >= 5).long()
    assert not moving(scene, episode, still=torch.tensor([0.5])).any()


def test_near_reaches_both_ways_and_stays_in_the_episode() -> None:
    event = torch.zeros(12, dtype=torch.bool)
    event[5] = True
    assert numbers(near(event, ONE, reach=0)) == [5]
    assert numbers(near(event, ONE, reach=2)) == [3, 4, 5, 6, 7]
    assert numbers(near(event, ONE, reach=100)) == list(range(12))
    assert numbers(near(event, (torch.arange(12) >= 5).long(), reach=2)) == [5, 6, 7]
    event[4] = True
    assert numbers(near(event[:, None].expand(-1, 2), ONE, reach=1)[:, 1]) == [3, 4, 5, 6]


def test_an_error_made_while_the_drawer_moves_is_one_of_interaction() -> None:
    frames = quiet(play())
    # in the second half, each episode's drawer jumps once, between frames 20 and 21
    jump = (EPISODES // 2 + torch.arange(EPISODES // 2))[:, None] * LENGTH + torch.arange(21, LENGTH)
    frames[SCENE][jump.flatten(), SCENE_FIELDS["drawer"]] += 0.1
    believed = torch.cat([oracle(frames), frames[ROBOT]], -1)
    imagined = believed.clone()
    inside = (torch.arange(len(frames)) % LENGTH).sub(20.5).abs() < REACH + 1
    imagined[inside, 39] += 0.02
    losses = decoder(lambda feature: torch.nn.functional.pad(feature[..., 39:42], (0, 15)))
    found = transit_interaction(rolls(frames, believed, imagined=imagined, model=Believer(losses=losses)))
    around = 2 * (REACH + 1)
    assert found["interaction"]["share"] == pytest.approx(around / (CONTEXT + HORIZON))
    assert found["transit"]["share"] == pytest.approx(1 - around / (CONTEXT + HORIZON))
    assert found["interaction"]["imagined_late"]["tcp"] == pytest.approx(20.0, rel=1e-3)
    assert found["transit"]["imagined_late"]["tcp"] == pytest.approx(0.0, abs=1e-3)
    # the slider did not move: it has no error of interaction, and the drawer has
    assert "slider" not in found["interaction"]["imagined_late"]
    assert "slider" in found["transit"]["imagined_late"]
    assert found["interaction"]["imagined_late"]["drawer"] < 1.0


def test_errors_of_parts_are_in_millimetres_and_of_lights_in_shares() -> None:
    frames = play()
    good = oracle(frames)
    wrong = good.clone()
    slider, lamp = 15 + SCENE_FIELDS["slider"], 15 + SCENE_FIELDS["led"]
    state = torch.cat([frames[ROBOT], frames[SCENE]], -1)
    wrong[:, slider] += 1000 * 0.05 / state[:, slider].std()
    wrong[:, lamp] = -wrong[:, lamp]
    found = transit_interaction(rolls(frames, good, imagined=wrong))["interaction"]
    assert found["seen"]["slider"] < 0.5
    assert found["imagined_8"]["slider"] == pytest.approx(50.0, rel=0.01)
    assert found["seen"]["led"] == 0.0
    assert found["imagined_8"]["led"] == 1.0
    assert found["imagined_8"]["lightbulb"] == 0.0


def test_a_block_that_is_pushed_is_neither_and_its_turning_angle_nothing() -> None:
    frames = quiet(play())
    turns = torch.arange(len(frames)) % 2
    # from -pi to pi
    frames[SCENE][:, 9] = torch.where(turns > 0, 3.14, -3.14)
    assert transit_interaction(rolls(frames, oracle(frames)))["transit"]["share"] == 1.0
    frames[SCENE][:, 6] = turns / 10
    found = transit_interaction(rolls(frames, oracle(frames)))
    assert found["transit"] == {"share": 0.0, "seen": {}, "imagined_8": {}, "imagined_late": {}}
    assert found["interaction"]["share"] == 0.0


def test_a_scene_without_names_is_measured_as_one_part() -> None:
    frames = quiet(play())
    frames[SCENE] = frames[SCENE][:, :5].clone()
    half = torch.arange(len(frames)) % LENGTH >= LENGTH // 2
    frames[SCENE][half, 2] += 1.0
    found = transit_interaction(rolls(frames, oracle(frames), model=Believer(replace(CALVIN, scene=5, robot=7))))
    assert found["interaction"]["seen"].keys() == {"state"}
    assert found["interaction"]["share"] > 0
    assert found["interaction"]["share"] + found["transit"]["share"] == pytest.approx(1.0)
    assert found["transit"]["seen"]["state"] < 0.01


def test_data_without_a_scene_are_skipped_with_a_reason() -> None:
    frames = play()
    found = transit_interaction(rolls(frames, oracle(frames), model=Believer(replace(CALVIN, scene=1))))
    assert "privileged state" in found["skipped"]

"""Resets to recorded states, with CALVIN's semantics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.playtable.env import PlayTableEnv
from envs.playtable.ik import kinematics
from envs.playtable.rotation import to_euler
from envs.playtable.scenes import SCENES
from envs.playtable.tools.replay import CARRIED, Recording, load_recording
from worldaction.errors import UserError
from worldaction.spec import NULL_ACTION, ROBOT_FIELDS, SCENE_FIELDS


@pytest.fixture(scope="module")
def blind() -> PlayTableEnv:
    """A table without cameras."""
    return PlayTableEnv(cameras=False)


@pytest.fixture(scope="module")
def recording() -> Recording:
    """States of the real simulator."""
    return load_recording(CARRIED / "calvin_D.npz")


def recorded(recording: Recording, frame: int) -> dict[str, Any]:
    """Options that ask for a frame."""
    robot, scene = recording.robot_obs[frame].astype(float), recording.scene_obs[frame].astype(float)
    return {"robot_obs": robot, "scene_obs": scene}


def test_a_recorded_state_comes_back_as_it_was(blind: PlayTableEnv, recording: Recording) -> None:
    for frame in range(0, len(recording), 97):
        state = recorded(recording, frame)
        blind.reset(seed=0, options=state)
        robot, scene = blind.robot_obs(), blind.scene_obs()
        np.testing.assert_allclose(robot[6:], state["robot_obs"][6:], atol=1e-6)
        # the TCP follows from the joints; what was recorded is 1/240 s older
        np.testing.assert_allclose(robot[:3], state["robot_obs"][:3], atol=3e-3)
        np.testing.assert_allclose(scene[:6], state["scene_obs"][:6], atol=1e-9)
        poses, expected = scene[6:].reshape(3, 6), state["scene_obs"][6:].reshape(3, 6)
        np.testing.assert_allclose(poses[:, :3], expected[:, :3], atol=1e-6)
        np.testing.assert_allclose(np.exp(1j * poses[:, 3:]), np.exp(1j * expected[:, 3:]), atol=1e-5)


def test_joints_and_width_decide_where_the_hand_is_and_the_target_is_set_to_it(
    blind: PlayTableEnv, recording: Recording
) -> None:
    state = recorded(recording, 50)
    expected, turned = kinematics().forward(state["robot_obs"][ROBOT_FIELDS["joints"]])
    state["robot_obs"][:6] = 7.0
    blind.reset(seed=0, options=state)
    np.testing.assert_allclose(blind.tcp_position, expected, atol=1e-9)
    np.testing.assert_allclose(blind.target_position, expected, atol=1e-9)
    np.testing.assert_allclose(blind.target_euler, to_euler(turned), atol=1e-6)


def test_either_of_the_two_may_be_left_to_be_drawn(blind: PlayTableEnv, recording: Recording) -> None:
    state = recorded(recording, 20)
    drawn = blind.reset(seed=4)[0]
    robot = blind.reset(seed=4, options={"robot_obs": state["robot_obs"]})[0]
    scene = blind.reset(seed=4, options={"scene_obs": state["scene_obs"]})[0]
    np.testing.assert_array_equal(robot["scene_obs"], drawn["scene_obs"])
    np.testing.assert_array_equal(scene["robot_obs"], drawn["robot_obs"])
    np.testing.assert_allclose(robot["robot_obs"][7:14], state["robot_obs"][7:14], atol=1e-6)


def test_an_episode_from_a_recorded_state_depends_on_the_state_alone(blind: PlayTableEnv, recording: Recording) -> None:
    ends = []
    for before in (0, 12):
        blind.reset(seed=before)
        for _ in range(before):
            blind.step([0, 0, -1, 0, 0, 0, -1])
        blind.reset(seed=before, options=recorded(recording, 30))
        for _ in range(10):
            blind.step([0.3, 0.1, -0.2, 0, 0, 0.5, -1])
        ends.append(np.concatenate([blind.robot_obs(), blind.scene_obs()]))
    np.testing.assert_array_equal(ends[0], ends[1])


@pytest.mark.parametrize(("switch", "bulb", "after"), [(0.088, 0, 1), (0.0, 1, 1), (0.0, 0, 0), (0.088, 1, 1)])
def test_a_bulb_that_contradicts_its_switch_does_what_calvins_does(
    blind: PlayTableEnv, recording: Recording, switch: float, bulb: int, after: int
) -> None:
    state = recorded(recording, 0)
    state["scene_obs"][[SCENE_FIELDS["switch"], SCENE_FIELDS["lightbulb"]]] = switch, bulb
    assert blind.reset(seed=0, options=state)[0]["scene_obs"][SCENE_FIELDS["lightbulb"]] == bulb
    assert blind.step(NULL_ACTION)[0]["scene_obs"][SCENE_FIELDS["lightbulb"]] == after


def test_a_button_that_is_down_at_the_start_was_not_pressed_just_now(blind: PlayTableEnv, recording: Recording) -> None:
    state = recorded(recording, 0)
    state["scene_obs"][SCENE_FIELDS["button"]] = 0.019
    led = state["scene_obs"][SCENE_FIELDS["led"]]
    blind.reset(seed=0, options=state)
    for _ in range(5):
        assert blind.step(NULL_ACTION)[0]["scene_obs"][SCENE_FIELDS["led"]] == led


@pytest.mark.parametrize("name", SCENES)
def test_blocks_are_those_of_the_scene_in_its_order(name: str) -> None:
    table = PlayTableEnv(cameras=False, scene=name)
    scene = np.zeros(24)
    for place, x in enumerate((0.0, 0.12, 0.24)):
        scene[6 + 6 * place : 9 + 6 * place] = x, -0.1, 0.46
    table.reset(seed=0, options={"scene_obs": scene})
    for (block, _), x in zip(table.scene.blocks, (0.0, 0.12, 0.24), strict=True):
        assert table.data.body(block).xpos[0] == pytest.approx(x)


@pytest.mark.parametrize(
    ("key", "place", "value", "message"),
    [
        ("scene_obs", 4, 0.5, "exactly 0 or 1"),
        ("scene_obs", 5, 2.0, "led"),
        ("scene_obs", 0, 0.4, "slider"),
        ("scene_obs", 1, np.nan, "24 finite numbers"),
        ("scene_obs", 6, 40.0, "40.0 m away"),
        ("robot_obs", 14, 0.0, "give -1 or 1"),
        ("robot_obs", 6, 0.2, r"robot_obs\[6\]"),
        ("robot_obs", 7, 3.5, r"robot_obs\[7\]"),
        ("robot_obs", 3, np.inf, "15 finite numbers"),
    ],
)
def test_a_state_that_cannot_be_is_refused_by_name(
    blind: PlayTableEnv, recording: Recording, key: str, place: int, value: float, message: str
) -> None:
    state = recorded(recording, 0)
    state[key][place] = value
    with pytest.raises(UserError, match=message):
        blind.reset(seed=0, options=state)


@pytest.mark.parametrize("values", [np.zeros(14), np.zeros((1, 15)), "home", [None] * 15])
def test_a_state_of_another_shape_is_refused(blind: PlayTableEnv, values: Any) -> None:
    with pytest.raises(UserError, match="robot_obs"):
        blind.reset(seed=0, options={"robot_obs": values})

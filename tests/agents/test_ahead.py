"""Actions ahead of their frames are those of a policy that was asked one frame earlier, wherever a chunk begins."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
import pytest
import torch
from test_policy import CHUNK, FRAMES, ROBOT, episodes, frame, make
from test_server import BAD, asked, connected, scaled, started, wait_for

from agents import server as module
from agents.ahead import Ahead, AheadPolicy
from agents.policy import Policy
from agents.rehearsal import rehearse
from agents.server import PolicyServer
from worldaction.errors import UserError
from worldaction.random import Stream, normal

STREAM = episodes(1)


def ahead(policy: Policy, frames: int = FRAMES) -> tuple[np.ndarray, list[Ahead]]:
    """Answers to an episode, [T, A], and where it was after each."""
    policy.reset(seed=0)
    acts, at, answers, found = AheadPolicy(policy), None, [], []
    for t in range(frames):
        action, at = acts.predict(frame(STREAM, t, 0), at)
        at = acts.look_ahead(at)
        answers.append(action)
        found.append(at)
    return np.stack(answers), found


def test_a_chunk_is_what_the_head_says_of_the_latent_one_frame_before_it() -> None:
    policy = make()
    answers, at = ahead(policy)
    assert FRAMES > 2 * CHUNK
    for first in range(CHUNK, FRAMES, CHUNK):
        # the latent that has seen all frames before this one, and none after
        state = at[first - 1].state
        steps, width = policy.actor.noise_shape
        noise = normal(policy.seed, Stream.POLICY, state.name, first, steps * width).view(1, steps, width)
        chunk = policy.actor.sample(policy.model.feature(state.latent), noise)[0].numpy()
        assert np.array_equal(answers[first : first + CHUNK], chunk[: len(answers) - first])


def test_the_latent_takes_in_every_frame_with_the_action_that_was_answered() -> None:
    policy = make()
    answers, at = ahead(policy)
    rng = torch.tensor([int(at[0].state.name)])
    state = None
    for t in range(FRAMES):
        observed = {key: torch.from_numpy(value[t]) for key, value in STREAM.items()}
        _, state = policy.act(observed, state, start=torch.tensor([t == 0]), rows=rng)
        assert torch.equal(state.latent.belief, at[t].state.latent.belief)
        assert torch.equal(state.latent.code, at[t].state.latent.code)
        state.action = torch.from_numpy(answers[t])[None]


def test_until_its_second_chunk_an_episode_is_that_of_the_policy_itself() -> None:
    answers, _ = ahead(make())
    policy = make()
    policy.reset(seed=0)
    expected = np.stack([policy.select_action(frame(STREAM, t, 0)) for t in range(FRAMES)])
    assert np.array_equal(answers[:CHUNK], expected[:CHUNK])
    assert not np.array_equal(answers[CHUNK:], expected[CHUNK:])


def test_what_comes_in_a_frame_is_not_known_to_its_answer_and_is_to_the_next_decision() -> None:
    policy, last = make(), 2 * CHUNK - 1
    changed = {key: value.copy() for key, value in STREAM.items()}
    changed[ROBOT][CHUNK] += 5.0
    before, _ = ahead(policy)
    acts, at, answers = AheadPolicy(policy), None, []
    policy.reset(seed=0)
    for t in range(FRAMES):
        action, at = acts.predict(frame(changed, t, 0), at)
        at = acts.look_ahead(at)
        answers.append(action)
    assert np.array_equal(np.stack(answers)[: last + 1], before[: last + 1])
    assert not np.array_equal(np.stack(answers)[last + 1 :], before[last + 1 :])


def test_a_policy_that_nobody_asks_ahead_is_as_it_was() -> None:
    policy = make()
    policy.reset(seed=0)
    expected = [policy.select_action(frame(STREAM, t, 0)) for t in range(FRAMES)]
    # looking and not following is no difference to the episode that goes on without it
    policy.reset(seed=0)
    state, answers = None, []
    for t in range(FRAMES):
        action, state = policy.predict(frame(STREAM, t, 0), state)
        policy.look_ahead(state)
        answers.append(action)
    assert np.array_equal(np.stack(answers), np.stack(expected))


def test_a_frame_that_is_none_changes_nothing_and_one_that_overflows_ends_the_episode() -> None:
    policy = make()
    policy.model.proprio_std.fill_(0.1)
    expected, _ = ahead(policy)
    policy.reset(seed=0)
    acts = AheadPolicy(policy)
    _, at = acts.predict(frame(STREAM, 0, 0), None)
    at = acts.look_ahead(at)
    good = frame(STREAM, 1, 0)
    nan = good | {ROBOT: np.full_like(good[ROBOT], np.nan)}
    for bad in ({ROBOT: good[ROBOT]}, good | {ROBOT: good[ROBOT][:3]}, frame(STREAM, 1), nan):
        with pytest.raises(UserError):
            acts.predict(bad, at)
    action, at = acts.predict(frame(STREAM, 1, 0), at)
    assert np.array_equal(action, expected[1])
    at = acts.look_ahead(at)
    spoilt = frame(STREAM, 2, 0) | {ROBOT: np.full_like(STREAM[ROBOT][2, 0], 3e38)}
    action, at = acts.predict(spoilt, at)
    assert np.array_equal(action, expected[2])
    at = acts.look_ahead(acts.look_ahead(at))
    with pytest.raises(UserError, match=r'holds NaN.*has been answered, so begin another episode, by "reset": true'):
        acts.predict(frame(STREAM, 3, 0), at)
    acts.predict(frame(STREAM, 3, 0), None)


# Served ---------------------------------------------------------------------------------------------------------------


def test_a_server_that_looks_ahead_answers_so_and_its_log_has_both_times(caplog: pytest.LogCaptureFixture) -> None:
    expected, _ = ahead(scaled())
    with (
        caplog.at_level(logging.INFO, "worldaction"),
        started(PolicyServer(scaled(), port=0, ahead=True)) as server,
    ):
        for _ in range(2):
            server._policy.reset(seed=0)
            with connected(server) as connection:
                connection.recv(timeout=20)
                answers = [asked(connection, frame(STREAM, t, 0))["action"] for t in range(FRAMES)]
            assert np.array_equal(np.stack([module._as_array(one) for one in answers]), expected)
        wait_for(caplog, "computed ahead, after an answer: ")
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_cannot_be_used_changes_nothing_ahead_either(name: str) -> None:
    message, said = BAD[name]
    expected, _ = ahead(scaled())
    with started(PolicyServer(scaled(), port=0, ahead=True)) as server, connected(server) as connection:
        server._policy.reset(seed=0)
        connection.recv(timeout=20)
        for t in range(FRAMES):
            assert np.array_equal(module._as_array(asked(connection, frame(STREAM, t, 0))["action"]), expected[t])
            connection.send(message)
            answer: Any = module.PolicyServer._unpacked(server, connection.recv(timeout=20))
            assert answer.keys() == {"error"}
            assert re.search(said, answer["error"])


def test_a_frame_that_begins_an_episode_is_waited_for() -> None:
    policy = scaled()
    policy.reset(seed=0)
    first = frame(STREAM, 0, 0)
    expected = [policy.predict(first)[0] for _ in range(3)]
    with started(PolicyServer(scaled(), port=0, ahead=True)) as server, connected(server) as connection:
        server._policy.reset(seed=0)
        connection.recv(timeout=20)
        for one in expected:
            answer = asked(connection, first | {"reset": True})
            assert np.array_equal(module._as_array(answer["action"]), one)


def test_a_policy_that_holds_still_cannot_look_ahead() -> None:
    policy = make()
    policy.unusable_frames = "hold"
    with pytest.raises(UserError, match="cannot hold still"):
        AheadPolicy(policy)


@pytest.mark.parametrize("looks", [False, True])
def test_a_rehearsal_tells_how_long_actions_take_at_the_robot_s_rate(looks: bool) -> None:
    policy = scaled()
    with started(PolicyServer(policy, port=0, ahead=looks)) as server:
        came = rehearse(server, policy, seconds=0.5)
    assert (len(came.seconds), came.rate) == (15, 30.0)
    assert 0 < came.seconds.min() < 20
    assert re.fullmatch(
        r"15 frames at 30 Hz: action after \S+ ms \(median\), \S+ \(99 %\), \S+ \(slowest\); \d+ came after the next"
        r" frame; CPU time \S+ ms a frame",
        str(came),
    )

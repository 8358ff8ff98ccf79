"""A served policy acts as the policy itself, a connection is an episode, and nobody's message ends the server."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_policy import FRAMES, GRIPPER, ROBOT, STATIC, episodes, frame, make

from agents import server as module
from agents.policy import Policy
from agents.server import PolicyServer
from worldaction.errors import UserError
from worldaction.interface import ActionScale, RobotInterface
from worldaction.spec import ACTION_SIZE

msgpack = pytest.importorskip("msgpack", reason="serving needs worldaction[serve]")
client = pytest.importorskip("websockets.sync.client", reason="serving needs worldaction[serve]")

SCALE = ActionScale((-100.0,) * ACTION_SIZE, (100.0,) * ACTION_SIZE)


def scaled() -> Policy:
    """A policy whose robot acts in +-100."""
    made = make()
    return Policy(made.model, made.actor, task="open_drawer", interface=RobotInterface(rate=30.0, scale=SCALE))


def started(server: PolicyServer) -> PolicyServer:
    threading.Thread(target=server.run, daemon=True).start()
    return server


@pytest.fixture
def served() -> Iterator[PolicyServer]:
    with started(PolicyServer(scaled(), port=0)) as server:
        yield server


def connected(server: PolicyServer, **options: Any) -> Any:
    return client.connect(f"ws://127.0.0.1:{server.port}", **options)


def packed(values: Any) -> bytes:
    return msgpack.packb(values, default=module.as_map)


def asked(connection: Any, values: Any) -> Any:
    connection.send(packed(values))
    return msgpack.unpackb(connection.recv(timeout=20))


def actions(connection: Any, stream: dict[str, np.ndarray]) -> np.ndarray:
    answers = [asked(connection, frame(stream, t, 0)) for t in range(FRAMES)]
    assert all(0 < answer["seconds"] < 20 for answer in answers)
    return np.stack([module._as_array(answer["action"]) for answer in answers])


def test_a_served_policy_acts_as_the_policy_itself_and_a_new_connection_is_a_new_episode(
    served: PolicyServer, caplog: pytest.LogCaptureFixture
) -> None:
    stream, policy = episodes(1), scaled()
    expected = []
    for _ in range(2):
        policy.reset()
        expected.append(np.stack([policy.select_action(frame(stream, t, 0)) for t in range(FRAMES)]))
    assert np.abs(expected).max() > 1
    with caplog.at_level(logging.INFO, "worldaction"):
        for one in expected:
            with connected(served) as connection:
                connection.recv(timeout=20)
                assert np.array_equal(actions(connection, stream), one)
            wait_for(caplog, f"{FRAMES} actions: time to action")


def wait_for(caplog: pytest.LogCaptureFixture, text: str) -> None:
    for _ in range(200):
        if text in caplog.text:
            caplog.clear()
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"{text!r} is not in the log: {caplog.text}")


def test_a_frame_can_say_that_it_begins_an_episode(served: PolicyServer) -> None:
    stream, policy = episodes(1), scaled()
    first = frame(stream, 0, 0)
    expected = [policy.predict(first)[0] for _ in range(3)]
    with connected(served) as connection:
        connection.recv(timeout=20)
        for one in expected:
            answer = asked(connection, first | {"reset": True})
            assert np.array_equal(module._as_array(answer["action"]), one)


def test_two_robots_at_once_have_an_episode_each(served: PolicyServer) -> None:
    stream, policy = episodes(1), scaled()
    states: list[Any] = [None, None]
    with connected(served) as one, connected(served) as other:
        for connection in (one, other):
            connection.recv(timeout=20)
        for t in range(FRAMES):
            for number, connection in enumerate((one, other)):
                expected, states[number] = policy.predict(frame(stream, t, 0), states[number])
                answer = asked(connection, frame(stream, t, 0))
                assert np.array_equal(module._as_array(answer["action"]), expected)


def test_the_greeting_says_what_a_robot_has_to_know(served: PolicyServer) -> None:
    with connected(served) as connection:
        about = msgpack.unpackb(connection.recv(timeout=20))
    assert about == served._policy.describe()
    assert (about["task"], about["rate"], about["action"]) == ("open_drawer", 30.0, ACTION_SIZE)
    assert about["low"] == [-100.0] * ACTION_SIZE
    assert about["null_action"] == [0.0] * 6 + [100.0]


GOOD = frame(episodes(1), 0, 0)
BAD: dict[str, tuple[Any, str]] = {
    "text": ("hello", "no msgpack map"),
    "bytes": (b"\xc1\xc1", "cannot be used"),
    "a list": (packed([1, 2]), "no msgpack map"),
    "no camera": (packed({ROBOT: GOOD[ROBOT], GRIPPER: GOOD[GRIPPER]}), "no 'rgb_static'"),
    "short data": (
        packed(GOOD | {STATIC: {"shape": [16, 16, 3], "dtype": "|u1", "data": b"12"}}),
        "cannot be used",
    ),
    "objects": (packed(GOOD | {STATIC: {"shape": [1], "dtype": "O", "data": b"12345678"}}), "holds no numbers"),
    "small pictures": (packed(GOOD | {STATIC: GOOD[STATIC][:4]}), "give larger pictures"),
    "other numbers": (packed(GOOD | {ROBOT: GOOD[ROBOT][:3]}), "give .*15"),
    "NaN": (packed(GOOD | {ROBOT: np.full_like(GOOD[ROBOT], np.nan)}), "holds NaN"),
    "words": (packed(GOOD | {ROBOT: "here"}), "no array of numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_cannot_be_used_is_answered_and_changes_nothing(served: PolicyServer, name: str) -> None:
    message, said = BAD[name]
    stream, policy = episodes(1), scaled()
    expected = [policy.select_action(frame(stream, t, 0)) for t in range(2)]
    with connected(served) as connection:
        connection.recv(timeout=20)
        assert np.array_equal(module._as_array(asked(connection, frame(stream, 0, 0))["action"]), expected[0])
        connection.send(message)
        answer = msgpack.unpackb(connection.recv(timeout=20))
        assert answer.keys() == {"error"}
        assert re.search(said, answer["error"])
        assert np.array_equal(module._as_array(asked(connection, frame(stream, 1, 0))["action"]), expected[1])


def test_a_lost_robot_and_a_message_too_long_end_their_connection_alone(
    served: PolicyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = connected(served)
    lost.recv(timeout=20)
    lost.socket.close()
    with connected(served) as connection:
        connection.recv(timeout=20)
        connection.send(bytes(module.LARGEST + 1))
        with pytest.raises(Exception, match=r"1009|closed"):
            connection.recv(timeout=20)
    with connected(served) as connection:
        connection.recv(timeout=20)
        assert "action" in asked(connection, GOOD)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_server_that_is_closed_drives_no_robot_on(*, ahead: bool) -> None:
    server = started(PolicyServer(scaled(), port=0, ahead=ahead))
    with connected(server) as connection:
        connection.recv(timeout=20)
        assert "action" in asked(connection, GOOD)
        server.close()
        with pytest.raises(Exception, match=r"1001|1000|closed|close frame"):
            asked(connection, GOOD)


def test_where_others_can_reach_it_a_token_is_needed_and_asked_for() -> None:
    with pytest.raises(UserError, match=r"--host 0\.0\.0\.0: others can reach it, so give --token"):
        PolicyServer(scaled(), host="0.0.0.0", port=0)
    with started(PolicyServer(scaled(), host="0.0.0.0", port=0, token="secret")) as server:
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "secret"}):
            with pytest.raises(Exception, match="401"):
                connected(server, additional_headers=headers)
        with connected(server, additional_headers={"Authorization": "Bearer secret"}) as connection:
            connection.recv(timeout=20)
            assert "action" in asked(connection, GOOD)


def test_a_page_in_a_browser_cannot_drive_the_robot(served: PolicyServer) -> None:
    with pytest.raises(Exception, match="403"):
        connected(served, origin="http://elsewhere.example")


def test_an_address_that_is_taken_is_refused(served: PolicyServer) -> None:
    with pytest.raises(UserError, match=f"port {served.port}: .*give another --port"):
        PolicyServer(scaled(), port=served.port)

"""What a served policy sees and does is kept episode by episode, with what the robot says of its end."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_policy import FRAMES, ROBOT, STATIC, episodes, frame
from test_server import SCALE, actions, asked, client, connected, module, scaled, started

from agents.served_episodes import ServedEpisodes
from agents.server import PolicyServer
from worldaction.errors import UserError
from worldaction.interface import interface_of
from worldaction.play.attempts import Attempts
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore
from worldaction.play.writers.store import StoreWriter
from worldaction.spec import ACTION

assert client


def serving(path: Path, *episodes_of: list[Any]) -> list[Any]:
    """Serve some connections one after the other, each of so many messages; the answers to those that are marks."""
    said = []
    with (
        ServedEpisodes(path, scaled(), name="mine") as kept,
        started(PolicyServer(scaled(), port=0, record=kept)) as server,
    ):
        for messages in episodes_of:
            with connected(server) as connection:
                connection.recv(timeout=20)
                said += [asked(connection, message) for message in messages]
            # the server writes when the robot is gone, and the next one comes after that
            wait(lambda: not server._under_way)
    return [answer for answer in said if "action" not in answer]


def wait(done: Any) -> None:
    for _ in range(400):
        if done():
            return
        module.threading.Event().wait(0.02)
    raise AssertionError("it never came")


def stream(count: int = FRAMES) -> list[Any]:
    numbers = episodes(1)
    return [frame(numbers, t, 0) for t in range(count)]


def test_an_episode_is_what_was_seen_and_told_and_how_it_ended(tmp_path: Path) -> None:
    again = {**stream(1)[0], "reset": True}
    said = serving(
        tmp_path / "store",
        [*stream(4), {"success": True}, *stream(3), {"success": False}, {"success": True}],
        [*stream(2), again],
    )
    # a mark without frames is no episode
    assert said == [{"episodes": 1}, {"episodes": 2}, {"episodes": 2}]
    store = PlayStore.open(tmp_path / "store")
    assert [(e.length, e.kind) for e in store.episodes] == [(n, "near_miss") for n in (4, 3, 2, 1)]
    assert [s.success for s in store.segments] == [True, False, None, None]
    policy = scaled()
    expected = [policy.select_action(seen) for seen in stream(4)]
    assert np.allclose(SCALE.to_robot(store.frames[ACTION][:4].numpy()), np.stack(expected), atol=1e-4)
    assert np.array_equal(store.frames[ROBOT][2].numpy(), stream()[2][ROBOT])
    assert np.array_equal(store.frames[STATIC][2].numpy(), stream()[2][STATIC])
    # another policy can be learned from it that acts in the robot's units
    assert interface_of(store.meta) == replace(policy.interface, source="a served policy")
    known = [segment.success for e in Attempts(open_source(store.path)).episodes for segment in e.segments]
    assert known == [True, False, None, None]


def test_what_a_robot_is_told_does_not_depend_on_whether_it_is_recorded(tmp_path: Path) -> None:
    with started(PolicyServer(scaled(), port=0)) as server, connected(server) as connection:
        connection.recv(timeout=20)
        plain = actions(connection, episodes(1))
        # the same program serves for both
        assert asked(connection, {"success": True}) == {"episodes": None}
    with (
        ServedEpisodes(tmp_path / "store", scaled(), name="mine") as kept,
        started(PolicyServer(scaled(), port=0, record=kept)) as server,
        connected(server) as connection,
    ):
        connection.recv(timeout=20)
        assert np.array_equal(actions(connection, episodes(1)), plain)


def test_a_mark_that_is_none_is_refused_and_the_episode_goes_on(tmp_path: Path) -> None:
    wrong = [{"success": "yes"}, {**stream(1)[0], "success": True}]
    said = serving(tmp_path / "store", [*stream(2), *wrong, *stream(2)])
    assert [answer.keys() for answer in said] == [{"error"}] * 2
    assert [e.length for e in PlayStore.open(tmp_path / "store").episodes] == [4]


def test_a_frame_that_cannot_be_used_is_not_recorded_and_begins_no_episode(tmp_path: Path) -> None:
    broken = {key: value for key, value in stream(1)[0].items() if key != ROBOT}
    serving(tmp_path / "store", [*stream(2), {**broken, "reset": True}, *stream(1)])
    assert [e.length for e in PlayStore.open(tmp_path / "store").episodes] == [3]


def test_a_server_that_nobody_asked_leaves_no_store(tmp_path: Path) -> None:
    assert serving(tmp_path / "store") == []
    assert list(tmp_path.iterdir()) == []


KILLED = """
    import sys, threading, time
    from pathlib import Path
    from test_server import scaled
    from agents.served_episodes import ServedEpisodes
    from agents.server import PolicyServer

    with ServedEpisodes(Path(sys.argv[1]), scaled(), name="mine") as kept:
        with PolicyServer(scaled(), port=0, record=kept) as server:
            print(server.port, flush=True)
            server.run()
"""


def test_a_server_that_is_killed_loses_the_episode_under_way_alone(tmp_path: Path) -> None:
    where = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "store")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(where), *sys.path])},
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with client.connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv(timeout=20)
            for message in [*stream(3), {"success": True}, *stream(2), {"success": False}, *stream(5)]:
                asked(connection, message)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
    finally:
        process.kill()
    assert not (tmp_path / "store").exists()
    with pytest.raises(UserError, match=r"has episodes of mine; serve that policy .* or give another --record"):
        ServedEpisodes(tmp_path / "store", scaled(), name="another")
    serving(tmp_path / "store", [*stream(1), {"success": None}])
    store = PlayStore.open(tmp_path / "store")
    assert [(e.length, s.success) for e, s in zip(store.episodes, store.segments, strict=True)] == [
        (3, True),
        (2, False),
        (1, None),
    ]
    with pytest.raises(UserError, match="exists already"):
        ServedEpisodes(tmp_path / "store", scaled(), name="mine")


def test_the_log_says_what_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "worldaction"):
        serving(tmp_path / "store", [*stream(2), {"success": True}])
    assert f"episode 0 of {tmp_path / 'store'}: 2 frames, a success" in caplog.text


def interrupted(path: Path) -> None:
    """One episode, and then an error."""

    def fail() -> None:
        with ServedEpisodes(path, scaled(), name="mine") as kept:
            kept.keep(stream(2), [np.zeros(len(SCALE.low), np.float32)] * 2, True)
            raise OSError("the port is taken")

    with pytest.raises(OSError, match="port"):
        fail()


def test_an_error_leaves_what_was_kept_to_go_on_with(tmp_path: Path) -> None:
    interrupted(tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with ServedEpisodes(tmp_path / "store", scaled(), name="mine") as kept:
        assert len(kept) == 1
    assert [s.success for s in PlayStore.open(tmp_path / "store").segments] == [True]


def full(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """The disk takes so many arrays more."""
    left, write = [after], StoreWriter._write

    def _write(self: StoreWriter, block: dict[str, np.ndarray]) -> None:
        for key, array in block.items():
            left[0] -= 1
            if left[0] < 0:
                raise self._failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            write(self, {key: array})

    monkeypatch.setattr(StoreWriter, "_write", _write)


def lengths(path: Path) -> list[int]:
    """Of a store's episodes, which is as it was written."""
    store = PlayStore.open(path)
    store.verify()
    return [episode.length for episode in store.episodes]


def test_an_episode_that_does_not_fit_on_the_disk_can_be_marked_again_and_the_others_stay(tmp_path: Path) -> None:
    with (
        ServedEpisodes(tmp_path / "store", scaled(), name="mine") as kept,
        started(PolicyServer(scaled(), port=0, record=kept)) as server,
        connected(server) as connection,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        connection.recv(timeout=20)
        for message in [*stream(3), {"success": True}, *stream(2)]:
            asked(connection, message)
        full(monkeypatch, after=2)
        assert "No space left" in asked(connection, {"success": True})["error"]
        # the robot may go on meanwhile
        asked(connection, stream(1)[0])
        monkeypatch.undo()
        assert asked(connection, {"success": False}) == {"episodes": 2}
    assert lengths(tmp_path / "store") == [3, 3]
    assert [s.success for s in PlayStore.open(tmp_path / "store").segments] == [True, False]


def test_a_disk_that_stays_full_leaves_what_was_kept_to_go_on_with(tmp_path: Path) -> None:
    def day() -> None:
        told = [np.zeros(len(SCALE.low), np.float32)] * 3
        with (
            pytest.MonkeyPatch.context() as monkeypatch,
            ServedEpisodes(tmp_path / "store", scaled(), name="mine") as kept,
        ):
            kept.keep(stream(2), told[:2], True)
            full(monkeypatch, after=2)
            with pytest.raises(UserError, match="No space left"):
                kept.keep(stream(3), told, True)

    with pytest.raises(UserError, match=r"what was saved is in .*store\.partial"):
        day()
    assert not (tmp_path / "store").exists()
    serving(tmp_path / "store", [*stream(1), {"success": None}])
    assert lengths(tmp_path / "store") == [2, 1]


def test_of_two_robots_the_one_that_leaves_first_is_the_one_that_is_kept(tmp_path: Path) -> None:
    with (
        ServedEpisodes(tmp_path / "store", scaled(), name="mine") as kept,
        started(PolicyServer(scaled(), port=0, record=kept)) as server,
        connected(server) as first,
    ):
        first.recv(timeout=20)
        for message in stream(3):
            asked(first, message)
        with connected(server) as second:
            second.recv(timeout=20)
            for message in stream(2):
                asked(second, message)
        wait(lambda: len(kept) == 1 and len(server._under_way) == 1)
    assert lengths(tmp_path / "store") == [2, 3]


def test_an_episode_without_an_end_is_not_gathered_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 3)
    said = serving(tmp_path / "store", [*stream(3), stream(1)[0], {"success": True}, *stream(1)])
    assert said[0]["error"] == "3 frames without an end; send a mark of success, or a frame with reset"
    assert lengths(tmp_path / "store") == [3, 1]


def test_what_was_kept_of_a_robot_is_never_deleted_because_it_cannot_be_gone_on_with(tmp_path: Path) -> None:
    interrupted(tmp_path / "store")
    frames = tmp_path / "store.partial" / "frames"
    short = next(frames.glob("*.memmap"))
    os.truncate(short, 1)
    before = sorted(path.name for path in frames.iterdir())
    with pytest.raises(UserError, match=r"store\.partial cannot be gone on with .* move it away first"):
        ServedEpisodes(tmp_path / "store", scaled(), name="mine")
    assert sorted(path.name for path in frames.iterdir()) == before

"""A policy behind a WebSocket: what the robot sees in, an action in the robot's units out.

    server: {"task": ..., "rate": ..., "cameras": ...}        once, what `Policy.describe` says
    client: {"observation.state": ARRAY, ...}                 the next frame of the episode
    server: {"action": ARRAY, "seconds": 0.004}               or {"error": "..."}, and the episode goes on
    client: {"success": true}                                 the episode has ended so; false, or null: nobody knows
    server: {"episodes": 4}                                   that are recorded, null if none are

Messages are msgpack maps, and ARRAY is {"shape": [7], "dtype": "<f4", "data": bytes}. A connection is an episode: one
that is lost and made again begins a new one, and so does a frame with "reset": true, or one after "success". Those of
which nothing was said have ended nobody knows how.
"""

from __future__ import annotations

import hmac
import http
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from agents.ahead import Ahead, AheadPolicy
from agents.policy import Policy, PolicyState
from agents.served_episodes import ServedEpisodes
from worldaction.errors import UserError

LOGGER = logging.getLogger("worldaction")
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
LARGEST: Final = 64 * 2**20
"""Bytes of a message: eight cameras of full HD."""
TOLD_EVERY: Final = 300
"""Actions between two lines of the log."""
LONGEST: Final = 18_000
"""Frames of a recorded episode, ten minutes at 30 Hz: they are in memory until it has ended."""
RESET: Final = "reset"
SUCCESS: Final = "success"
MALFORMED: Final = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, OverflowError)
"""What msgpack, NumPy and torch raise over messages that are not what they seem."""


@dataclass(eq=False)
class Episode:
    """What a connection is at."""

    state: PolicyState | Ahead | None = None
    seconds: list[float] = field(default_factory=list)
    """To each action since the log's last line."""
    seen: list[dict[str, np.ndarray]] = field(default_factory=list)
    """Its frames, where they are recorded."""
    told: list[np.ndarray] = field(default_factory=list)
    """The action that answered each."""
    after: list[float] = field(default_factory=list)
    """Of work after each of them, if actions are computed ahead."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Of what is recorded: a server that is closed keeps the episodes that others are at."""


class PolicyServer:
    """Answers robots one after the other; as a context manager it is closed at the end.

    Args:
        policy: acts.
        host: address to listen at. Others than the machine itself can reach any but a loopback one.
        port: likewise; 0 takes a free one.
        token: that clients have to give, as "Authorization: Bearer TOKEN"; needed where others can reach the server.
        record: where episodes are kept; None keeps none.
        ahead: answer a frame with what was computed before it came; see `agents/ahead.py`.

    Raises:
        UserError: websockets or msgpack is not installed, a token is missing, or the address cannot be had.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        host: str = "127.0.0.1",
        port: int = 8765,
        token: str | None = None,
        record: ServedEpisodes | None = None,
        ahead: bool = False,
    ) -> None:
        if host not in LOOPBACK and not token:
            raise UserError(f"--host {host}: others can reach it, so give --token, or leave --host out")
        self._msgpack, server, self._lost = _libraries()
        self._policy, self._token, self._lock = policy, token, threading.Lock()
        self._record, self._under_way = record, list[Episode]()
        self._connections = set[Any]()
        self._acts: Any = AheadPolicy(policy) if ahead else policy
        self._warm_up()
        try:
            self._server = server.serve(
                self._answer_all,
                host,
                port,
                process_request=self._admit,
                # a page in a browser says where it comes from, and must not drive a robot
                origins=[None],
                max_size=LARGEST,
                compression=None,
            )
        except OSError as error:
            raise UserError(f"cannot listen at {host}, port {port}: {error.strerror}; give another --port") from error

    def __enter__(self) -> PolicyServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.socket.getsockname()[1]
        return port

    def run(self) -> None:
        """Answer until `close` is called from another thread."""
        self._server.serve_forever()

    def close(self) -> None:
        """Stop answering, robots that are connected as well: they are told that the server is gone. Episodes under way
        have ended nobody knows how.
        """
        self._server.shutdown()
        # older versions of websockets leave them open, and a robot would be driven on
        for connection in list(self._connections):
            connection.close()
        for episode in list(self._under_way):
            try:
                self._keep(episode, None)
            except UserError as error:
                LOGGER.error("an episode of %d frames is lost: %s", len(episode.seen), error)
        # a robot that was being answered just now adds nothing any more
        self._record = None

    # ---- a connection

    def _admit(self, connection: Any, request: Any) -> Any:
        """None lets the client in."""
        given = request.headers.get("Authorization", "")
        if self._token is None or hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return None
        LOGGER.warning("a client without the token was refused")
        return connection.respond(http.HTTPStatus.UNAUTHORIZED, "give the header Authorization: Bearer TOKEN\n")

    def _answer_all(self, connection: Any) -> None:
        """An episode, until the client is gone."""
        LOGGER.info("a robot is connected; a new episode")
        connection.send(self._packed(self._policy.describe()))
        episode = Episode()
        self._under_way.append(episode)
        self._connections.add(connection)
        # a robot that is lost raises here, and one that leaves ends the loop
        try:
            with suppress(self._lost):
                for message in connection:
                    connection.send(self._answer(message, episode))
                    self._look_ahead(episode)
                    if len(episode.seconds) == TOLD_EVERY:
                        _tell(episode)
        finally:
            self._connections.discard(connection)
            _tell(episode)
            LOGGER.info("the robot is gone")
            self._end(episode)

    def _answer(self, message: bytes | str, episode: Episode) -> bytes:
        """What is said to one message; one that cannot be used changes nothing."""
        began = time.perf_counter()
        try:
            observation = self._unpacked(message)
            if SUCCESS in observation:
                return self._ended(episode, observation)
            anew = observation.pop(RESET, False)
            # as the policy sees it, and as it is recorded
            seen = self._policy.seen(observation)
            if anew:
                self._keep(episode, None)
                episode.state = None
            elif self._record is not None and len(episode.seen) >= LONGEST:
                raise UserError(f"{LONGEST:,} frames without an end; send a mark of success, or a frame with reset")
            # the sequence of episodes' noise is the policy's, so two robots must not draw at once
            with self._lock:
                action, episode.state = self._acts.predict(seen, episode.state)
            if self._record is not None:
                with episode.lock:
                    episode.seen.append(seen)
                    episode.told.append(action)
        except UserError as error:
            return self._refused(str(error))
        except MALFORMED as error:
            return self._refused(f"the message cannot be used ({type(error).__name__}: {error}); see agents/server.py")
        seconds = time.perf_counter() - began
        episode.seconds.append(seconds)
        return self._packed({"action": action, "seconds": seconds})

    def _look_ahead(self, episode: Episode) -> None:
        """Compute what the next frame is answered with, while the robot carries out the last answer."""
        if isinstance(episode.state, Ahead) and episode.state.action is None:
            began = time.perf_counter()
            with self._lock:
                episode.state = self._acts.look_ahead(episode.state)
            episode.after.append(time.perf_counter() - began)

    # ---- what is recorded

    def _ended(self, episode: Episode, mark: Mapping[str, Any]) -> bytes:
        """An episode has ended as the robot says."""
        if len(mark) > 1 or mark[SUCCESS] not in (True, False, None):
            raise UserError('say {"success": true}, false or null after the last frame, in a message of its own')
        self._keep(episode, None if mark[SUCCESS] is None else bool(mark[SUCCESS]))
        episode.state = None
        return self._packed({"episodes": None if self._record is None else len(self._record)})

    def _keep(self, episode: Episode, success: bool | None) -> None:
        """Write what was seen and told since the episode began, if there is anything."""
        with episode.lock:
            if self._record is not None and episode.seen:
                self._record.keep(episode.seen, episode.told, success)
            # only now: what could not be written can be tried again
            episode.seen, episode.told = [], []

    def _end(self, episode: Episode) -> None:
        """The robot is gone; what it saw is kept before the episode is forgotten."""
        try:
            self._keep(episode, None)
        except UserError as error:
            LOGGER.error("an episode is tried again when the server ends: %s", error)
        else:
            self._under_way.remove(episode)

    def _refused(self, reason: str) -> bytes:
        LOGGER.warning("refused: %s", reason)
        return self._packed({"error": reason})

    # ---- messages

    def _packed(self, values: Mapping[str, Any]) -> bytes:
        packed: bytes = self._msgpack.packb(values, default=as_map)
        return packed

    def _unpacked(self, message: bytes | str) -> dict[str, Any]:
        values = self._msgpack.unpackb(message) if isinstance(message, bytes) else None
        if not isinstance(values, dict):
            raise UserError("the message is no msgpack map; send the frame as one, names to arrays")
        return {name: _as_array(value) for name, value in values.items()}

    def _warm_up(self) -> None:
        """The first call is the slowest, so it is made before a robot waits for it."""
        config = self._policy.model.config
        side = config.image_size
        frame = {camera: np.zeros((side, side, 3), np.uint8) for camera in config.cameras}
        robot = {"robot_obs": np.zeros(config.layout.robot, np.float32)} if config.layout.robot else {}
        self._policy.predict(frame | robot)
        self._policy.reset(seed=self._policy.seed)


def _libraries() -> tuple[Any, Any, Any]:
    """msgpack, the server of websockets, and what that raises when a client is gone."""
    try:
        import msgpack
        import websockets.sync.server as server
        from websockets.exceptions import ConnectionClosed
    except ImportError as error:
        raise UserError(f'serving needs {error.name}; run pip install "worldaction[serve]"') from error
    return msgpack, server, ConnectionClosed


def as_map(value: Any) -> dict[str, Any]:
    """What msgpack asks for where it does not know a value."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} cannot be sent")
    return {"shape": list(value.shape), "dtype": value.dtype.str, "data": value.tobytes()}


def _as_array(value: Any) -> Any:
    """The array that a map stands for, mappings of them likewise, and anything else as it is."""
    if not isinstance(value, dict):
        return value
    if value.keys() != {"shape", "dtype", "data"}:
        return {name: _as_array(inner) for name, inner in value.items()}
    kind = np.dtype(str(value["dtype"]))
    if kind.kind not in "fiub":
        raise UserError(f"an array of {value['dtype']!r} holds no numbers; send uint8 or float32")
    # a copy, because torch wants memory that can be written
    return np.frombuffer(value["data"], kind).reshape(value["shape"]).copy()


def _tell(episode: Episode) -> None:
    """Time to action in the log."""
    if episode.seconds:
        LOGGER.info("%d actions: time to action %s", len(episode.seconds), spread(episode.seconds))
    if episode.after:
        LOGGER.info("computed ahead, after an answer: %s; a frame that comes sooner waits", spread(episode.after))
    episode.seconds.clear()
    episode.after.clear()


def spread(seconds: Sequence[float] | np.ndarray) -> str:
    """Some times in words."""
    median, late = 1e3 * np.quantile(seconds, (0.5, 0.99))
    return f"{median:.1f} ms (median), {late:.1f} (99 %), {1e3 * np.max(seconds):.1f} (slowest)"

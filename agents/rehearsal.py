"""A robot that is none: frames at a robot's rate to a server, and how long each action takes to come."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from agents.policy import Policy
from agents.server import PolicyServer, as_map, spread
from worldaction.errors import UserError
from worldaction.spec import CONTROL_HZ, ROBOT


@dataclass(frozen=True)
class Rehearsal:
    """What came of it."""

    rate: float
    """Frames per second that were to be sent."""
    seconds: np.ndarray
    """[n] from the moment in which a frame is there, be the last answer awaited still, to its action."""
    cpu: float
    """Seconds of CPU time a frame, of server and client together."""

    def __str__(self) -> str:
        beyond = int((self.seconds > 1 / self.rate).sum())
        return (
            f"{len(self.seconds)} frames at {self.rate:g} Hz: action after {spread(self.seconds)};"
            f" {beyond} came after the next frame; CPU time {1e3 * self.cpu:.1f} ms a frame"
        )


def rehearse(server: PolicyServer, policy: Policy, *, seconds: float) -> Rehearsal:
    """Ask a server for actions, over its WebSocket, with noise in the place of frames.

    Args:
        server: at this machine's loopback address, without a token; another thread is in its `run`.
        policy: that it serves, whose robot says how often, and how large pictures are.
        seconds: how long.
    """
    import msgpack
    from websockets.sync.client import connect

    rate = policy.interface.rate or float(CONTROL_HZ)
    frame = msgpack.packb(_frame(policy), default=as_map)
    found, address = [], f"ws://127.0.0.1:{server.port}"
    with connect(address, max_size=None, compression=None) as connection:
        connection.recv()
        cpu, begin = time.process_time(), time.perf_counter()
        for number in range(max(1, round(seconds * rate))):
            # a camera does not wait for a robot: a frame is there at its time, whenever it is sent
            due = begin + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.send(frame)
            answer = msgpack.unpackb(connection.recv())
            if "error" in answer:
                raise UserError(f"the server refuses a frame of noise: {answer['error']}")
            found.append(time.perf_counter() - due)
    return Rehearsal(rate, np.array(found), (time.process_time() - cpu) / len(found))


def _frame(policy: Policy) -> dict[str, np.ndarray]:
    """Noise in the sizes of what was recorded, or in those that the policy sees."""
    config, rng = policy.model.config, np.random.default_rng(0)
    sizes = dict.fromkeys(config.cameras, (config.image_size, config.image_size))
    sizes |= {one.key: (one.height, one.width) for one in policy.interface.cameras if one.key in sizes}
    robot = {ROBOT: np.zeros(config.layout.robot, np.float32)} if config.layout.robot else {}
    return {camera: rng.integers(0, 256, (*size, 3), np.uint8) for camera, size in sizes.items()} | robot

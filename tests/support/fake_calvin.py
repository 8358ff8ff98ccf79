"""A simulator that is none: speaks the protocol of envs/calvin/server.py, moves in straight lines, fails on demand.

Started as a simulator's Python would be, with a fault first: `fake_calvin.py FAULT:COMMAND:COUNT SERVER DESCRIPTOR`.
The fault strikes at the COUNT-th such command of the process.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class Table:
    """The TCP is where its target is; a closed gripper takes the drawer along -y and the door along -x."""

    def __init__(self) -> None:
        self.robot, self.scene = np.zeros(15), np.zeros(24)

    def reset(self, arrays: dict[str, np.ndarray]) -> None:
        self.robot, self.scene = arrays["robot_obs"].copy(), arrays["scene_obs"].copy()

    def step(self, arrays: dict[str, np.ndarray]) -> None:
        action = arrays["action"]
        assert np.abs(action).max() <= 1
        assert abs(action[6]) == 1
        self.robot[:3] += 0.02 * action[:3]
        self.robot[3:6] += 0.05 * action[3:6]
        self.robot[14] = action[6]
        if action[6] < 0:
            self.scene[0] = np.clip(self.scene[0] - 0.02 * action[0], 0, 0.28)
            self.scene[1] = np.clip(self.scene[1] - 0.02 * action[1], 0, 0.22)

    def images(self) -> dict[str, np.ndarray]:
        shades = np.random.default_rng(int(1e6 * self.scene[1])).integers(0, 256, (200, 200, 3), np.uint8)
        return {"rgb_static": shades, "rgb_gripper": shades[:84, :84]}

    def state(self, images: bool) -> dict[str, np.ndarray]:
        vectors = {"robot_obs": self.robot, "scene_obs": self.scene, "target": self.robot[:6]}
        return {**vectors, **(self.images() if images else {})}


def strike(fault: str, connection: socket.socket, reply: dict[str, Any], server: Any) -> None:
    """What can go wrong."""
    if fault == "crash":
        sys.stdout.write("bullet: the first line\nSegmentation fault, in play\n")
        sys.stdout.flush()
        os._exit(139)
    if fault == "hang":
        time.sleep(600)
    if fault == "garbage":
        connection.sendall(b"b3Printf: hello" * 100)
        time.sleep(600)
    if fault == "truncated":
        connection.sendall(struct.pack(">I", 100) + b'{"id": ')
        connection.close()
    if fault == "flood":
        connection.sendall(struct.pack(">I", 2**31))
    if fault == "late":
        server.send(connection, {**reply, "id": reply["id"] - 1}, {})
    if fault == "error":
        server.send(connection, {**reply, "error": "AssertionError: gripper"}, {})
    if fault == "protocol":
        server.send(connection, {**reply, "protocol": -1}, {})
    if fault == "noise":
        sys.stdout.write("disconnecting id 0 from server\n" * 100_000)


def main() -> None:
    (fault, command, count), script, descriptor = sys.argv[1].split(":"), sys.argv[2], int(sys.argv[3])
    specification = importlib.util.spec_from_file_location("server", Path(script))
    assert specification is not None
    assert specification.loader is not None
    server = importlib.util.module_from_spec(specification)
    sys.modules["server"] = server
    specification.loader.exec_module(server)
    if fault != "orphan":
        server._end_with(os.getppid())
    connection, table, left = socket.socket(fileno=descriptor), Table(), int(count)
    for fields, arrays in server._requests(connection):
        reply: dict[str, Any] = {"id": fields["id"]}
        left -= fields["command"] == command
        if left == 0 and fields["command"] == command:
            strike(fault, connection, reply, server)
        if fields["command"] == "hello":
            reply.update(protocol=server.PROTOCOL, pid=os.getpid(), calvin_env="0" * 40, blocks=["red", "blue", "pink"])
        if fields["command"] in ("reset", "step"):
            getattr(table, fields["command"])(arrays)
        state = table.images() if fields["command"] == "render" else table.state(fields.get("images", False))
        server.send(connection, reply, state)


if __name__ == "__main__":
    main()

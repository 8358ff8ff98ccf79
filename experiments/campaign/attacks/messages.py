"""Messages between a client and CALVIN's simulator."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import nullcontext
from typing import Any

import numpy as np

from envs.calvin.server import BrokenMessageError, receive, send, serve
from experiments.campaign.base import Attack, Input
from experiments.campaign.damage import CHANGES, changed
from worldaction.errors import UserError


class Messages(Attack):
    """Bytes from the other side."""

    name = "simulator message"

    def build(self) -> None:
        """Nothing."""

    def answer(self) -> Any:
        """See `Attack`."""
        return _answers(_whole({"command": "step", "id": 1}))

    def input(self, rng: np.random.Generator) -> Input:
        """See `Attack`."""
        content = _whole({"command": "step", "id": 1})
        if rng.random() < 0.5:
            (length,) = struct.unpack(">I", content[:4])
            header = json.dumps(changed(json.loads(content[4 : 4 + length]), rng)).encode()
            content = struct.pack(">I", len(header)) + header + content[4 + length :]
            return Input("a value of the header", nullcontext(), lambda: _answers(content))
        words, change = CHANGES[rng.integers(len(CHANGES))]
        content = change(content, rng)
        return Input(words, nullcontext(), lambda: _answers(content))


def _whole(fields: dict[str, Any]) -> bytes:
    one, other = socket.socketpair()
    with one, other:
        send(one, fields, {"action": np.arange(7.0)})
        return other.recv(1 << 16)


def _answers(content: bytes) -> Any:
    """What a client reads of it, and what a server without a simulator replies."""
    said: list[Any] = []
    for side in (_read, serve):
        one, other = socket.socketpair()
        with one, other:
            one.sendall(content[: 1 << 16])
            one.shutdown(socket.SHUT_WR)
            said.append(side(other))
    return said[0]


def _read(connection: socket.socket) -> Any:
    try:
        fields, arrays = receive(connection, 5.0)
    except (BrokenMessageError, EOFError) as error:
        raise UserError(f"the simulator sent {str(error)[:200]}") from error
    return [fields, {name: array.tolist() for name, array in arrays.items()}]

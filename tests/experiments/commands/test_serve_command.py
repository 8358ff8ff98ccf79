"""`worldaction serve --record` leaves a store of what the robot's program asked."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import environment, finished_run

from agents.policy import Policy
from envs.benchmark import env_of
from experiments import __main__ as cli
from worldaction.play.store import PlayStore

msgpack = pytest.importorskip("msgpack", reason="serving needs worldaction[serve]")
client = pytest.importorskip("websockets.sync.client", reason="serving needs worldaction[serve]")

NAME = "turn_on_led-seed0-ppo"


def test_a_served_policy_is_recorded_and_read_as_any_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agents.server import as_map

    policy = finished_run() / "policies" / NAME
    command = ["serve", str(policy), "--port", "0", "--record", str(tmp_path / "tried")]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", *command],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = next(found[1] for line in process.stdout if (found := re.search(r"ws://127\.0\.0\.1:(\d+)", line)))
        env = env_of(Policy.from_pretrained(policy))
        frame, _ = env.reset(seed=0)
        with client.connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv(timeout=20)
            for message in [frame, frame, {"success": True}, frame]:
                connection.send(msgpack.packb(message, default=as_map))
                connection.recv(timeout=20)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    finally:
        process.kill()
    store = PlayStore.open(tmp_path / "tried")
    assert [(e.length, s.success) for e, s in zip(store.episodes, store.segments, strict=True)] == [
        (2, True),
        (1, None),
    ]
    assert store.meta.config["policy"]["name"].startswith(NAME)
    cli.command(["data", "inspect", str(tmp_path / "tried")])
    assert "turn_on_led" in capsys.readouterr().out

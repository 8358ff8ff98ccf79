"""Every program of docs/use_your_policy.md runs as it stands, on a policy of a finished run."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from paths import ROOT
from tiny_study import finished_run

from worldaction.play.store import PlayStore

POLICY = "turn_on_led-seed0-ppo"


def programs() -> list[str]:
    text = (ROOT / "docs/use_your_policy.md").read_text()
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [re.sub(r'from_pretrained\("[^"]*"\)', f"from_pretrained({str(folder())!r})", one) for one in found]


def folder() -> Path:
    return finished_run() / "policies" / POLICY


def ran(*, until: int) -> dict[str, Any]:
    """Names after the first programs of the page, run one after the other."""
    names: dict[str, Any] = {}
    for program in programs()[:until]:
        exec(program, names)  # a text of our own
    return names


def test_the_programs_of_every_convention_run_one_after_the_other() -> None:
    names = ran(until=5)
    assert names["done"]
    assert 0 <= names["success"] <= 1
    assert names["rollout"]["action"].shape == (8, 7)
    assert names["action"].shape == (7,)
    names["env"].close()


def test_the_client_of_the_page_drives_a_robot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for package in ("msgpack", "websockets.sync.client"):
        pytest.importorskip(package, reason="serving needs worldaction[serve]")
    from agents.served_episodes import ServedEpisodes
    from agents.server import PolicyServer

    client = next(program for program in programs() if "def drive" in program)
    # "a client in thirty lines"
    assert len(client.splitlines()) <= 30
    names: dict[str, Any] = {}
    exec(client, names)
    given = ran(until=1)
    env, told = given["env"], []
    seen = [env.reset(seed=5_000_000)[0]]

    def act(action: np.ndarray) -> None:
        told.append(action)
        seen.append(env.step(action)[0])

    robot = SimpleNamespace(observe=lambda: seen[-1], act=act, succeeded=lambda: True)
    with (
        ServedEpisodes(tmp_path / "tried", given["policy"], name="mine") as kept,
        PolicyServer(given["policy"], port=0, token="secret", record=kept) as server,
    ):
        threading.Thread(target=server.run, daemon=True).start()
        names["drive"](robot, 6, f"ws://127.0.0.1:{server.port}", "secret")
        with pytest.raises(Exception, match="401"):
            names["drive"](robot, 1, f"ws://127.0.0.1:{server.port}")
    again = ran(until=1)["policy"]
    assert np.array_equal(told, [again.select_action(frame) for frame in seen[:6]])
    assert "turn_on_led 30" in capsys.readouterr().out
    store = PlayStore.open(tmp_path / "tried")
    assert [(s.task, s.stop, s.success) for s in store.segments] == [("turn_on_led", 6, True)]
    assert np.array_equal(store.frames["robot_obs"].numpy(), [frame["robot_obs"] for frame in seen[:6]])
    env.close()

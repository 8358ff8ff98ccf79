"""What docs/robots.md says of a served policy is so, and its program runs as it stands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT

from agents.policies.diffusion import DiffusionPolicy
from agents.policies.gaussian import GaussianPolicy
from agents.policy import Policy
from worldaction.interface import ActionScale, RobotInterface
from worldaction.losses.tools.contract import tiny_model
from worldaction.play.store import StoreWriter
from worldaction.spec import ACTION_SIZE, CALVIN, ROBOT

PAGE = (ROOT / "docs/robots.md").read_text()
LOW, HIGH = (-3.0,) * ACTION_SIZE, (5.0,) * ACTION_SIZE


def policy(head: Any = DiffusionPolicy, *, scaled: bool = True) -> Policy:
    """Untrained, with a head of large weights, so that its actions reach the ends of their range."""
    model = tiny_model().requires_grad_(False)
    steps = {"denoising_steps": 4} if head is DiffusionPolicy else {}
    actor = head(model.feature_size, ACTION_SIZE, chunk=4, width=32, **steps)
    for parameter in actor.parameters():
        parameter.data.normal_(std=1.0)
    scale = ActionScale(LOW, HIGH) if scaled else None
    return Policy(model, actor.requires_grad_(False), task="open_drawer", interface=RobotInterface(scale=scale))


def frames(count: int, side: int = 16) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {camera: rng.integers(0, 256, (side, side, 3), np.uint8) for camera in CALVIN.cameras}
        | {ROBOT: rng.normal(size=CALVIN.robot).astype(np.float32)}
        for _ in range(count)
    ]


@pytest.mark.parametrize("head", [DiffusionPolicy, GaussianPolicy])
@pytest.mark.parametrize("scaled", [True, False])
def test_no_action_leaves_the_range_that_the_greeting_names(head: Any, *, scaled: bool) -> None:
    acting = policy(head, scaled=scaled)
    told = np.stack([acting.select_action(frame) for frame in frames(24)])
    about = acting.describe()
    low, high = (-1.0, 1.0) if about["low"] is None else (about["low"][0], about["high"][0])
    assert (about["low"] is None) == (not scaled)
    assert low <= told.min() < told.max() <= high
    assert set(np.unique(told[:, about["binary"]])) <= {low, high}
    # and nothing keeps one from jumping through all of it
    assert np.abs(np.diff(told[:, :6], axis=0)).max() > 0.5 * (high - low)


def test_the_greeting_has_what_the_page_names() -> None:
    named = set(re.findall(r"`(low|high|binary|rate|chunk|absolute|null_action|cameras)`", PAGE))
    assert named == {"low", "high", "binary", "rate", "chunk", "absolute", "null_action", "cameras"}
    assert named <= policy().describe().keys()


def test_the_null_action_of_relative_ones_moves_nothing_in_the_robot_s_units() -> None:
    about = policy(scaled=False).describe()
    assert about["null_action"][:6] == [0.0] * 6
    assert about["binary"] == [6]
    # as in a set whose range is not symmetric, where scaling takes the null action along
    scale = ActionScale(LOW, HIGH)
    null = tuple(scale.to_unit(np.zeros(ACTION_SIZE)).tolist())
    model = tiny_model(layout=replace(CALVIN, null_action=null)).requires_grad_(False)
    scaled = Policy(model, policy().actor, task="open_drawer", interface=RobotInterface(scale=scale))
    assert np.allclose(scaled.describe()["null_action"], 0, atol=1e-6)


def test_the_program_of_the_page_sets_a_policy_beside_a_recorded_episode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy(scaled=False).save_pretrained(tmp_path / "policy")
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "set", image_size=16, source="x", renderer="none", layout=CALVIN) as writer:
        arrays: Any = {key: rng.uniform(-1, 1, (9, size)) for key, size in CALVIN.vectors.items()}
        arrays |= {camera: rng.integers(0, 256, (9, 16, 16, 3), np.uint8) for camera in CALVIN.cameras}
        writer.add_episode(arrays, kind="demo")
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    program = program.replace('"RUN/policies/NAME"', repr(str(tmp_path / "policy")))
    exec(program.replace('"my_set"', repr(str(tmp_path / "set"))), {})
    off, vary = (np.array(re.findall(r"-?\d+\.\d*", line)) for line in capsys.readouterr().out.split("\n")[:2])
    assert len(off) == len(vary) == ACTION_SIZE

"""A renderer leaves a process as it found it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from envs.playtable.render import GL_BACKENDS, works

DRAW = """
import gymnasium, envs
env = gymnasium.make("worldaction/PlayTable-v0", image_size=16, renderer={name!r})
print(env.reset(seed=0)[0]["rgb_static"].shape)
"""


@pytest.mark.parametrize("name", [*GL_BACKENDS, "rays"])
def test_a_process_that_has_drawn_ends_without_a_word(name: str) -> None:
    if name in GL_BACKENDS and not works(name):
        pytest.skip(f"{name} is not installed")
    run = subprocess.run([sys.executable, "-c", DRAW.format(name=name)], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(16, 16, 3)"
    assert run.stderr == ""

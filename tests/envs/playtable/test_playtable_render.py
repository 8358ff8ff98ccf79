"""A renderer leaves a process as it found it."""

from __future__ import annotations

import os
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
    # a test before this one may have drawn by another library, and MuJoCo leaves its name in the environment
    clean = {key: value for key, value in os.environ.items() if key not in ("PYOPENGL_PLATFORM", "MUJOCO_GL")}
    command = [sys.executable, "-c", DRAW.format(name=name)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, env=clean)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(16, 16, 3)"
    assert run.stderr == ""

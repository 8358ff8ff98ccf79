"""A renderer leaves a process as it found it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from envs.drawing import GL_BACKENDS, works
from envs.playtable import render, scene
from envs.playtable.env import PlayTableEnv

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


RENDERERS = ("egl", "osmesa", "rays")


def drawn(name: str, camera: str, size: int) -> np.ndarray:
    """What a camera sees with the hand level, 0.2 m above the table."""
    if name in GL_BACKENDS and not works(name):
        pytest.skip(f"{name} is not installed")
    env = PlayTableEnv(image_size=size, renderer=name)
    robot = np.array([*np.zeros(6), 0.08, -0.9, 0.9, 1.9, -2.2, -0.6, 2.9, 0.7, 1.0])
    picture: np.ndarray = env.reset(seed=0, options={"robot_obs": robot})[0][camera].astype(int)
    return picture


@pytest.mark.parametrize("name", RENDERERS)
def test_beyond_the_floor_and_beyond_two_metres_the_hands_camera_sees_white(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = drawn(name, "rgb_gripper", 64)
    monkeypatch.setitem(scene.FARTHEST, "gripper", 20.0)
    render.renderer.cache_clear()
    far = drawn(name, "rgb_gripper", 64)
    render.renderer.cache_clear()
    white = [(picture == 255).all(-1) for picture in (near, far)]
    # nothing is black, what is white stays so, and of the floor's tiles the farther ones go
    assert near.max(-1).min() > 0
    assert (white[0] | ~white[1]).all()
    assert white[1].mean() > 0.02
    assert white[0].mean() > white[1].mean() + 0.02


@pytest.mark.parametrize("name", RENDERERS)
def test_pictures_are_shifted_as_calvins_are_by_half_a_pixel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = drawn(name, "rgb_static", 400)
    monkeypatch.setitem(scene.OFFSET, "static", 0.0)
    render.renderer.cache_clear()
    plain = drawn(name, "rgb_static", 400)
    render.renderer.cache_clear()
    # a pixel of 400 is half of one of 200: up and to the right
    assert (np.abs(here[:-1, 1:] - plain[1:, :-1]).max(-1) > 2).mean() < 0.01
    assert (np.abs(here - plain).max(-1) > 2).mean() > 0.05

"""Views of one renderer do not depend on each other."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs import drawing
from envs.drawing import GL_BACKENDS, View, works

ROOM = """
<mujoco>
  <visual><headlight active="0"/><map znear="0.01" zfar="10"/></visual>
  <asset>
    <texture type="skybox" builtin="flat" rgb1="1 1 1" rgb2="1 1 1" width="4" height="24"/>
    <material name="plain" rgba="0.8 0.2 0.1 1" specular="0" shininess="0"/>
  </asset>
  <worldbody>
    <light type="directional" dir="0 0.4 -1" castshadow="false" ambient="0.5 0.5 0.5" diffuse="0.5 0.5 0.5"/>
    <camera name="above" pos="0 0 1"/>
    <camera name="aside" pos="0 -1 0.2" xyaxes="1 0 0 0 0 1"/>
    <geom group="2" type="box" size="0.15 0.1 0.1" material="plain"/>
    <geom group="2" type="box" size="0.05 0.05 0.05" pos="-0.2 0.2 0.05" material="plain"/>
  </worldbody>
</mujoco>
"""
WIDE, TALL = View("above", 24, 40, 10.0), View("aside", 64, 32, 10.0)


@pytest.fixture(scope="module")
def room() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(ROOM)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize("name", [*GL_BACKENDS, "rays"])
def test_views_of_different_size_are_what_each_is_alone(name: str, room: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    if name in GL_BACKENDS and not works(name):
        pytest.skip(f"{name} is not installed")
    model, data = room
    together = drawing.renderer(name, model, [WIDE, TALL]).draw(data)
    assert [picture.shape for picture in together] == [(24, 40, 3), (64, 32, 3)]
    for view, picture in zip((WIDE, TALL), together, strict=True):
        (alone,) = drawing.renderer(name, model, [view]).draw(data)
        np.testing.assert_array_equal(alone, picture)
        assert picture.std() > 10


def test_rays_and_gl_see_a_wide_picture_alike(room: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    backend = drawing.choose("auto")
    if backend == "rays":
        pytest.skip("no GL here")
    model, data = room
    one, other = (drawing.renderer(name, model, [WIDE, TALL]).draw(data) for name in (backend, "rays"))
    for a, b in zip(one, other, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 2.5

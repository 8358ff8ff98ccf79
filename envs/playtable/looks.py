"""What the table is made of and lit by: named materials, two small textures, and the lamps.

Colours and shading follow frames of the real simulator (its software renderer). Textures are computed, not copied.
A look can be changed between two frames without compiling the model again, which is how unseen colours are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.drawing import SKY
from envs.playtable.scenes import Colour, Scene

SIDE: Final = 256
"""Pixels of a texture."""
GRAIN_REPEAT: Final = 2.0
"""Textures of wood per metre."""
DARK_TILE: Final = 208 / 239
"""Brightness of the floor's dark tiles beside the light ones, of half a metre each."""

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """Colours of the materials, and the light."""

    colours: dict[str, Colour]
    """Colour of each material, which multiplies its texture."""
    lights: dict[str, tuple[Vector, Vector]]
    """Colour of led and light bulb: off, on."""
    ambient: Vector
    """Light from everywhere."""
    diffuse: Vector
    """Light of the sun, which falls along `direction`."""
    direction: Vector


def look_of(scene: Scene) -> Look:
    """The look of a scene as CALVIN draws it."""
    wood, fronts = scene.wood, scene.fronts
    return Look(
        colours={
            "wood": wood,
            "frame": _darker(wood, 0.90),
            "inside": _darker(wood, 0.90),
            "drawer": _darker(fronts, 0.90),
            "door": fronts,
            "metal": (0.33, 0.33, 0.33, 1),
            "lever": (0.40, 0.40, 0.40, 1),
            "slot": _darker(wood, 0.80),
            "cap": (0.04, 0.04, 0.04, 1),
            "collar": _darker(wood, 0.80),
            "floor": (0.952, 0.952, 0.952, 1),
            "block_red": (1.0, 0.0, 0.0, 1),
            "block_blue": (0.0, 0.0, 1.0, 1),
            "block_pink": (1.0, 0.0, 1.0, 1),
        },
        lights={"led": ((0.95, 0.95, 0.95), (0.0, 1.0, 0.0)), "lightbulb": ((0.80, 0.80, 0.84), (1.0, 1.0, 0.0))},
        ambient=(0.62, 0.62, 0.62),
        diffuse=(0.38, 0.38, 0.38),
        direction=(-0.10, -0.25, -0.96),
    )


def _darker(colour: Colour, share: float) -> Colour:
    red, green, blue, alpha = colour
    return (red * share, green * share, blue * share, alpha)


TEXTURES: Final = {"wood": "grain", "door": "grain", "floor": "tiles"}
"""Textures of materials, which cost a small image a seventh more. On other shapes than boxes, renderers disagree."""


def add_materials(spec: Any, look: Look) -> None:
    """Adds materials, textures and lamps to a model, a mujoco.MjSpec."""
    for name, pixels in (("grain", grain()), ("tiles", tiles())):
        texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D)
        texture.height = texture.width = SIDE
        texture.nchannel, texture.data = 3, np.repeat(pixels[..., None], 3, -1).tobytes()
    unlit = {name: (*off, 1) for name, (off, _) in look.lights.items()}
    for name, colour in {**look.colours, **unlit}.items():
        material = spec.add_material(name=name, rgba=colour, specular=0, shininess=0)
        if name in TEXTURES:
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = TEXTURES[name]
            material.texuniform = True
            # MuJoCo counts per two metres
            material.texrepeat = [2 * GRAIN_REPEAT, 2 * GRAIN_REPEAT] if TEXTURES[name] == "grain" else [2, 2]
    _add_sky(spec)
    lamp = spec.worldbody.add_light(name="sun", pos=[0, 0, 3], dir=look.direction, castshadow=False)
    lamp.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    lamp.ambient, lamp.diffuse, lamp.specular = look.ambient, look.diffuse, [0] * 3


def _add_sky(spec: Any) -> None:
    """White where nothing is: one pixel on each side of a cube around the world."""
    sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    sky.width, sky.height, sky.nchannel = 1, 6, 3
    sky.data = np.full((6, 1, 3), SKY, np.uint8).tobytes()


def wear(model: Any, look: Look, lit: Mapping[str, bool]) -> None:
    """Gives a compiled model a look, until the next one.

    Args:
        model: a mujoco.MjModel made with `add_materials`.
        look: its colours and its light.
        lit: for led and lightbulb, whether it is on.
    """
    for name, colour in look.colours.items():
        model.material(name).rgba = colour
    for name, (off, on) in look.lights.items():
        model.material(name).rgba[:3] = on if lit[name] else off
    lamp = model.light("sun")
    lamp.ambient, lamp.diffuse, lamp.dir = look.ambient, look.diffuse, look.direction


@lru_cache(maxsize=1)
def grain() -> NDArray[np.uint8]:
    """[side, side] grey wood: noise that is long along x, in three widths; it repeats without a seam."""
    rng = np.random.default_rng(1)
    along, across = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))
    total = np.zeros((SIDE, SIDE))
    for length, width, weight in ((30.0, 6.0, 1.0), (12.0, 2.0, 0.8), (6.0, 1.0, 0.5)):
        keep = np.exp(-2 * np.pi**2 * ((along * length) ** 2 + (across * width) ** 2))
        wave = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) * keep).real
        total += weight * wave / wave.std()
    shade = 0.92 + 0.065 * (total - total.mean()) / total.std()
    return (np.clip(shade, 0.6, 1.0) * 255).astype(np.uint8)


@lru_cache(maxsize=1)
def tiles() -> NDArray[np.uint8]:
    """[side, side] two by two tiles."""
    half = np.arange(SIDE) < SIDE // 2
    same = half[:, None] == half[None, :]
    return np.where(same, 255, round(255 * DARK_TILE)).astype(np.uint8)

"""CALVIN's four scenes: where the parts of the table stand, which blocks lie on it, and what it is made of.

Facts of calvin_env's scene files (Mees et al. 2022, MIT licence) in world metres; docs/scenes.md says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from envs.tasks import RANGES, SLIDER_RANGES
from worldaction.errors import unknown

Colour = tuple[float, float, float, float]
Span = tuple[float, float]

# half sides of CALVIN's small, middle and big blocks (m)
SMALL, MIDDLE, BIG = (0.02, 0.02, 0.02), (0.028, 0.02, 0.02), (0.04, 0.02, 0.02)

DARK_WOOD: Final[Colour] = (0.665, 0.50, 0.333, 1)
LIGHT_WOOD: Final[Colour] = (1.0, 0.835, 0.597, 1)
RED_WOOD: Final[Colour] = (0.678, 0.46, 0.273, 1)


@dataclass(frozen=True)
class Scene:
    """One scene. Every place is an x coordinate at joint value zero; y and z are the same in all scenes."""

    name: str
    button: float
    """Centre of the button, and of the led on the shelf behind it."""
    switch: float
    """Centre of the switch, and of the light bulb on the shelf above it."""
    drawer: float
    """Centre of the drawer and its handle."""
    door: float
    """Centre of the sliding door and its handle."""
    cabinet: Span
    """Opening behind the door."""
    blocks: tuple[tuple[str, tuple[float, float, float]], ...]
    """Name and half sides of each block (m), in the order of `scene_obs`."""
    table: Span
    """Where blocks lie on the table at the start."""
    shelves: tuple[Span, Span]
    """Where blocks lie in the cabinet at the start: left and right of the door's two ends."""
    wood: Colour
    """Of the table."""
    fronts: Colour
    """Of door and drawer."""

    @property
    def ranges(self) -> dict[str, float]:
        """Largest value of each moving entry of `scene_obs` (m; lights 0 or 1)."""
        return {**RANGES, "slider": SLIDER_RANGES[self.name]}


SCENES: Final[dict[str, Scene]] = {
    scene.name: scene
    for scene in (
        Scene(
            name="A",
            button=-0.28,
            switch=0.30,
            drawer=0.10,
            door=0.04,
            cabinet=(-0.38, 0.18),
            blocks=(("block_pink", SMALL), ("block_blue", BIG), ("block_red", MIDDLE)),
            table=(-0.20, 0.35),
            shelves=((-0.32, -0.16), (-0.05, 0.13)),
            wood=DARK_WOOD,
            fronts=DARK_WOOD,
        ),
        Scene(
            name="B",
            button=0.28,
            switch=-0.32,
            drawer=0.18,
            door=0.228,
            cabinet=(-0.20, 0.36),
            blocks=(("block_red", SMALL), ("block_blue", BIG), ("block_pink", MIDDLE)),
            table=(-0.35, 0.15),
            shelves=((-0.12, 0.06), (0.15, 0.33)),
            wood=LIGHT_WOOD,
            fronts=LIGHT_WOOD,
        ),
        Scene(
            name="C",
            button=-0.12,
            switch=-0.32,
            drawer=0.10,
            door=0.20,
            cabinet=(-0.20, 0.36),
            blocks=(("block_blue", SMALL), ("block_red", BIG), ("block_pink", MIDDLE)),
            table=(0.0, 0.35),
            shelves=((-0.12, 0.06), (0.15, 0.30)),
            wood=RED_WOOD,
            fronts=DARK_WOOD,
        ),
        Scene(
            name="D",
            button=-0.12,
            switch=0.30,
            drawer=0.18,
            door=0.04,
            cabinet=(-0.38, 0.18),
            blocks=(("block_red", MIDDLE), ("block_blue", SMALL), ("block_pink", BIG)),
            table=(0.0, 0.35),
            shelves=((-0.32, -0.16), (-0.05, 0.13)),
            wood=DARK_WOOD,
            fronts=DARK_WOOD,
        ),
    )
}


def get_scene(name: str) -> Scene:
    """The scene of that name: "A", "B", "C" or "D".

    Raises:
        UserError: there is no such scene.
    """
    if name not in SCENES:
        raise unknown("scene", name, SCENES)
    return SCENES[name]

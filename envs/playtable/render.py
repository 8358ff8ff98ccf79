"""Images of the table: square ones of its cameras, in the scene's look or another one; see `envs.drawing`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np

from envs import drawing
from envs.drawing import Image, View
from envs.playtable import scene
from envs.playtable.looks import Look, look_of, wear
from envs.playtable.scenes import get_scene
from worldaction.errors import UserError

LARGEST_SIDE: Final = 4096


class TableRenderer:
    """Draws the cameras of a state. Holds buffers and no state of the table, so environments may share it."""

    def __init__(self, name: str, cameras: tuple[str, ...], size: int, supersample: int, where: str) -> None:
        if size < 1 or supersample < 1 or size * supersample > LARGEST_SIDE:
            raise UserError(f"image_size {size} times supersample {supersample} must lie in 1..{LARGEST_SIDE}")
        self._model, self._look = scene.model(where), look_of(get_scene(where))
        self._size, self._supersample = size, supersample
        side = size * supersample
        views = [View(camera, side, side, scene.FARTHEST[camera], scene.OFFSET[camera]) for camera in cameras]
        self._renderer = drawing.renderer(name, self._model, views)

    def draw(self, data: Any, lit: Mapping[str, bool], look: Look | None = None) -> list[Image]:
        """One image [size, size, 3] per camera.

        Args:
            data: mujoco.MjData with up-to-date kinematics and cameras.
            lit: for led and lightbulb, whether it is on.
            look: colours and light other than the scene's own.
        """
        wear(self._model, look or self._look, lit)
        return [self._shrink(image) for image in self._renderer.draw(data)]

    def _shrink(self, image: Image) -> Image:
        size, k = self._size, self._supersample
        if k == 1:
            return image
        total = image.reshape(size, k, size, k, 3).sum((1, 3), dtype=np.uint32)
        return ((total + k * k // 2) // (k * k)).astype(np.uint8)


@lru_cache(maxsize=32)
def renderer(name: str, cameras: tuple[str, ...], size: int, supersample: int = 1, where: str = "D") -> TableRenderer:
    """The process's one renderer with these settings.

    Args:
        name: what `drawing.choose` returned.
        cameras: names of cameras, "static" or "gripper".
        size: side of the images (pixels).
        supersample: draw at this multiple of the size and average down.
        where: name of the scene.

    Raises:
        UserError: the backend does not work here; the message names the packages it needs.
    """
    return TableRenderer(name, cameras, size, supersample, where)

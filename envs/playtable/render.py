"""Images of the table by EGL, OSMesa, or rays: one interface, no environment variables, no display.

A GL context is made on the first image, never on import and never in a constructor, so that a process can still fork
before it draws. One process uses one GL backend. Rays need no GL at all and give nearly the same picture.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.playtable import scene
from envs.playtable.looks import SKY, Look, look_of, wear
from envs.playtable.robot import VISIBLE
from envs.playtable.rotation import Array
from envs.playtable.scenes import get_scene
from worldaction.errors import UserError, unknown

Image = NDArray[np.uint8]

GL_BACKENDS: Final = ("egl", "osmesa")
PACKAGES: Final = {"egl": "libegl1 libgl1-mesa-dri libopengl0", "osmesa": "libosmesa6"}
LARGEST_SIDE: Final = 4096
PROBE_SECONDS: Final = 60
# importing a backend of mujoco sets this variable, which must not decide what other processes can draw with
PLATFORM_VARIABLE: Final = "PYOPENGL_PLATFORM"
_PLATFORM: Final = os.environ.get(PLATFORM_VARIABLE)

_log = logging.getLogger(__name__)


class Renderer(ABC):
    """Draws the cameras of a state. Holds buffers and no state of the table, so environments may share it."""

    def __init__(self, name: str, cameras: tuple[str, ...], size: int, supersample: int, where: str) -> None:
        if size < 1 or supersample < 1 or size * supersample > LARGEST_SIDE:
            raise UserError(f"image_size {size} times supersample {supersample} must lie in 1..{LARGEST_SIDE}")
        self.name = name
        self._model, self._look = scene.model(where), look_of(get_scene(where))
        self._cameras = [self._model.camera(camera).id for camera in cameras]
        self._farthest = [scene.FARTHEST[camera] for camera in cameras]
        self._offsets = [scene.OFFSET[camera] for camera in cameras]
        self._size, self._supersample = size, supersample
        self._side = size * supersample

    def draw(self, data: Any, lit: Mapping[str, bool], look: Look | None = None) -> list[Image]:
        """One image [size, size, 3] per camera.

        Args:
            data: mujoco.MjData with up-to-date kinematics and cameras.
            lit: for led and lightbulb, whether it is on.
            look: colours and light other than the scene's own.
        """
        wear(self._model, look or self._look, lit)
        return [self._shrink(image) for image in self._draw(data)]

    @abstractmethod
    def _draw(self, data: Any) -> list[Image]:
        """One image [side, side, 3] per camera."""

    def _shrink(self, image: Image) -> Image:
        size, k = self._size, self._supersample
        if k == 1:
            return image
        total = image.reshape(size, k, size, k, 3).sum((1, 3), dtype=np.uint32)
        return ((total + k * k // 2) // (k * k)).astype(np.uint8)


class GLRenderer(Renderer):
    """Classic MuJoCo rendering off screen; the views lie side by side in one buffer and are read back at once."""

    def __init__(self, name: str, cameras: tuple[str, ...], size: int, supersample: int, where: str) -> None:
        super().__init__(name, cameras, size, supersample, where)
        model = self._model
        self._gl = _gl_context(name)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        atexit.register(self._free)
        mujoco.mjr_resizeOffscreen(self._side * len(cameras), self._side, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2 * model.ngeom)
        for flag in ("SHADOW", "REFLECTION", "HAZE"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False
        self._options, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._pixels = np.empty((self._side, self._side * len(cameras), 3), np.uint8)

    def _free(self) -> None:
        # before the display goes: handlers run in reverse order, and the display's was registered earlier
        self._gl.make_current()
        self._context.free()

    def _draw(self, data: Any) -> list[Image]:
        model, side, everything = self._model, self._side, mujoco.mjtCatBit.mjCAT_ALL.value
        self._gl.make_current()
        # another renderer of this process may have bound its own buffer since
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        for place, camera in enumerate(self._cameras):
            self._camera.fixedcamid = camera
            if place == 0:
                mujoco.mjv_updateScene(model, data, self._options, None, self._camera, everything, self._scene)
            else:
                mujoco.mjv_updateCamera(model, data, self._camera, self._scene)
            self._aim(self._farthest[place], self._offsets[place])
            mujoco.mjr_render(mujoco.MjrRect(place * side, 0, side, side), self._scene, self._context)
        whole = mujoco.MjrRect(0, 0, side * len(self._cameras), side)
        mujoco.mjr_readPixels(self._pixels, None, whole, self._context)
        # [side, side, 3] each; GL counts rows from below
        views = np.split(self._pixels[::-1], len(self._cameras), axis=1)
        return [np.ascontiguousarray(view) for view in views]

    def _aim(self, farthest: float, offset: float) -> None:
        """How far the camera sees (m), and by how much of the image's side all moves up and to the right."""
        for eye in self._scene.camera:
            shift = offset * (eye.frustum_top - eye.frustum_bottom)
            eye.frustum_far, eye.frustum_center = farthest, eye.frustum_center - shift
            eye.frustum_top, eye.frustum_bottom = eye.frustum_top - shift, eye.frustum_bottom - shift


class RayRenderer(Renderer):
    """One ray per pixel and Lambert's law with the lights that GL uses: about six times slower, needs no library."""

    def __init__(self, name: str, cameras: tuple[str, ...], size: int, supersample: int, where: str) -> None:
        super().__init__(name, cameras, size, supersample, where)
        rays = self._side**2
        self._groups = np.zeros(6, np.uint8)
        self._groups[VISIBLE] = 1
        self._geoms, self._distances, self._normals = np.zeros(rays, np.int32), np.zeros(rays), np.zeros(3 * rays)
        self._textures = self._model.mat_texid[:, mujoco.mjtTextureRole.mjTEXROLE_RGB]
        self._directions = [self._pixel_directions(*which) for which in zip(self._cameras, self._offsets, strict=True)]

    def _pixel_directions(self, camera: int, offset: float) -> Array:
        """[rays, 3] unit vectors in the camera's frame, row by row from the top left."""
        half = np.tan(np.deg2rad(self._model.cam_fovy[camera]) / 2)
        across = (np.arange(self._side) + 0.5) / self._side * 2 - 1
        y, x = np.meshgrid((-across - 2 * offset) * half, (across - 2 * offset) * half, indexing="ij")
        rays = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3)
        unit: Array = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        return unit

    def _draw(self, data: Any) -> list[Image]:
        return [self._trace(data, *eye) for eye in zip(self._cameras, self._directions, self._farthest, strict=True)]

    def _trace(self, data: Any, camera: int, directions: Array, farthest: float) -> Image:
        model = self._model
        frame = data.cam_xmat[camera].reshape(3, 3)
        rays = directions @ frame.T
        mujoco.mj_multiRay(
            model, data, data.cam_xpos[camera], rays.ravel(), self._groups, 1, -1,
            self._geoms, self._distances, self._normals, len(rays), model.vis.map.zfar,
        )  # fmt: skip
        # [rays, 3]
        normals = self._normals.reshape(-1, 3)
        colours = self._colours(data, data.cam_xpos[camera] + self._distances[:, None] * rays)
        brightness = np.zeros_like(normals)
        for lamp in range(model.nlight):
            facing = np.clip(-normals @ model.light_dir[lamp], 0, 1)[:, None]
            brightness += model.light_ambient[lamp] + facing * model.light_diffuse[lamp]
        shaded = np.clip(colours * brightness, 0, 1)
        # the camera looks along -z of its frame
        depth = -directions[:, 2] * self._distances
        shaded[(self._geoms < 0) | (depth > farthest)] = SKY / 255
        return (shaded * 255 + 0.5).astype(np.uint8).reshape(self._side, self._side, 3)

    def _colours(self, data: Any, points: Array) -> Array:
        """[rays, 3] colours of what the rays hit at `points`, textures as GL maps them: by the geom's own x and y."""
        model, geoms = self._model, self._geoms
        material = model.geom_matid[geoms]
        colours: Array = np.where(material[:, None] >= 0, model.mat_rgba[material, :3], model.geom_rgba[geoms, :3])
        textured = np.flatnonzero((material >= 0) & (geoms >= 0) & (self._textures[material] >= 0))
        body, kind = geoms[textured], self._textures[material[textured]]
        axes = data.geom_xmat[body].reshape(-1, 3, 3)[:, :, :2]
        # [textured, 2] metres along the geom's x and -y, counted from its corner
        local = np.einsum("ri,rij->rj", points[textured] - data.geom_xpos[body], axes) * (1, -1)
        place = (local + model.geom_size[body, :2]) * model.mat_texrepeat[material[textured]] / 2
        side = model.tex_width[kind]
        column, row = (np.floor(place.T % 1 * side)).astype(int)
        pixel = model.tex_adr[kind] + (row * side + column) * model.tex_nchannel[kind]
        colours[textured] *= model.tex_data[pixel][:, None] / 255
        return colours


def choose(name: str) -> str:
    """The renderer that a name stands for: itself, or for "auto" the first that works of EGL, OSMesa and rays.

    Raises:
        UserError: there is no renderer of that name.
    """
    if name not in ("auto", "rays", *GL_BACKENDS):
        raise unknown("renderer", name, ("auto", "rays", *GL_BACKENDS))
    if name != "auto":
        return name
    return next((backend for backend in GL_BACKENDS if works(backend)), "rays")


@lru_cache(maxsize=32)
def renderer(name: str, cameras: tuple[str, ...], size: int, supersample: int = 1, where: str = "D") -> Renderer:
    """The process's one renderer with these settings.

    Args:
        name: what `choose` returned.
        cameras: names of cameras, "static" or "gripper".
        size: side of the images (pixels).
        supersample: draw at this multiple of the size and average down.
        where: name of the scene.

    Raises:
        UserError: the backend does not work here; the message names the packages it needs.
    """
    make = RayRenderer if name == "rays" else GLRenderer
    return make(name, cameras, size, supersample, where)


@lru_cache
def works(backend: str) -> bool:
    """Whether EGL or OSMesa draws here. Tried in a process of its own, once: a broken driver may crash it, and a failed
    import of one backend would spoil the other."""
    search = f"import sys; sys.path[:] = {sys.path!r}; "
    trial = search + f"from envs.playtable import render; render.renderer({backend!r}, ('static',), 16)"
    environment = {name: value for name, value in os.environ.items() if name != PLATFORM_VARIABLE}
    if _PLATFORM is not None:
        environment[PLATFORM_VARIABLE] = _PLATFORM
    try:
        result = subprocess.run(
            [sys.executable, "-c", trial], env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        _log.info("renderer %s: no answer within %d s", backend, PROBE_SECONDS)
        return False
    if result.returncode:
        reason = result.stderr.strip().splitlines()
        _log.info("renderer %s: %s", backend, reason[-1] if reason else f"exit status {result.returncode}")
    return result.returncode == 0


@lru_cache(maxsize=1)
def _gl_context(backend: str) -> Any:
    # Mesa's software rasteriser: threads cost more than they give at this size, and make fork hang
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        context = importlib.import_module(f"mujoco.{backend}").GLContext(64, 64)
        context.make_current()
    # PyOpenGL fails in as many ways as there are broken installations
    except Exception as error:
        raise UserError(
            f"renderer {backend!r} does not work here ({type(error).__name__}: {error}); "
            f"apt-get install {PACKAGES[backend]}, or choose renderer 'auto'"
        ) from error
    # handlers run in reverse order, so after the renderers': OSMesa's destructor fails once Python is half gone
    atexit.register(context.free)
    return context

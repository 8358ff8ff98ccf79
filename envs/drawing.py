"""Pictures of a MuJoCo model by EGL, OSMesa, or rays: one interface, no environment variables, no display.

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
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from worldaction.errors import UserError, unknown

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

GL_BACKENDS: Final = ("egl", "osmesa")
PACKAGES: Final = {"egl": "libegl1 libgl1-mesa-dri libopengl0", "osmesa": "libosmesa6"}
VISIBLE: Final = 2
"""Group of the shapes that are drawn."""
SKY: Final = 255
"""Brightness of what lies beyond everything (levels of 255)."""
PROBE_SECONDS: Final = 60
# importing a backend of mujoco sets this variable, which must not decide what other processes can draw with
PLATFORM_VARIABLE: Final = "PYOPENGL_PLATFORM"
_PLATFORM: Final = os.environ.get(PLATFORM_VARIABLE)

_log = logging.getLogger(__name__)


class View(NamedTuple):
    """A picture of a camera."""

    camera: str
    height: int
    width: int
    """Pixels."""
    farthest: float
    """How far the camera sees (m)."""
    offset: float = 0.0
    """By how much of the picture's height all moves up and to the right."""


class Renderer(ABC):
    """Draws the views of a state. Holds buffers and no state of the world, so environments may share it.

    Args:
        model: a compiled mujoco.MjModel; its colours and lights may change between two pictures.
        views: what to draw.
    """

    def __init__(self, model: Any, views: Sequence[View]) -> None:
        self._model, self._views = model, views
        self._cameras = [model.camera(view.camera).id for view in views]

    @abstractmethod
    def draw(self, data: Any) -> list[Image]:
        """A picture [height, width, 3] of every view.

        Args:
            data: mujoco.MjData with up-to-date kinematics and cameras.
        """


class GLRenderer(Renderer):
    """Classic MuJoCo rendering off screen; the views lie side by side in one buffer and are read back at once."""

    def __init__(self, backend: str, model: Any, views: Sequence[View]) -> None:
        super().__init__(model, views)
        self._gl = _gl_context(backend)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        atexit.register(self._free)
        # the left edge of each view, and of what lies beyond the last one
        self._lefts = list(accumulate((view.width for view in views), initial=0))
        width, height = self._lefts[-1], max(view.height for view in views)
        mujoco.mjr_resizeOffscreen(width, height, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2 * model.ngeom)
        for flag in ("SHADOW", "REFLECTION", "HAZE"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False
        self._options, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._pixels = np.empty((height, width, 3), np.uint8)

    def _free(self) -> None:
        # before the display goes: handlers run in reverse order, and the display's was registered earlier
        self._gl.make_current()
        self._context.free()

    def draw(self, data: Any) -> list[Image]:
        """See `Renderer.draw`."""
        model, everything = self._model, mujoco.mjtCatBit.mjCAT_ALL.value
        self._gl.make_current()
        # another renderer of this process may have bound its own buffer since
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        for place, view in enumerate(self._views):
            self._camera.fixedcamid = self._cameras[place]
            if place == 0:
                mujoco.mjv_updateScene(model, data, self._options, None, self._camera, everything, self._scene)
            else:
                mujoco.mjv_updateCamera(model, data, self._camera, self._scene)
            self._aim(view.farthest, view.offset)
            here = mujoco.MjrRect(self._lefts[place], 0, view.width, view.height)
            mujoco.mjr_render(here, self._scene, self._context)
        height, width, _ = self._pixels.shape
        mujoco.mjr_readPixels(self._pixels, None, mujoco.MjrRect(0, 0, width, height), self._context)
        return [self._cut(*which) for which in zip(self._views, self._lefts[:-1], strict=True)]

    def _cut(self, view: View, left: int) -> Image:
        # GL counts rows from below
        return np.ascontiguousarray(self._pixels[: view.height, left : left + view.width][::-1])

    def _aim(self, farthest: float, offset: float) -> None:
        for eye in self._scene.camera:
            shift = offset * (eye.frustum_top - eye.frustum_bottom)
            eye.frustum_far, eye.frustum_center = farthest, eye.frustum_center - shift
            eye.frustum_top, eye.frustum_bottom = eye.frustum_top - shift, eye.frustum_bottom - shift


class RayRenderer(Renderer):
    """One ray per pixel and Lambert's law with the lights that GL uses: about six times slower, needs no library."""

    def __init__(self, model: Any, views: Sequence[View]) -> None:
        super().__init__(model, views)
        self._groups = np.zeros(6, np.uint8)
        self._groups[VISIBLE] = 1
        self._textures = model.mat_texid[:, mujoco.mjtTextureRole.mjTEXROLE_RGB]
        self._directions = [self._pixel_directions(*which) for which in zip(self._cameras, views, strict=True)]

    def _pixel_directions(self, camera: int, view: View) -> Array:
        """[rays, 3] unit vectors in the camera's frame, row by row from the top left."""
        half = np.tan(np.deg2rad(self._model.cam_fovy[camera]) / 2)
        down = (np.arange(view.height) + 0.5) / view.height * 2 - 1
        # of the height, so that pixels are square
        across = ((np.arange(view.width) + 0.5) / view.width * 2 - 1) * (view.width / view.height)
        y, x = np.meshgrid((-down - 2 * view.offset) * half, (across - 2 * view.offset) * half, indexing="ij")
        rays = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3)
        unit: Array = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        return unit

    def draw(self, data: Any) -> list[Image]:
        """See `Renderer.draw`."""
        return [self._trace(data, *eye) for eye in zip(self._cameras, self._directions, self._views, strict=True)]

    def _trace(self, data: Any, camera: int, directions: Array, view: View) -> Image:
        model, count = self._model, len(directions)
        geoms, distances, flat = np.zeros(count, np.int32), np.zeros(count), np.zeros(3 * count)
        rays = directions @ data.cam_xmat[camera].reshape(3, 3).T
        mujoco.mj_multiRay(
            model, data, data.cam_xpos[camera], rays.ravel(), self._groups, 1, -1,
            geoms, distances, flat, count, model.vis.map.zfar,
        )  # fmt: skip
        colours = self._colours(data, geoms, data.cam_xpos[camera] + distances[:, None] * rays)
        # [rays, 3]
        normals = flat.reshape(-1, 3)
        brightness = np.zeros_like(normals)
        for lamp in range(model.nlight):
            facing = np.clip(-normals @ model.light_dir[lamp], 0, 1)[:, None]
            brightness += model.light_ambient[lamp] + facing * model.light_diffuse[lamp]
        shaded = np.clip(colours * brightness, 0, 1)
        # the camera looks along -z of its frame
        depth = -directions[:, 2] * distances
        shaded[(geoms < 0) | (depth > view.farthest)] = SKY / 255
        return (shaded * 255 + 0.5).astype(np.uint8).reshape(view.height, view.width, 3)

    def _colours(self, data: Any, geoms: NDArray[np.int32], points: Array) -> Array:
        """[rays, 3] colours of what the rays hit at `points`, textures as GL maps them: by the geom's own x and y."""
        model = self._model
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


def renderer(name: str, model: Any, views: Sequence[View]) -> Renderer:
    """A renderer of some views.

    Args:
        name: what `choose` returned.
        model: see `Renderer`.
        views: see `Renderer`.

    Raises:
        UserError: the backend does not work here; the message names the packages it needs.
    """
    return RayRenderer(model, views) if name == "rays" else GLRenderer(name, model, views)


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


@lru_cache
def works(backend: str) -> bool:
    """Whether EGL or OSMesa draws here. Tried in a process of its own, once: a broken driver may crash it, and a failed
    import of one backend would spoil the other."""
    search = f"import sys; sys.path[:] = {sys.path!r}; "
    trial = search + f"from envs import drawing; drawing.draw_nothing({backend!r})"
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


def draw_nothing(backend: str) -> None:
    """Draw an empty world by a GL backend.

    Raises:
        UserError: the backend does not work here.
    """
    spec = mujoco.MjSpec()
    spec.worldbody.add_camera(name="eye")
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    GLRenderer(backend, model, [View("eye", 16, 16, 1.0)]).draw(data)


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

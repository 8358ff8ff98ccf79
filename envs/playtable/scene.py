"""The table: CALVIN's scenes rebuilt from boxes, capsules and cylinders, with their joints, ranges and resistances.

Coordinates are CALVIN's world metres. Moving parts are bodies at the world's origin (or at the foot of the inclined
panel), so every shape is written where it stands in scene D when its joint is at zero; the other scenes shift them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import mujoco
import numpy as np

from envs.drawing import VISIBLE
from envs.playtable.looks import add_materials, look_of
from envs.playtable.robot import FINGER_BOXES, HIDDEN, NO_CONTACT, add_panda, add_servo
from envs.playtable.rotation import Array
from envs.playtable.scenes import SCENES, Scene, get_scene
from envs.tasks import LYING, RANGES

TIMESTEP: Final = 1 / 240
SUBSTEPS: Final = 8

D: Final = SCENES["D"]
TABLE_TOP: Final = 0.44
# half travel: where the button toggles the led, where the switch turns the bulb on
BUTTON_TRIGGER: Final = RANGES["button"] / 2
SWITCH_TRIGGER: Final = RANGES["switch"] / 2

GRAVITY: Final = 9.8
# how much force moves drawer, door and switch (N), and pushes the button out
DRY_FRICTION: Final = 4.0
BUTTON_MASS, BUTTON_DAMPING = 0.154, 60.0
BLOCK_MASS: Final = 1.0
# ends of travel: the arm presses CALVIN's button 3 to 8 mm past its own, and a softer one further
STIFF_LIMIT: Final = [0.93, 0.98]
# Bullet multiplies the friction of the two that touch (finger 1, block 0.7, else 0.5), MuJoCo takes the larger: so each
# carries its product with the table, and blocks between fingers have a rule of their own
BLOCK_FRICTION, GRIP_FRICTION = 0.35, 0.7
# A contact with the light fingers that is as hard as the others throws a gripped block out: one that yields more and
# begins earlier (m) holds it. Episodes of what is fixed to the table keep the hard one, with which they were measured.
GRIP_SOLREF, GRIP_SOLIMP, GRIP_MARGIN = [-4000, -240], [0.8, 0.9, 0.001], 0.004

# Bullet's convex pieces touch fingers before the shapes do that are seen: by so much (m), as measured there
EARLIER: Final = {"drawer": 0.0027, "slider": 0.0055, "button": 0.0017}

CAMERAS: Final = ("static", "gripper")
# CALVIN's static camera
EYE: Final = np.array([2.871459, -2.166602, 2.555160])
AIM: Final = np.array([-0.026242, -0.030233, 0.392])
UP: Final = np.array([0.404140, 0.226298, 0.886262])
FIELD_OF_VIEW: Final = 10.0
# how far cameras see (m); beyond, where the floor would go on, they see nothing. The one in the hand is as CALVIN's,
# whose static camera ends at 10 m: all that is in its view lies within 6
FARTHEST: Final = {"static": 20.0, "gripper": 2.0}
# its renderer samples pixels of 200 and 84 at a corner: half a pixel up and to the right, in sides of the image
OFFSET: Final = {"static": 0.5 / 200, "gripper": 0.5 / 84}

# materials, see looks.py
WOOD, SHADED, INSIDE, DRAWER, DOOR = "wood", "frame", "inside", "drawer", "door"
BLACK, FLOOR, KNOB, CAP, COLLAR, SLOT = "metal", "floor", "lever", "cap", "collar", "slot"

CONTACT_SOLREF, CONTACT_SOLIMP = [0.008, 1], [0.95, 0.99, 0.001]
TABLE_CONTACT: Final = {"contype": 1, "conaffinity": 6}
BLOCK_CONTACT: Final = {"contype": 4, "conaffinity": 7}

Range = tuple[float, float]


def model(name: str = "D", *, gripping: bool = False) -> Any:
    """The compiled model of a scene, one per process. Only its look may be changed, and only to render.

    Args:
        name: of the scene.
        gripping: with fingers that can hold a block, for the tasks of blocks.
    """
    return _compiled(name, gripping)


@lru_cache(maxsize=2 * len(SCENES))
def _compiled(name: str, gripping: bool) -> Any:
    return build(get_scene(name), gripping=gripping).compile()


def build(scene: Scene = D, *, gripping: bool = False) -> Any:
    """The table with the robot, as a mujoco.MjSpec; arguments as for `model`."""
    spec = mujoco.MjSpec()
    spec.modelname = "play_table"
    spec.compiler.degree = False
    _set_physics(spec)
    _set_visuals(spec)
    add_materials(spec, look_of(scene))
    world = spec.worldbody
    _add_cameras(world)
    _add_desk(world, scene)
    _add_drawer(world, scene)
    _add_slider(world, scene)
    _add_switch(world, scene)
    _add_button(world, scene)
    _add_lights(world, scene)
    _add_blocks(world, scene)
    add_panda(spec)
    _add_button_servo(spec)
    _add_block_friction(spec, scene, gripping=gripping)
    return spec


def _set_physics(spec: Any) -> None:
    option = spec.option
    option.timestep, option.gravity = TIMESTEP, [0, 0, -GRAVITY]
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio, option.iterations, option.ls_iterations = 10, 20, 20
    geom = spec.default.geom
    geom.solref[:2], geom.solimp[:3] = CONTACT_SOLREF, CONTACT_SOLIMP
    geom.friction, geom.group = [0.25, 0.001, 0.0001], VISIBLE


def _set_visuals(spec: Any) -> None:
    """No shadows, no multisampling, coarse round shapes: a frame of 64 pixels costs half a millisecond in software."""
    visual = spec.visual
    visual.quality.shadowsize, visual.quality.offsamples = 0, 0
    visual.quality.numslices, visual.quality.numstacks, visual.quality.numquads = 12, 6, 1
    # lights of the world only: what a camera sees must not depend on where another camera looks
    visual.headlight.active = 0
    visual.map.znear, visual.map.zfar = 0.005, 20
    spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0.4]


def _add_cameras(world: Any) -> None:
    camera = world.add_camera(name="static", pos=EYE, fovy=FIELD_OF_VIEW)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = np.concatenate(look_at(EYE, AIM, UP)[:2])


def look_at(eye: Array, aim: Array, up: Array) -> tuple[Array, Array, Array]:
    """Right, up and back of a camera at `eye` that looks at `aim`, each [3] in the world."""
    forward = aim - eye
    right = np.cross(forward, up)
    above = np.cross(right, forward)
    return right / np.linalg.norm(right), above / np.linalg.norm(above), -forward / np.linalg.norm(forward)


def _box(body: Any, x: Range, y: Range, z: Range, colour: str, **options: Any) -> Any:
    """A box by its extents along the body's axes."""
    low, high = np.array([x, y, z]).T
    settings = {**TABLE_CONTACT, "material": colour, **options}
    return body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=(low + high) / 2, size=(high - low) / 2, **settings)


def _bar(
    body: Any, start: tuple[float, ...], end: tuple[float, ...], radius: float, colour: str, **options: Any
) -> Any:
    """A capsule between two points."""
    settings = {**TABLE_CONTACT, "material": colour, **options}
    return body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0], **settings)


def _disc(body: Any, centre: tuple[float, float], z: Range, radius: float, colour: str, **options: Any) -> Any:
    """An upright cylinder."""
    settings = {**TABLE_CONTACT, "material": colour, **options}
    position, size = [*centre, sum(z) / 2], [radius, (z[1] - z[0]) / 2, 0]
    return body.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, pos=position, size=size, **settings)


def _panel_body(world: Any, name: str, shift: float = 0.0) -> Any:
    """A body at the foot of the inclined panel: x as in the world, y up the slope, z out of it towards the robot."""
    angle = np.pi / 3
    return world.add_body(name=name, pos=[shift, 0.02, TABLE_TOP], quat=[np.cos(angle / 2), np.sin(angle / 2), 0, 0])


def _slide(body: Any, name: str, axis: tuple[float, float, float], scene: Scene, *, mass: float) -> None:
    """The joint of a part, whose mass (kg) is CALVIN's. Dry friction holds it where it is left; nothing else does."""
    joint = body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, range=[0, scene.ranges[name]])
    joint.solimp_limit[:2] = STIFF_LIMIT
    if name != "button":
        joint.frictionloss, joint.solref_friction[:], joint.solimp_friction[:2] = (
            DRY_FRICTION,
            [0.005, 1],
            [0.999, 0.9999],
        )
    body.explicitinertial = True
    body.mass, body.inertia = mass, [0.01 * mass] * 3


def _add_desk(world: Any, scene: Scene) -> None:
    # a finite floor: an endless plane is tessellated and costs five times the frame
    world.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[8, 8, 1], material=FLOOR, **TABLE_CONTACT)
    world.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=[-0.39, -0.46, 0.12],
        size=[0.13, 0.12, 0],
        rgba=[0.90] * 3 + [1],
        **NO_CONTACT,
    )
    desk = world.add_body(name="desk")
    for x in ((-0.44, -0.40), (0.40, 0.44)):
        for y in ((-0.18, -0.148), (0.148, 0.18)):
            _box(desk, x, y, (0, 0.30), SHADED)
    _box(desk, (-0.44, 0.44), (-0.18, 0.18), (0.40, TABLE_TOP), WOOD, name="top")
    _box(desk, (-0.42, 0.42), (-0.16, 0.16), (0.30, 0.32), SHADED)
    hole = (scene.drawer - 0.20, scene.drawer + 0.20)
    for x in ((-0.42, hole[0]), (hole[1], 0.42)):
        _box(desk, x, (-0.16, 0.16), (0.32, 0.40), SHADED)
    for x in ((-0.44, -0.40), (0.40, 0.44)):
        for y in ((-0.18, -0.148), (0.148, 0.18)):
            _box(desk, x, y, (0.30, 0.40), SHADED)
    _box(desk, hole, (0.06, 0.16), (0.32, 0.40), SHADED)
    _box(desk, (-0.44, 0.44), (0.16, 0.18), (TABLE_TOP, 0.648), INSIDE)
    _box(desk, (-0.44, 0.44), (0.14, 0.18), (0.628, 0.648), SHADED)
    left, right = scene.cabinet
    for x in ((-0.44, -0.43), (left, left + 0.02), (right - 0.02, right), (0.43, 0.44)):
        _box(desk, x, (0.10, 0.18), (TABLE_TOP, 0.64), SHADED)
    panel = _panel_body(world, "panel")
    for x in ((-0.44, left + 0.02), (right - 0.02, 0.44)):
        _box(panel, x, (0, 0.24), (-0.02, 0), WOOD)
    _box(panel, (left, right), (0.217, 0.24), (-0.02, 0), SHADED)
    for slot in (scene.switch - 0.05, scene.switch + 0.05):
        _box(panel, (slot - 0.01, slot + 0.01), (0.055, 0.185), (0, 0.001), SLOT, **NO_CONTACT)


def _add_drawer(world: Any, scene: Scene) -> None:
    drawer = world.add_body(name="drawer", pos=[scene.drawer - D.drawer, 0, 0])
    _slide(drawer, "drawer", (0, -1, 0), scene, mass=4.231)
    _box(drawer, (-0.041, 0.401), (-0.182, -0.157), (0.299, 0.401), DRAWER)
    _box(drawer, (-0.020, 0.380), (0.038, 0.060), (0.319, 0.399), DRAWER)
    _box(drawer, (-0.020, 0.003), (-0.157, 0.038), (0.319, 0.399), DRAWER)
    _box(drawer, (0.357, 0.380), (-0.157, 0.038), (0.319, 0.399), DRAWER)
    _box(drawer, (0.003, 0.357), (-0.157, 0.038), (0.319, 0.341), INSIDE)
    for x in ((0.0594, 0.0841), (0.2759, 0.3006)):
        _box(drawer, x, (-0.261, -0.182), (0.340, 0.381), BLACK, margin=EARLIER["drawer"], group=HIDDEN)
    _box(drawer, (0.0841, 0.2759), (-0.261, -0.238), (0.340, 0.380), BLACK, margin=EARLIER["drawer"], group=HIDDEN)
    # CALVIN's bars are round: what is seen of them is thinner than what is touched
    for x in ((0.0615, 0.0805), (0.2795, 0.2985)):
        _box(drawer, x, (-0.257, -0.182), (0.344, 0.376), BLACK, **NO_CONTACT)
    _box(drawer, (0.0615, 0.2985), (-0.259, -0.242), (0.344, 0.376), BLACK, **NO_CONTACT)
    drawer.add_site(name="drawer_handle", pos=[0.18, -0.25, 0.36], group=4)


def _add_slider(world: Any, scene: Scene) -> None:
    door = _panel_body(world, "slider", scene.door - D.door)
    _slide(door, "slider", (-1, 0, 0), scene, mass=1.543)
    _box(door, (-0.10, 0.18), (-0.010, 0.230), (0, 0.0215), DOOR)
    # the ends are rounded: hard corners would touch the hand
    for y in ((0.030, 0.052), (0.168, 0.191)):
        _box(door, (0.0192, 0.0608), y, (0.0215, 0.073), BLACK, margin=EARLIER["slider"])
    _box(door, (0.0192, 0.0608), (0.036, 0.185), (0.0575, 0.080), BLACK, margin=EARLIER["slider"])
    door.add_site(name="slider_handle", pos=[0.04, 0.11, 0.069], group=4)


def _add_switch(world: Any, scene: Scene) -> None:
    """A wide bar on two legs, to be lifted from below and pressed from above."""
    switch = _panel_body(world, "switch", scene.switch - D.switch)
    _slide(switch, "switch", (0, 1, 0), scene, mass=0.239)
    for x in ((0.2397, 0.2604), (0.3386, 0.3602)):
        _box(switch, x, (0.059, 0.091), (0.001, 0.0336), KNOB)
    _box(switch, (0.2397, 0.3602), (0.059, 0.091), (0.0336, 0.0563), KNOB)
    switch.add_site(name="switch_lever", pos=[0.30, 0.076, 0.045], group=4)


def _add_button(world: Any, scene: Scene) -> None:
    button = world.add_body(name="button", pos=[scene.button - D.button, 0, 0], gravcomp=1)
    _slide(button, "button", (0, 0, -1), scene, mass=BUTTON_MASS)
    _disc(button, (-0.12, -0.12), (0.460, 0.484), 0.032, CAP, margin=EARLIER["button"])
    button.add_site(name="button", pos=[-0.12, -0.12, 0.484], group=4)
    # a body of its own: rays find a body's shapes only where its solid ones are, and the world's have no end
    _disc(world.add_body(name="collar"), (scene.button, -0.12), (0.44, 0.46), 0.040, COLLAR)


def _add_button_servo(spec: Any) -> None:
    """Bullet's motor pushes the button out with 4 N, of which it needs some against the cap's weight."""
    add_servo(spec, "button", BUTTON_DAMPING, (0, 0))
    weight = BUTTON_MASS * GRAVITY
    servo = spec.actuator("button")
    servo.forcelimited, servo.forcerange = 1, [weight - DRY_FRICTION, weight + DRY_FRICTION]


def _add_lights(world: Any, scene: Scene) -> None:
    # their colours are set when they are drawn
    led = (scene.button - 0.08, scene.button + 0.08)
    _box(world, led, (0.14, 0.18), (0.648, 0.664), "led", name="led", **NO_CONTACT)
    ball = mujoco.mjtGeom.mjGEOM_SPHERE
    place = {"pos": [scene.switch, 0.16, 0.6696], "size": [0.028, 0, 0], **NO_CONTACT}
    world.add_geom(name="lightbulb", type=ball, material="lightbulb", **place)


def _add_blocks(world: Any, scene: Scene) -> None:
    for place, (name, size) in enumerate(scene.blocks):
        block = world.add_body(name=name, pos=[0.12 * place, -0.1, LYING])
        block.add_freejoint(name=name)
        look = {"name": name, "material": name, "friction": [BLOCK_FRICTION, 0.001, 0.0001], "condim": 4}
        block.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, mass=BLOCK_MASS, **look, **BLOCK_CONTACT)


def _add_block_friction(spec: Any, scene: Scene, *, gripping: bool) -> None:
    fingers = [f"finger_{side}_{part}" for side in ("left", "right") for part in FINGER_BOXES]
    for name, _ in scene.blocks:
        for finger in fingers:
            pair = spec.add_pair(geomname1=name, geomname2=finger, condim=4)
            pair.friction[:3] = [GRIP_FRICTION, GRIP_FRICTION, 0.001]
            pair.solref[:], pair.solimp[:3] = CONTACT_SOLREF, CONTACT_SOLIMP
            if gripping:
                pair.solref[:], pair.solimp[:3], pair.margin = GRIP_SOLREF, GRIP_SOLIMP, GRIP_MARGIN

"""What of the embedded table is compared with CALVIN by looking into its model: sizes, forces, cameras; scene D."""

from __future__ import annotations

from typing import Any, Final

import mujoco
import numpy as np

from envs.playtable.env import PlayTableEnv
from envs.playtable.robot import LINKS, TCP_IN_HAND
from envs.playtable.rotation import Array
from envs.playtable.scene import SUBSTEPS, look_at, model
from envs.playtable.tools.measure import AT_HOME, MILLIMETRES, Values, table_at_rest
from envs.playtable.tools.replay import CARRIED, load_recording
from envs.tasks import EIGHT, LIGHT_JOINTS, TASKS
from worldaction.spec import CONTROL_HZ, ROBOT, ROBOT_FIELDS, SCENE

PULLS: Final = {
    "drawer": ("drawer pulled by 3.9, 5 N for 0.5 s moves (mm)", (3.9, 5.0)),
    "slider": ("door pulled by 3.9, 5 N for 0.5 s moves (mm)", (3.9, 5.0)),
    "switch": ("lever lifted by 6, 8 N for 0.5 s moves (mm)", (6.0, 8.0)),
    "button": ("button pushed by 3 N for 0.5 s moves (mm)", (3.0,)),
}


def properties(env: PlayTableEnv, cameras: dict[str, Any]) -> Values:
    """Values by the names under which docs/playtable.md lists them.

    Args:
        env: in scene D.
        cameras: CALVIN's, as in calvin_facts.json.
    """
    return {**_sizes(env), **_forces(env), **_cameras(env, cameras), **_reset(env)}


def _sizes(env: PlayTableEnv) -> Values:
    table = model("D")
    low, high = np.array([link.limits for link in LINKS]).T
    blocks = [name for name, _ in env.scene.blocks]
    parts = ("drawer", "slider", "button", "switch")
    travel = [float(table.joint(name).range[1]) for name in ("slider", "drawer", "button", "switch")]
    tip, finger = table.geom("finger_left_tip"), table.body("finger_left")
    beyond = float(finger.pos[2] + tip.pos[2] + tip.size[2]) - TCP_IN_HAND
    return {
        "travel of slider, drawer, button, switch (mm)": [MILLIMETRES * end for end in travel],
        "arm joints, lower limits (rad)": low.tolist(),
        "arm joints, upper limits (rad)": high.tolist(),
        "fingertip beyond the TCP (mm)": [MILLIMETRES * beyond],
        "mass of drawer, door, button, lever (kg)": [float(table.body(name).mass.item()) for name in parts],
        "mass of each block (kg)": [float(table.body(name).mass.item()) for name in blocks],
        "sides of red, blue, pink block (mm)": [
            2 * MILLIMETRES * float(half) for name in blocks for half in table.geom(name).size
        ],
        "drawer opened, closed, door left, right: done beyond (mm)": [
            MILLIMETRES * task.delta for name in EIGHT if (task := TASKS[name]).field not in LIGHT_JOINTS
        ],
    }


def _forces(env: PlayTableEnv) -> Values:
    return {name: [_pulled(env, part, force) for force in forces] for part, (name, forces) in PULLS.items()}


def _pulled(env: PlayTableEnv, part: str, force: float) -> float:
    """How far a force (N) along its joint moves a part in half a second (mm), at most to its end."""
    _at_home(env)
    joint = model("D").joint(part)
    for _ in range(CONTROL_HZ * SUBSTEPS // 2):
        env.data.qfrc_applied[joint.dofadr[0]] = force
        mujoco.mj_step(model("D"), env.data)
    return MILLIMETRES * min(float(env.data.qpos[joint.qposadr[0]]), float(joint.range[1]))


def _at_home(env: PlayTableEnv) -> None:
    env.reset(seed=0, options={ROBOT: AT_HOME, SCENE: table_at_rest()})


def _reset(env: PlayTableEnv) -> Values:
    """How far the arm's joints are from those of recorded states after a reset to them."""
    recording = load_recording(CARRIED / "calvin_D.npz")
    joints, off = ROBOT_FIELDS["joints"], 0.0
    for window in recording.windows:
        robot = recording.robot_obs[window.start]
        env.reset(seed=0, options={ROBOT: robot, SCENE: recording.scene_obs[window.start]})
        off = max(off, float(np.abs(env.robot_obs()[joints] - robot[joints]).max()))
    return {"arm joints after a reset to a recorded state: farthest off (rad)": [off]}


# ---- cameras


def _cameras(env: PlayTableEnv, facts: dict[str, Any]) -> Values:
    """How far from where CALVIN's cameras see them points are seen."""
    _at_home(env)
    static, gripper = facts["static"], facts["gripper"]
    eye, aim, up = (np.array(static[name]) for name in ("position", "target", "up"))
    apart = {
        "static": _pixels_apart(env, "static", static, np.array(static["points"]), eye, np.stack(look_at(eye, aim, up)))
    }
    # this one is given in the frame of the TCP
    turned = env.data.site("tcp").xmat.reshape(3, 3)
    place = env.tcp_position + turned @ np.array(gripper["position"])
    points = env.tcp_position + np.array(gripper["points"]) @ turned.T
    axes = np.stack(look_at(np.zeros(3), np.array(gripper["forward"]), np.array(gripper["up"])))
    apart["gripper"] = _pixels_apart(env, "gripper", gripper, points, place, axes @ turned.T)
    return {
        f"{name} camera: farthest of {len(facts[name]['points'])} points from its pixel "
        f"(pixels of {2 * facts[name]['centre']})": [value]
        for name, value in apart.items()
    }


def _pixels_apart(
    env: PlayTableEnv, name: str, facts: dict[str, Any], points: Array, place: Array, axes: Array
) -> float:
    """Largest distance (pixels) between projections of points [N, 3] by CALVIN's camera and by ours.

    Args:
        env: whose camera it is.
        name: of the camera.
        facts: focal length and centre of the image (pixels).
        points: in the world (m).
        place: [3] of CALVIN's camera (m).
        axes: [3, 3] its right, up and back, one a row.
    """
    camera = env.data.camera(name)
    opening = np.deg2rad(model("D").camera(name).fovy.item())
    focal = facts["centre"] / np.tan(opening / 2)
    theirs = _project(points, place, axes, facts["focal"])
    ours = _project(points, camera.xpos, camera.xmat.reshape(3, 3).T, focal)
    return float(np.linalg.norm(theirs - ours, axis=1).max())


def _project(points: Array, place: Array, axes: Array, focal: float) -> Array:
    """[N, 2] pixels right of and above the middle of the image."""
    right, up, back = axes @ (points - place).T
    pixels: Array = focal * np.stack([right, up], 1) / -back[:, None]
    return pixels

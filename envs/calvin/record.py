"""Records scripted experts in the real simulator, with what was truly commanded: for replays in the embedded table.

worldaction table record --out recording.npz --episodes 5
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from contextlib import closing
from itertools import count

import numpy as np

from envs.calvin.env import CalvinEnv
from envs.episodes import Noise
from envs.playtable.expert import Expert
from envs.playtable.tools.replay import Recording, Window, save_recording
from envs.table import Array, Table
from envs.tasks import EIGHT, get_task
from worldaction.errors import UserError

logger = logging.getLogger(__name__)

# frames after success, and the longest attempt without it
TAIL, LIMIT = 2, 120
# attempts per episode that is wanted
ATTEMPTS = 4

Rows = list[tuple[Array, Array, Array, Array]]


def record(
    env: Table,
    tasks: Sequence[str] = EIGHT,
    *,
    episodes: int = 5,
    noise: float = 0.12,
    seed: int = 0,
    source: str,
) -> Recording:
    """Successful episodes of every task, one window each.

    Args:
        env: the table; without cameras it is 40 times as fast.
        tasks: their names.
        source: what makes it, in a sentence.
        episodes: successes of each task.
        noise: standard deviation of the correlated noise on the expert's actions (units of the action).
        seed: of the first start and noise; every attempt takes the next.

    Raises:
        UserError: an unknown task, fewer than one episode, or an expert that hardly ever succeeds.
    """
    if episodes < 1:
        raise UserError(f"episodes {episodes} must be at least 1")
    rows: Rows = []
    windows: list[Window] = []
    for task in (get_task(name).name for name in tasks):
        done = 0
        for attempt in count():
            if attempt == ATTEMPTS * episodes:
                raise UserError(f"{done} of {attempt} attempts at {task} succeeded with noise {noise}; lower the noise")
            new, success = _attempt(env, task, seed + attempt, noise)
            if success:
                windows.append(Window(task, len(rows), len(rows) + len(new)))
                rows += new
                done += 1
            if done == episodes:
                logger.info("%s: %d of %d attempts succeeded", task, done, attempt + 1)
                break
    robot, scene, action, target = (np.stack(column).astype(np.float32) for column in zip(*rows, strict=True))
    return Recording(robot, scene, action, target, tuple(windows), scene=env.scene.name, source=source)


def _attempt(env: Table, task: str, seed: int, noise: float) -> tuple[Rows, bool]:
    """Frames from the start to a little after success: robot_obs, scene_obs, action, target."""
    env.reset(seed=seed, options={"task": task})
    expert, shaken = Expert(env, task), Noise(np.random.default_rng(seed), noise)
    rows: Rows = []
    since: int | None = None
    while since != TAIL and (since is not None or len(rows) < LIMIT):
        # what is recorded is what is executed, to the last bit
        action = shaken.add(expert.act()).astype(np.float32).astype(np.float64)
        target = np.concatenate([env.target_position, env.target_euler])
        rows.append((env.robot_obs(), env.scene_obs(), action, target))
        _, _, success, _, _ = env.step(action)
        since = (0 if success else None) if since is None else since + 1
    return rows, since is not None


def main(arguments: Sequence[str] | None = None) -> None:
    """Records and writes a file."""
    parser = argparse.ArgumentParser(
        prog="worldaction table record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="the .npz to write")
    parser.add_argument("--scene", default="D", help="which of CALVIN's tables: A, B, C or D")
    parser.add_argument("--tasks", nargs="+", default=list(EIGHT), help="names of tasks")
    parser.add_argument("--episodes", type=int, default=5, help="successes per task")
    parser.add_argument("--noise", type=float, default=0.12, help="noise of the experts, in units of the action")
    parser.add_argument("--seed", type=int, default=0, help="of the first start")
    options = parser.parse_args(arguments)
    settings = {"episodes": options.episodes, "noise": options.noise, "seed": options.seed}
    try:
        with closing(CalvinEnv(cameras=False, scene=options.scene)) as env:
            made_by = f"scripted experts in calvin_env {env.about['calvin_env'][:10]}, {settings}"
            save_recording(options.out, record(env, options.tasks, source=made_by, **settings))
    except UserError as error:
        parser.exit(2, f"error: {error}\n")

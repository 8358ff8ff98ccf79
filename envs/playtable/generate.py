"""Play data, near misses and demonstrations from scripted experts with correlated noise.

Every episode is a function of its seed: how jobs are spread over processes does not change the data. Play chains
feasible skills of varying sloppiness with aimless moves; near misses aim badly, and half of them hurry, so that the
world model also sees where a task fails; demonstrations succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from envs import episodes
from envs.episodes import Arrays, Job, MadeEpisode, Noise, Recorder, demonstrate, write_shard
from envs.playtable.env import PlayTableEnv
from envs.playtable.expert import CLOSED, DOWN, OPEN, Expert, steer
from envs.playtable.stress import stressed
from envs.table import Table
from envs.tasks import BLOCK_TASKS, EIGHT, extra_skills, get_task, possible_tasks
from worldaction.config import PlayConfig, StressConfig, TableConfig, to_dict
from worldaction.errors import unknown
from worldaction.spec import CALVIN, Layout

# what play chooses from (metres of offset, noise in units of the action)
PLAY_OFFSETS: Final = (0.0, 0.01, 0.025, 0.04)
PLAY_NOISES: Final = (0.1, 0.3, 0.5)
PLAY_LIMIT: Final = 130
# shares of the full speed, in play and near misses
PACES: Final = (0.5, 1.0)
RANDOM_SHARE: Final = 0.5
RANDOM_LENGTH: Final = (8, 25)
RANDOM_LOW, RANDOM_HIGH = np.array([-0.40, -0.45, 0.34]), np.array([0.40, 0.05, 0.70])
RANDOM_NOISE: Final = np.array([0.5, 0.5, 0.5, 0.3, 0.3, 0.3])
DEMO_OFFSET, DEMO_TAIL, DEMO_LIMIT = 0.004, 4, 90
# tasks of blocks take longer
BLOCK_LIMIT: Final = 150
# about three in ten miss
NEAR_MISS_OFFSETS: Final = (0.01, 0.025, 0.045)
NEAR_MISS_NOISES: Final = (0.2, 0.5)
# those of a near miss that does not hurry, in shares of the demonstrator's
STEADINESS: Final = (0.6, 1.0, 1.4)
NEAR_MISS_TAIL, NEAR_MISS_LIMIT = 8, 80

OFF: Final = StressConfig()


def play_episode(env: Table, seed: int, frames: int, skills: Sequence[str] = ()) -> Arrays:
    """Chained skills and aimless moves from a random scene.

    Args:
        env: with cameras, or without to leave the images out.
        seed: names the episode.
        frames: its length T.
        skills: tasks of blocks that are attempted, too; the episode starts as one of them does.

    Returns:
        arrays [T, ...]: the cameras, robot_obs, scene_obs, action.
    """
    rng, far = np.random.default_rng([seed, 0]), env.scene.ranges["slider"]
    scene = {
        "slider": rng.choice([0.0, far, rng.uniform(0, far)]),
        "drawer": rng.choice([0.0, 0.20, rng.uniform(0, 0.20)]),
        "switch": rng.choice([0.0, 0.088]),
        "led": float(rng.integers(2)),
    }
    # any of the eight will do, if it is always the same: the start depends on it
    start = {"task": str(rng.choice(skills)) if skills else EIGHT[0], "scene": scene}
    recorder = Recorder(env, env.reset(seed=seed, options=start)[0])
    while len(recorder) < frames:
        left = frames - len(recorder)
        if rng.random() < RANDOM_SHARE:
            _move_anywhere(env, recorder, rng, left)
        else:
            _try_skill(env, recorder, rng, left, (*EIGHT, *skills))
    return recorder.arrays()


def _move_anywhere(env: Table, recorder: Recorder, rng: np.random.Generator, left: int) -> None:
    goal, gripper = rng.uniform(RANDOM_LOW, RANDOM_HIGH), rng.choice([CLOSED, OPEN])
    noise = Noise(rng, RANDOM_NOISE)
    for _ in range(min(left, int(rng.integers(*RANDOM_LENGTH)))):
        action = steer(env, goal, DOWN, gripper)
        action[3:6] *= 0.3
        recorder.step(noise.add(action))


def _try_skill(env: Table, recorder: Recorder, rng: np.random.Generator, left: int, skills: Sequence[str]) -> None:
    task = str(rng.choice(possible_tasks(env.scene_obs(), env.scene.name, skills)))
    expert = Expert(env, task, rng, offset=float(rng.choice(PLAY_OFFSETS)), pace=float(rng.uniform(*PACES)))
    noise = Noise(rng, float(rng.choice(PLAY_NOISES)))
    for _ in range(min(left, PLAY_LIMIT)):
        recorder.step(noise.add(expert.act()))
        if expert.done:
            break


def demo_episode(
    env: Table, task: str, seed: int, noise: float, pace: float = 1.0, limit: int = 0
) -> tuple[Arrays, bool]:
    """A careful but shaky demonstrator, recorded until the task is done and a little longer.

    Args:
        env: as for `play_episode`.
        task: name of the task.
        seed: names start and noise.
        noise: standard deviation of the correlated noise (units of the action).
        pace: share of the full speed.
        limit: control steps in which the script is begun again whenever it ends without success; 0: it is run once.

    Returns:
        arrays [T, ...] as for `play_episode`, and whether the task was done.
    """
    rng = np.random.default_rng([seed, 1])
    return _tries(env, task, seed, rng, (DEMO_OFFSET,), noise=noise, pace=pace, limit=limit, tail=DEMO_TAIL)


def near_miss_episode(
    env: Table, task: str, seed: int, noise: float = 0.0, pace: float = 1.0, limit: int = 0
) -> tuple[Arrays, bool]:
    """A sloppy attempt.

    Args:
        env, task, seed: as for `demo_episode`.
        noise, pace: of the demonstrator; a hasty attempt has its own.
        limit: control steps in which a demonstrator who aims badly tries again and again; 0: one hasty attempt.

    Returns:
        as `demo_episode`.
    """
    rng = np.random.default_rng([seed, 2])
    if limit:
        noise *= float(rng.choice(STEADINESS))
        return _tries(env, task, seed, rng, NEAR_MISS_OFFSETS, noise=noise, pace=pace, limit=limit, tail=NEAR_MISS_TAIL)
    offset = float(rng.choice(NEAR_MISS_OFFSETS))
    expert, recorder = _start(env, task, seed, rng, offset=offset, haste=1.0, pace=float(rng.uniform(*PACES)))
    noisy = Noise(rng, float(rng.choice(NEAR_MISS_NOISES)))
    return _attempt(expert, recorder, noisy, limit=_limit(task, NEAR_MISS_LIMIT), tail=NEAR_MISS_TAIL)


def _tries(
    env: Table,
    task: str,
    seed: int,
    rng: np.random.Generator,
    offsets: Sequence[float],
    *,
    noise: float,
    pace: float,
    limit: int,
    tail: int,
) -> tuple[Arrays, bool]:
    """A demonstrator who begins again when the script ends without success, each time aiming anew.

    Args:
        env, task, seed, noise, pace, limit: as for `demo_episode`.
        rng: draws all that is random.
        offsets: of which one is drawn for every try (m).
        tail: frames after success.
    """

    def aim() -> float:
        # nothing is drawn where there is no choice
        return float(rng.choice(offsets)) if len(offsets) > 1 else offsets[0]

    expert, recorder = _start(env, task, seed, rng, offset=aim(), pace=pace)
    shaky = Noise(rng, noise)
    made = _attempt(expert, recorder, shaky, limit=limit or _limit(task, DEMO_LIMIT), tail=tail)
    while recorder.first_success is None and len(recorder) < limit:
        made = _attempt(Expert(env, task, rng, offset=aim(), pace=pace), recorder, shaky, limit=limit, tail=tail)
    return made


def _limit(task: str, limit: int) -> int:
    return BLOCK_LIMIT if task in BLOCK_TASKS else limit


def _start(
    env: Table, task: str, seed: int, rng: np.random.Generator, *, offset: float, haste: float = 0.0, pace: float
) -> tuple[Expert, Recorder]:
    observation, _ = env.reset(seed=seed, options={"task": task})
    return Expert(env, task, rng, offset=offset, haste=haste, pace=pace), Recorder(env, observation)


def _attempt(expert: Expert, recorder: Recorder, noise: Noise, *, limit: int, tail: int) -> tuple[Arrays, bool]:
    # after success the hand goes on where it was going, and rests when the script ends
    while not recorder.ended(limit=limit, tail=tail) and not (expert.done and recorder.first_success is None):
        recorder.step(noise.add(expert.act()))
    return recorder.arrays(), recorder.first_success is not None


def plan(config: PlayConfig, tasks: Sequence[str] = EIGHT) -> list[Job]:
    """The jobs of a study, see `envs.episodes.plan`.

    Raises:
        UserError: an unknown task, or numbers that exceed the seeds reserved for them.
    """
    return episodes.plan(config, [get_task(name).name for name in tasks], extra_skills(tasks))


def generate_shard(
    path: Path | str,
    jobs: Sequence[Job],
    table: TableConfig,
    *,
    seed: int | None = None,
    config: PlayConfig | None = None,
    progress: Callable[[int], object] | None = None,
    source: str = "playtable",
    make: Callable[[TableConfig], Table] | None = None,
    layout: Layout = CALVIN,
) -> None:
    """Makes episodes and writes them to a play store.

    Args:
        path: the folder to create.
        jobs: what to make, in this order; see `plan`.
        table: image size and renderer.
        seed: recorded in the store.
        config: recorded in the store beside the table.
        progress: called with the number of new frames after every episode.
        source: recorded in the store: where the episodes were made.
        make: builds the environment, such as `envs.calvin.env.calvin_table`; None builds the embedded table.
        layout: what a frame of it holds.

    Raises:
        UserError: the renderer does not work, a job is not possible, or the folder cannot be written.
    """
    env = make(table) if make else embedded_table(table)
    recorded = {
        "table": {**to_dict(table), "renderer": env.renderer},
        "play": to_dict(config) if config else None,
        "simulator": dict(env.about),
    }
    with closing(env):
        write_shard(
            path,
            jobs,
            partial(_make, env),
            image_size=table.image_size,
            source=source,
            renderer=env.renderer,
            layout=layout,
            scene=env.scene.name,
            seed=seed,
            config=recorded,
            progress=progress,
        )


def embedded_table(table: TableConfig, *, stress: StressConfig = OFF) -> Table:
    """The play table with a study's options, under the switches that act on play."""
    env: Any = PlayTableEnv(
        image_size=table.image_size, supersample=table.supersample, renderer=table.renderer, scene=table.scene
    )
    harder: Any = stressed(env, stress, playing=True)
    found: Table = harder
    return found


def _make(env: Table, job: Job) -> list[MadeEpisode]:
    """The episodes of a job."""
    if job.kind == "play":
        return [MadeEpisode(job, play_episode(env, job.seed, job.frames, job.skills), None)]
    if job.kind == "near_miss":
        return [MadeEpisode(job, *near_miss_episode(env, job.task, job.seed, job.noise, job.pace, job.limit))]
    if job.kind == "demo":
        return demonstrate(job, lambda seed: demo_episode(env, job.task, seed, job.noise, job.pace, job.limit))
    raise unknown("kind of episode", job.kind, ("play", "near_miss", "demo"))

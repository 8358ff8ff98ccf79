"""Play data, near misses and demonstrations from scripted experts with correlated noise.

Every episode is a function of its seed: how jobs are spread over processes does not change the data. Play chains
feasible skills of varying sloppiness with aimless moves; near misses hurry and aim badly, so that the world model also
sees where a task fails; demonstrations succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from envs.playtable.env import PlayTableEnv
from envs.playtable.expert import CLOSED, DOWN, OPEN, Expert, steer
from envs.playtable.stress import stressed
from envs.table import Array, Observation, Table
from envs.tasks import SEEDS, SEEDS_PER_USE, TASKS, get_task, possible_tasks
from worldaction.config import PlayConfig, StressConfig, TableConfig, to_dict
from worldaction.errors import UserError, unknown
from worldaction.play.store import Segment, StoreWriter
from worldaction.spec import ACTION, Split

Arrays = dict[str, np.ndarray]

# how long the noise remembers, and what play chooses from (metres of offset, noise in units of the action)
MEMORY: Final = 0.7
PLAY_OFFSETS: Final = (0.0, 0.01, 0.025, 0.04)
PLAY_NOISES: Final = (0.1, 0.3, 0.5)
PLAY_LIMIT: Final = 130
RANDOM_SHARE: Final = 0.5
RANDOM_LENGTH: Final = (8, 25)
RANDOM_LOW, RANDOM_HIGH = np.array([-0.40, -0.45, 0.34]), np.array([0.40, 0.05, 0.70])
RANDOM_NOISE: Final = np.array([0.5, 0.5, 0.5, 0.3, 0.3, 0.3])
DEMO_OFFSET, DEMO_TAIL, DEMO_LIMIT = 0.004, 4, 90
NEAR_MISS_OFFSETS: Final = (0.008, 0.015, 0.025)
NEAR_MISS_NOISES: Final = (0.1, 0.35)
NEAR_MISS_TAIL, NEAR_MISS_LIMIT = 8, 80

OFF: Final = StressConfig()
ATTEMPTS: Final = 40
"""Seeds that one demonstration may use up."""
SEEDS_PER_STUDY: Final = 50_000
"""Seeds of each kind that one value of `PlayConfig.seed` owns."""
VALIDATION_EVERY: Final = 10
"""Every tenth episode of play and of near misses is kept for validation."""


@dataclass(frozen=True)
class Job:
    """One episode to make; a demonstration may take several attempts, of which the failures are kept as near misses."""

    kind: Literal["play", "near_miss", "demo"]
    seed: int
    task: str = ""
    frames: int = 0
    """Length of a play episode."""
    noise: float = 0.0
    """Noise of a demonstrator."""
    split: Split = "training"


class Noise:
    """Correlated noise AR(1) with a given stationary deviation, on the six pose entries of an action."""

    def __init__(self, rng: np.random.Generator, sigma: float | Array) -> None:
        self._rng, self._sigma, self._value = rng, sigma, np.zeros(6)

    def add(self, action: Array) -> Array:
        """[7] -> [7], clipped to [-1, 1]."""
        fresh = self._rng.normal(0, 1, 6) * self._sigma
        self._value = MEMORY * self._value + np.sqrt(1 - MEMORY**2) * fresh
        return np.clip(np.concatenate([action[:6] + self._value, action[6:]]), -1, 1)


class Recorder:
    """Steps an environment and keeps what it saw and did."""

    def __init__(self, env: Table, observation: Observation) -> None:
        self._env, self._observation = env, observation
        self._rows: list[dict[str, Any]] = []
        self.first_success: int | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def step(self, action: Array) -> None:
        """Records the present frame with the action, then executes it."""
        row = self._observation
        self._observation, _, success, _, info = self._env.step(action)
        # a table that is told of actions in another frame says what a policy would have asked for
        self._rows.append({**row, ACTION: np.asarray(info.get("action", action), np.float32)})
        if success and self.first_success is None:
            self.first_success = len(self._rows)

    def arrays(self) -> Arrays:
        """[T, ...] of every key. The last action was executed, its result is not in the data."""
        return {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]}


def play_episode(env: Table, seed: int, frames: int) -> Arrays:
    """Chained skills and aimless moves from a random scene.

    Args:
        env: with cameras, or without to leave the images out.
        seed: names the episode.
        frames: its length T.

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
    # any task will do, if it is always the same: the start depends on it
    start = {"task": "open_drawer", "scene": scene}
    recorder = Recorder(env, env.reset(seed=seed, options=start)[0])
    while len(recorder) < frames:
        left = frames - len(recorder)
        if rng.random() < RANDOM_SHARE:
            _move_anywhere(env, recorder, rng, left)
        else:
            _try_skill(env, recorder, rng, left)
    return recorder.arrays()


def _move_anywhere(env: Table, recorder: Recorder, rng: np.random.Generator, left: int) -> None:
    goal, gripper = rng.uniform(RANDOM_LOW, RANDOM_HIGH), rng.choice([CLOSED, OPEN])
    noise = Noise(rng, RANDOM_NOISE)
    for _ in range(min(left, int(rng.integers(*RANDOM_LENGTH)))):
        action = steer(env, goal, DOWN, gripper)
        action[3:6] *= 0.3
        recorder.step(noise.add(action))


def _try_skill(env: Table, recorder: Recorder, rng: np.random.Generator, left: int) -> None:
    task = str(rng.choice(possible_tasks(env.scene_obs(), env.scene.name)))
    expert = Expert(env, task, rng, offset=float(rng.choice(PLAY_OFFSETS)))
    noise = Noise(rng, float(rng.choice(PLAY_NOISES)))
    for _ in range(min(left, PLAY_LIMIT)):
        recorder.step(noise.add(expert.act()))
        if expert.done:
            break


def demo_episode(env: Table, task: str, seed: int, noise: float) -> tuple[Arrays, bool]:
    """One attempt of a careful but shaky demonstrator, cut soon after success.

    Args:
        env: as for `play_episode`.
        task: name of the task.
        seed: names start and noise.
        noise: standard deviation of the correlated noise (units of the action).

    Returns:
        arrays [T, ...] as for `play_episode`, and whether the task was done.
    """
    rng = np.random.default_rng([seed, 1])
    expert, recorder = _start(env, task, seed, rng, offset=DEMO_OFFSET)
    return _attempt(expert, recorder, Noise(rng, noise), limit=DEMO_LIMIT, tail=DEMO_TAIL)


def near_miss_episode(env: Table, task: str, seed: int) -> tuple[Arrays, bool]:
    """One sloppy, hasty attempt; arguments and results as for `demo_episode`."""
    rng = np.random.default_rng([seed, 2])
    offset = float(rng.choice(NEAR_MISS_OFFSETS))
    expert, recorder = _start(env, task, seed, rng, offset=offset, haste=1.0)
    noise = Noise(rng, float(rng.choice(NEAR_MISS_NOISES)))
    return _attempt(expert, recorder, noise, limit=NEAR_MISS_LIMIT, tail=NEAR_MISS_TAIL)


def _start(
    env: Table, task: str, seed: int, rng: np.random.Generator, *, offset: float, haste: float = 0.0
) -> tuple[Expert, Recorder]:
    observation, _ = env.reset(seed=seed, options={"task": task})
    return Expert(env, task, rng, offset=offset, haste=haste), Recorder(env, observation)


def _attempt(expert: Expert, recorder: Recorder, noise: Noise, *, limit: int, tail: int) -> tuple[Arrays, bool]:
    while len(recorder) < limit and not expert.done:
        recorder.step(noise.add(expert.act()))
        if recorder.first_success is not None and len(recorder) > recorder.first_success + tail:
            break
    return recorder.arrays(), recorder.first_success is not None


def plan(config: PlayConfig, tasks: Sequence[str] = tuple(TASKS)) -> list[Job]:
    """The jobs of a study: play for everyone, near misses and demonstrations of every task.

    Args:
        config: how much of each, and the seed of the study.
        tasks: names of the tasks.

    Raises:
        UserError: an unknown task, or numbers that exceed the seeds reserved for them.
    """
    _check_seeds(config)
    offset = config.seed * SEEDS_PER_STUDY
    episodes = -(-config.frames // config.episode_frames)
    jobs = [
        Job("play", SEEDS["play"] + offset + n, frames=config.episode_frames, split=_split(n)) for n in range(episodes)
    ]
    for name in tasks:
        task = get_task(name).name
        misses, demos = SEEDS["near_misses"] + offset, SEEDS["demos"] + offset
        jobs += [Job("near_miss", misses + n, task, split=_split(n)) for n in range(config.near_misses)]
        jobs += [Job("demo", demos + n * ATTEMPTS, task, noise=config.demo_noise) for n in range(config.demos)]
    return jobs


def _split(number: int) -> Split:
    return "validation" if number % VALIDATION_EVERY == VALIDATION_EVERY - 1 else "training"


def _check_seeds(config: PlayConfig) -> None:
    studies = SEEDS_PER_USE // SEEDS_PER_STUDY
    if not 0 <= config.seed < studies:
        raise UserError(f"seed {config.seed} of the play data is outside 0..{studies - 1}; choose one inside")
    if config.frames < 1 or config.episode_frames < 1:
        raise UserError(f"frames {config.frames} and episode_frames {config.episode_frames} must be at least 1")
    used = {"frames": config.frames // config.episode_frames, "near_misses": config.near_misses}
    used["demos"] = config.demos * ATTEMPTS
    for name, seeds in used.items():
        if seeds > SEEDS_PER_STUDY:
            raise UserError(
                f"{name} = {getattr(config, name)} needs {seeds} seeds, {SEEDS_PER_STUDY} exist; ask for less"
            )


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

    Raises:
        UserError: the renderer does not work, a job is not possible, or the folder cannot be written.
    """
    env = make(table) if make else embedded_table(table)
    recorded = {
        "table": {**to_dict(table), "renderer": env.renderer},
        "play": to_dict(config) if config else None,
        "simulator": dict(env.about),
    }
    with (
        closing(env),
        StoreWriter(
            path, image_size=table.image_size, source=source, renderer=env.renderer, seed=seed, config=recorded
        ) as writer,
    ):
        for job in jobs:
            frames = sum(_write(writer, *episode) for episode in _make(env, job))
            if progress is not None:
                progress(frames)


def embedded_table(table: TableConfig, *, stress: StressConfig = OFF) -> Table:
    """The play table with a study's options, under the switches that act on play."""
    env: Any = PlayTableEnv(
        image_size=table.image_size, supersample=table.supersample, renderer=table.renderer, scene=table.scene
    )
    harder: Any = stressed(env, stress, playing=True)
    found: Table = harder
    return found


def _write(writer: StoreWriter, job: Job, arrays: Arrays, success: bool | None) -> int:
    length = len(arrays[ACTION])
    segments = [] if success is None else [Segment(job.task, 0, length, success)]
    writer.add_episode(arrays, kind=job.kind, segments=segments, split=job.split)
    return length


def _make(env: Table, job: Job) -> list[tuple[Job, Arrays, bool | None]]:
    """The episodes of a job: itself, the arrays, and whether its task was done (None for play)."""
    if job.kind == "play":
        return [(job, play_episode(env, job.seed, job.frames), None)]
    if job.kind == "near_miss":
        return [(job, *near_miss_episode(env, job.task, job.seed))]
    if job.kind == "demo":
        return _demonstrate(env, job)
    raise unknown("kind of episode", job.kind, ("play", "near_miss", "demo"))


def _demonstrate(env: Table, job: Job) -> list[tuple[Job, Arrays, bool | None]]:
    failures: list[tuple[Job, Arrays, bool | None]] = []
    for attempt in range(ATTEMPTS):
        arrays, success = demo_episode(env, job.task, job.seed + attempt, job.noise)
        if success:
            return [*failures, (job, arrays, True)]
        failures.append((replace(job, kind="near_miss"), arrays, False))
    raise UserError(f"no demonstration of {job.task} in {ATTEMPTS} attempts with noise {job.noise}; lower demo_noise")

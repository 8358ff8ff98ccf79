"""Play data, near misses and demonstrations in any environment, with a demonstrator's help where there is one.

Play takes turns between aimless moves and a sloppy demonstrator; without one it is aimless. As at the table, an episode
is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from envs.episodes import LAST_SEED, Array, Arrays, Job, MadeEpisode, Noise, Recorder, demonstrate, write_shard
from envs.general.standard import Standard
from worldaction.config import PlayConfig, TableConfig, to_dict
from worldaction.errors import UserError, unknown

RANDOM_SHARE: Final = 0.5
"""Share of play that is aimless although there is a demonstrator."""
BOUT: Final = (8, 25)
"""Steps of an aimless move."""
SKILL: Final = (20, 80)
"""Steps for which play follows the demonstrator."""
AIMLESS: Final = 0.5
"""Deviation of the noise on an aimless move, whose mean is drawn from all actions."""
SLOPPY: Final = (0.1, 0.3, 0.6)
"""Deviations of the noise on a demonstrator in play and near misses, between which is drawn."""
BIAS: Final = 0.2
"""Deviation of the constant error of a near miss."""
TAIL: Final = 4
"""Steps recorded after success."""


class Demonstrator(Protocol):
    """Who shows how it is done: made anew for every episode."""

    def act(self, observation: Any) -> Any:
        """An action in the environment's own range, for an observation as the environment gives it."""
        ...


DemonstratorFactory = Callable[[Standard, np.random.Generator], Demonstrator]


def generate(
    path: Path,
    jobs: Sequence[Job],
    make: Callable[[], Standard],
    demonstrator: DemonstratorFactory | None,
    *,
    table: TableConfig,
    data: PlayConfig,
    scene: str = "",
) -> None:
    """Make a play store of some jobs.

    Args:
        path: the folder to create.
        jobs: what to make, in this order.
        make: builds the environment, without a time limit of ours.
        demonstrator: builds who demonstrates; None if there is nobody, and then there may be only play.
        table: size of the images, and the time limit of attempts.
        data: recorded in the store.
        scene: recorded with every episode.
    """
    with closing(make()) as env:
        write_shard(
            path,
            jobs,
            partial(_make, env, demonstrator, limit=table.max_steps),
            image_size=table.image_size,
            source=env.name,
            renderer=env.name,
            layout=env.layout,
            scene=scene,
            seed=data.seed,
            config={"table": to_dict(table), "play": to_dict(data)},
        )


def _make(env: Standard, demonstrator: DemonstratorFactory | None, job: Job, *, limit: int) -> list[MadeEpisode]:
    if job.kind == "play":
        return _play(env, demonstrator, job)
    if demonstrator is None:
        raise UserError(f"nobody demonstrates {env.name}; give --gym.expert")
    if job.kind == "near_miss":
        return [MadeEpisode(job, *_attempt(env, demonstrator, job.seed, noise=None, limit=limit))]
    if job.kind == "demo":
        return demonstrate(job, lambda seed: _attempt(env, demonstrator, seed, noise=job.noise, limit=limit))
    raise unknown("kind of episode", job.kind, ("play", "near_miss", "demo"))


def _play(env: Standard, demonstrator: DemonstratorFactory | None, job: Job) -> list[MadeEpisode]:
    """As many episodes as it takes: the environment may end them early."""
    made: list[MadeEpisode] = []
    left = job.frames
    while left > 0:
        seed = _derived(job.seed, len(made))
        arrays = _play_episode(env, demonstrator, seed, left)
        made.append(MadeEpisode(job, arrays, None))
        left -= len(next(iter(arrays.values())))
    return made


def _derived(seed: int, number: int) -> int:
    """Seed of the episodes after the first of a job: outside all ranges that have a use, see `SEEDS`."""
    if number == 0:
        return seed
    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return LAST_SEED + drawn % (2**31 - LAST_SEED)


def _play_episode(env: Standard, demonstrator: DemonstratorFactory | None, seed: int, frames: int) -> Arrays:
    rng = np.random.default_rng([seed, 0])
    recorder = Recorder(env, env.reset(seed=seed)[0])
    while len(recorder) < frames and not recorder.over:
        aimless = demonstrator is None or rng.random() < RANDOM_SHARE
        length = min(int(rng.integers(*(BOUT if aimless else SKILL))), frames - len(recorder))
        if aimless or demonstrator is None:
            size = env.layout.action
            mean, noise = rng.uniform(-1, 1, size), Noise(rng, AIMLESS, size=size)
            _follow(recorder, partial(np.copy, mean), noise, length)
        else:
            noise = Noise(rng, float(rng.choice(SLOPPY)), size=env.layout.action)
            _follow(recorder, _advice(env, demonstrator, rng), noise, length)
    return recorder.arrays()


def _advice(env: Standard, demonstrator: DemonstratorFactory, rng: np.random.Generator) -> Callable[[], Array]:
    who = demonstrator(env, rng)
    return lambda: env.to_unit(who.act(env.raw))


def _follow(recorder: Recorder, advice: Callable[[], Array], noise: Noise, length: int) -> None:
    for _ in range(length):
        if recorder.over:
            return
        recorder.step(noise.add(advice()))


def _attempt(
    env: Standard, demonstrator: DemonstratorFactory, seed: int, *, noise: float | None, limit: int
) -> tuple[Arrays, bool]:
    """An attempt that ends soon after success: careful with a given noise, else a near miss."""
    careful = noise is not None
    rng = np.random.default_rng([seed, 1 if careful else 2])
    recorder = Recorder(env, env.reset(seed=seed)[0])
    advice = _advice(env, demonstrator, rng)
    size = env.layout.action
    bias = np.zeros(size) if careful else rng.normal(0, BIAS, size)
    sigma = float(rng.choice(SLOPPY)) if noise is None else noise
    shaky = Noise(rng, sigma, size=size)
    while not recorder.ended(limit=limit, tail=TAIL):
        recorder.step(shaky.add(advice() + bias))
    return recorder.arrays(), recorder.first_success is not None

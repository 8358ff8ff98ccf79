"""Episodes that are made to be learned from: what to make, noisy actions, and how they get into a play store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from worldaction.config import PlayConfig
from worldaction.errors import UserError
from worldaction.spec import ACTION, CALVIN, Layout, Split

if TYPE_CHECKING:
    from worldaction.play.store import StoreWriter

Array = NDArray[np.float64]
Arrays = dict[str, np.ndarray]

# how long the noise remembers
MEMORY: Final = 0.7
ATTEMPTS: Final = 40
"""Seeds that one demonstration may use up."""
VALIDATION_EVERY: Final = 10
"""Every tenth episode of play is kept for validation; of attempts, see `worldaction.play.held_out`."""

SEEDS: Final[dict[str, int]] = {
    "play": 1_000_000,
    "demos": 2_000_000,
    "near_misses": 3_000_000,
    "dream_starts": 4_000_000,
    "evaluation": 5_000_000,
}
"""First seed of each use. A use owns the million seeds from there on, so no two uses ever share a start."""
SEEDS_PER_USE: Final = 1_000_000
LAST_SEED: Final = max(SEEDS.values()) + SEEDS_PER_USE
"""From here on no seed has a use."""
RECORDED_SEEDS: Final = SEEDS["dream_starts"] + SEEDS_PER_USE // 2
"""First seed of episodes of policies that are recorded to be learned from: the upper half of a million of which dreams
need some hundreds. A range beyond the last one would move what is drawn from `LAST_SEED` on."""
SEEDS_PER_STUDY: Final = 50_000
"""Seeds of each kind that one value of `PlayConfig.seed` owns."""


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
    pace: float = 1.0
    """Its share of the full speed."""
    limit: int = 0
    """Control steps in which it may try again and again; 0: it tries once, and a near miss is a hasty one."""
    split: Split = "training"
    skills: tuple[str, ...] = ()
    """Tasks that a play episode attempts besides those that every one does."""


class MadeEpisode(NamedTuple):
    """An episode that was made."""

    job: Job
    arrays: Arrays
    """[T, ...] of every key."""
    success: bool | None
    """Whether the job's task was done; None for play."""


class SteppableEnv(Protocol):
    """As much of a Gymnasium environment as is needed to record one; observations are dicts."""

    def step(self, action: Array) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """One control step; `info` has "is_success"."""
        ...


class Noise:
    """Correlated noise AR(1) with a given stationary deviation, on the first entries of an action."""

    def __init__(self, rng: np.random.Generator, sigma: float | Array, *, size: int = 6) -> None:
        """
        Args:
            rng: draws it.
            sigma: its deviation, of all or [size] (units of the action).
            size: how many entries it is added to; those after them stay, as a gripper's command.
        """
        self._rng, self._sigma, self._value = rng, sigma, np.zeros(size)

    def add(self, action: Array) -> Array:
        """[A] -> [A], clipped to [-1, 1]."""
        size = len(self._value)
        fresh = self._rng.normal(0, 1, size) * self._sigma
        self._value = MEMORY * self._value + np.sqrt(1 - MEMORY**2) * fresh
        return np.clip(np.concatenate([action[:size] + self._value, action[size:]]), -1, 1)


class Recorder:
    """Steps an environment and keeps what it saw and did."""

    def __init__(self, env: SteppableEnv, observation: Mapping[str, Any]) -> None:
        self._env, self.observation = env, observation
        self._rows: list[dict[str, Any]] = []
        self.first_success: int | None = None
        self.over = self.late = False
        """Whether the environment can be stepped no further, and whether its time limit has passed."""

    def __len__(self) -> int:
        return len(self._rows)

    def step(self, action: Array) -> None:
        """Records the present frame with the action, then executes it."""
        row = self.observation
        self.observation, _, _, self.late, info = self._env.step(action)
        # a table that is told of actions in another frame says what a policy would have asked for
        self._rows.append({**row, ACTION: np.asarray(info.get("action", action), np.float32)})
        if info["is_success"] and self.first_success is None:
            self.first_success = len(self._rows)
        # success and a time limit of ours end no recording; what ends the environment's own episode does
        self.over = bool(info.get("ended", False))
        if self.over:
            # nothing follows that would show what the last action led to, and it may be success
            self._rows.append({**self.observation, ACTION: self._rows[-1][ACTION]})

    def ended(self, *, limit: int, tail: int) -> bool:
        """Whether an attempt has been recorded to its end.

        Once a task is done, frames that show it follow even beyond the limit: an attempt whose success is not to be
        seen in it would teach that the task had failed.

        Args:
            limit: frames of an attempt without success.
            tail: frames that follow the first one in which the task is done.
        """
        if self.over or self.first_success is None:
            return self.over or len(self) >= limit
        return len(self) > self.first_success + tail

    def arrays(self) -> Arrays:
        """[T, ...] of every key. The result of the last action is in the data only if it ended the environment's own
        episode; the action of that last frame is the one before, for none followed."""
        return {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]}


def plan(config: PlayConfig, tasks: Sequence[str], skills: Sequence[str] = ()) -> list[Job]:
    """The jobs of a study: play for everyone, near misses and demonstrations of every task.

    Args:
        config: how much of each, and the seed of the study.
        tasks: names of the tasks.
        skills: those of them that play attempts only where the study asks for them.

    Raises:
        UserError: numbers that exceed the seeds reserved for them.
    """
    _check_seeds(config)
    offset = config.seed * SEEDS_PER_STUDY
    episodes = -(-config.frames // config.episode_frames)
    play = Job("play", 0, frames=config.episode_frames, skills=tuple(skills))
    jobs = [replace(play, seed=SEEDS["play"] + offset + n, split=_split(n)) for n in range(episodes)]
    for task in tasks:
        misses, demos = SEEDS["near_misses"] + offset, SEEDS["demos"] + offset
        shown = Job("demo", demos, task, noise=config.demo_noise, pace=config.demo_pace, limit=config.demo_limit)
        # a policy that is cloned from patient demonstrations fails as a patient demonstrator does: not hastily
        missed = (Job("near_miss", misses, task), replace(shown, kind="near_miss", seed=misses))
        jobs += [replace(missed[n % 2 if shown.limit else 0], seed=misses + n) for n in range(config.near_misses)]
        jobs += [replace(shown, seed=demos + n * ATTEMPTS) for n in range(config.demos)]
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


def write_shard(
    path: Path | str,
    jobs: Sequence[Job],
    make: Callable[[Job], Sequence[MadeEpisode]],
    *,
    image_size: int,
    source: str,
    renderer: str,
    layout: Layout = CALVIN,
    scene: str = "",
    seed: int | None = None,
    config: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Makes episodes and writes them to a play store.

    Args:
        path: the folder to create.
        jobs: what to make, in this order.
        make: makes the episodes of a job.
        image_size, source, renderer, layout, seed, config: recorded in the store, see `StoreWriter`.
        scene: recorded with every episode.
        progress: called with the number of new frames after every job.

    Raises:
        UserError: a job is not possible, or the folder cannot be written.
    """
    # imported here, for a command line that only plans needs neither torch nor a store
    from worldaction.play.store import StoreWriter

    with StoreWriter(
        path, image_size=image_size, source=source, renderer=renderer, seed=seed, config=config, layout=layout
    ) as writer:
        for job in jobs:
            frames = sum(_write(writer, made, scene) for made in make(job))
            if progress is not None:
                progress(frames)


def _write(writer: StoreWriter, made: MadeEpisode, scene: str) -> int:
    from worldaction.play.store import Segment

    job, arrays, success = made
    length = len(arrays[ACTION])
    segments = [] if success is None else [Segment(job.task, 0, length, success)]
    writer.add_episode(arrays, kind=job.kind, segments=segments, split=job.split, scene=scene)
    return length


def demonstrate(job: Job, attempt: Callable[[int], tuple[Arrays, bool]]) -> list[MadeEpisode]:
    """A demonstration that succeeds, after the failures that it took, which are near misses.

    Args:
        job: the demonstration.
        attempt: makes an attempt of a seed: arrays, and whether the task was done.

    Raises:
        UserError: none of `ATTEMPTS` attempts succeeds.
    """
    failures: list[MadeEpisode] = []
    for number in range(ATTEMPTS):
        arrays, success = attempt(job.seed + number)
        if success:
            return [*failures, MadeEpisode(job, arrays, True)]
        failures.append(
            MadeEpisode(Job("near_miss", job.seed, job.task, split=job.split, noise=job.noise), arrays, False)
        )
    raise UserError(
        f"no demonstration of {job.task} in {ATTEMPTS} attempts with noise {job.noise}; lower --data.demo-noise"
    )

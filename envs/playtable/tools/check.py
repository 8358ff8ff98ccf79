"""Measures the table on this machine: how often and how fast the experts succeed, and how fast each renderer steps.

worldaction table experts --starts 100
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from envs.drawing import GL_BACKENDS, works
from envs.episodes import Noise
from envs.playtable.env import PlayTableEnv
from envs.playtable.expert import Expert
from envs.playtable.generate import demo_episode
from envs.playtable.stress import stressed
from envs.tasks import TASKS, get_task
from worldaction.config import NonNegative, Pace, StressConfig, Whole, check_ranges, check_stress
from worldaction.errors import UserError
from worldaction.spec import SCENE

LONGEST_SCRIPT = 150


@dataclass(frozen=True)
class _Demonstrator:
    """The ranges of the options."""

    noise: NonNegative
    pace: Pace
    limit: Whole


class Record(NamedTuple):
    """How an expert did on one task."""

    success: float
    """Share of the starts from which the task was done at all."""
    in_time: float
    """Share done within the environment's time limit."""
    median_steps: float
    """Control steps until it was done, over the successes."""


def measure_expert(env: PlayTableEnv, task: str, *, starts: int, noise: float = 0.0) -> Record:
    """Runs the expert from the start states of seeds 0, 1, ...

    Args:
        env: any environment; without cameras it is fastest.
        task: name of the task.
        starts: how many.
        noise: standard deviation of the correlated action noise (units of the action).
    """
    steps = [_steps_to_success(env, task, seed, noise) for seed in range(starts)]
    done = [step for step in steps if step is not None]
    in_time = sum(step <= env.max_steps for step in done)
    return Record(len(done) / starts, in_time / starts, statistics.median(done) if done else float("nan"))


def _steps_to_success(env: PlayTableEnv, task: str, seed: int, sigma: float) -> int | None:
    env.reset(seed=seed, options={"task": task})
    expert, noise = Expert(env, task), Noise(np.random.default_rng(seed), sigma)
    for step in range(1, LONGEST_SCRIPT + 1):
        _, _, success, _, _ = env.step(noise.add(expert.act()))
        if success:
            return step
        if expert.done:
            break
    return None


def measure_demonstrator(
    task: str, *, starts: int, noise: float, pace: float, limit: int, tolerance: float = 0.0
) -> Record:
    """The demonstrator of play data from the start states of seeds 0, 1, ...

    Args:
        task: name of the task.
        starts: how many.
        noise, pace, limit: see `envs.playtable.generate.demo_episode`.
        tolerance: see `envs.tasks.tight`.
    """
    table: Any = PlayTableEnv(cameras=False)
    env: Any = stressed(table, StressConfig(tolerance=tolerance), playing=True)
    judge = get_task(task, tolerance=tolerance)
    done = []
    for seed in range(starts):
        arrays, success = demo_episode(env, task, seed, noise, pace, limit)
        # a frame is judged after the step that led to it
        done += [int(judge.achieved(arrays[SCENE][0], arrays[SCENE]).argmax())] if success else []
    in_time = sum(step <= table.max_steps for step in done)
    return Record(len(done) / starts, in_time / starts, statistics.median(done) if done else float("nan"))


def measure_speed(renderer: str, *, image_size: int = 64, steps: int = 300) -> float:
    """Environment steps per CPU second under random actions, resets left out.

    Args:
        renderer: "none", "egl", "osmesa" or "rays".
        image_size: side of the images (pixels).
        steps: how many to time.
    """
    cameras = renderer != "none"
    env = PlayTableEnv(image_size=image_size, renderer=renderer if cameras else "rays", cameras=cameras)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(steps)]
    # CPU time, because other processes share the machine
    start = time.process_time()
    for action in actions:
        env.step(action)
    return steps / (time.process_time() - start)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the two tables."""
    parser = argparse.ArgumentParser(
        prog="worldaction table experts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=100, help="start states per task")
    parser.add_argument("--noise", type=float, default=0.0, help="noise of the experts, in units of the action")
    parser.add_argument("--pace", type=float, help="of a demonstrator of play data, as --data.demo-pace")
    parser.add_argument("--limit", type=int, default=0, help="steps of a demonstration, as --data.demo-limit")
    parser.add_argument("--tolerance", type=float, default=0.0, help="what success asks for, as --stress.tolerance")
    parser.add_argument("--speed", help="only print the steps per CPU second of this renderer")
    options = parser.parse_args(arguments)
    if options.starts < 1:
        raise UserError(f"--starts {options.starts}: give 1 or more")
    # the scripts alone have no limit and no tolerance
    for option, value in (("limit", options.limit), ("tolerance", options.tolerance)):
        if value and options.pace is None:
            raise UserError(f"--{option} {value} is of a demonstrator of play data; give --pace with it")
    check_ranges(_Demonstrator(options.noise, options.pace or 1.0, options.limit))
    check_stress(StressConfig(tolerance=options.tolerance))
    if options.speed:
        print(f"{measure_speed(options.speed):.0f}")
        return
    print(f"{'task':<20} {'success':>8} {'in time':>8} {'median steps':>13}")
    env = PlayTableEnv(cameras=False)
    for task in TASKS:
        if options.pace is None:
            record = measure_expert(env, task, starts=options.starts, noise=options.noise)
        else:
            known = {name: getattr(options, name) for name in ("starts", "noise", "pace", "limit", "tolerance")}
            record = measure_demonstrator(task, **known)
        print(f"{task:<20} {record.success:>8.0%} {record.in_time:>8.0%} {record.median_steps:>13.0f}")
    if options.pace is not None:
        return
    print(f"\n{'renderer':<20} {'steps per CPU second':>21}")
    for renderer in ("none", *GL_BACKENDS, "rays"):
        print(f"{renderer:<20} {_speed_apart(renderer):>21}")


def _speed_apart(renderer: str) -> str:
    """In a process of its own, because one process uses one GL backend."""
    if renderer in GL_BACKENDS and not works(renderer):
        return "does not work here"
    script = f"from envs.playtable.tools.check import main; main(['--speed', {renderer!r}])"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

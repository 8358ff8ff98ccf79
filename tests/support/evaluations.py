"""Evaluations as runs record them, of policies of which is known how skilled and how fast they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.report.outcomes import Outcomes, recorded
from experiments.report.statistics import paired_difference, wilson
from experiments.report.summary import dreamed_times, estimate, judged, over_tasks, pooled
from worldaction.io.atomic import write_json

Json = dict[str, Any]
LIMIT, WITHIN, CALVIN = 152, (72, 110, 150), "worldaction/Calvin-v0"
NAMES = {"bc": "bc", "ppo": "ppo"}


class Policy(NamedTuple):
    """How often it succeeds, and after how many steps in the median."""

    rate: float
    steps: float = 60.0


class Task(NamedTuple):
    """Policies of a task; "stochastic" and "deterministic" are the clone's."""

    stochastic: Policy
    ppo: Policy
    deterministic: Policy | None = None
    judged: float | None = None
    """What is left of every rate in the other simulator."""
    imagined: tuple[float, float] | None = None
    """Of BC and PPO; as in the simulator if not given."""


def evaluation(task: str, known: Task, seed: int, *, episodes: int = 100, share: float = 1.0) -> Json:
    """What evaluation.json says of a task and seed; a start state is as hard for all policies and seeds."""
    hard = np.random.default_rng(sum(map(ord, task))).random(episodes)
    draws = np.random.default_rng([seed, episodes, int(100 * share)])

    def episodes_of(policy: Policy) -> Json:
        luck = draws.random(episodes)
        success = np.where(luck < 0.5, hard, draws.random(episodes)) < share * policy.rate
        steps = np.clip(policy.steps * np.exp(0.3 * draws.standard_normal(episodes)), 20, LIMIT).astype(int)
        return {
            "index": list(range(episodes)),
            "success": success.astype(int).tolist(),
            "steps": np.where(success, steps, LIMIT).tolist(),
            "successes": int(success.sum()),
            "n": episodes,
        }

    drawn = episodes_of(known.stochastic)
    sure = None if known.deterministic is None else episodes_of(known.deterministic)
    better = known.deterministic is not None and known.deterministic.rate >= known.stochastic.rate
    return {
        "task": task,
        "seed": seed,
        "limit": LIMIT,
        "sampler": "deterministic" if better else "stochastic",
        "choice": None,
        "samplers": ["stochastic", "deterministic"][: 1 if sure is None else 2],
        "bc": sure if better else drawn,
        "bc_other": drawn if better else sure,
        "ppo": episodes_of(known.ppo),
    }


def imagined(known: Task, seed: int, *, dreams: int = 80) -> Json:
    """What results of an update say of its dreams."""
    draws = np.random.default_rng([seed, dreams])
    policies = {"bc": known.stochastic, "ppo": known.ppo}
    policies |= {} if known.deterministic is None else {"bc_deterministic": known.deterministic}
    rates = {name: policy.rate for name, policy in policies.items()}
    if known.imagined is not None:
        rates |= {"bc": known.imagined[0], "bc_deterministic": known.imagined[0], "ppo": known.imagined[1]}
    return {
        name: {
            "success_step": np.where(
                draws.random(dreams) < rates[name], np.clip(policy.steps * draws.uniform(0.7, 1.3, dreams), 1, LIMIT), 0
            )
            .astype(int)
            .tolist()
        }
        for name, policy in policies.items()
    }


def _seed(outcomes: Outcomes, known: Task, seed: int) -> Json:
    """What a summary says of a seed."""
    of = {policy: outcomes.policies[policy].success[outcomes.policies[policy].seed == seed] for policy in NAMES}
    rates = {policy: float(success.mean()) for policy, success in of.items()}
    dreams = known.imagined or tuple(rates.values())
    return {
        "seed": seed,
        "sampler": outcomes.samplers[seed],
        **rates,
        "difference": estimate(paired_difference(of["ppo"], of["bc"])),
        **{f"imagined_{policy}": dream for policy, dream in zip(NAMES, dreams, strict=True)},
        "iterations": 9,
        "kept": 8,
        "stop_reason": "max_imagined",
    }


def write_evaluations(folder: Path, tasks: Mapping[str, Task], *, seeds: int = 1, episodes: int = 100) -> Json:
    """Write them where a run publishes them, and return the summary's "tasks" and "average"."""
    found = {}
    for name, known in tasks.items():
        for seed in range(seeds):
            write_json(
                folder / "evaluation" / f"{name}-seed{seed}.json", evaluation(name, known, seed, episodes=episodes)
            )
            if known.judged is not None:
                there = evaluation(name, known, seed, episodes=episodes // 2, share=known.judged) | {"env": CALVIN}
                write_json(folder / "evaluation" / "judged-Calvin-v0" / f"{name}-seed{seed}.json", there)
        outcomes = recorded(folder, name, range(seeds), NAMES)
        here = outcomes.pop("")
        per_seed = [_seed(here, known, seed) for seed in range(seeds)]
        found[name] = pooled(here, WITHIN, per_seed)
        found[name]["dreamed_time"] = dreamed_times(here, [imagined(known, seed) for seed in range(seeds)])
        found[name]["judged"] = {env: judged(here, there, WITHIN) for env, there in outcomes.items()}
    return {"tasks": found, "average": over_tasks(found)}


def held_out(attempts: int, rate: float | None) -> Json:
    """What a run says of held-out attempts of one outcome, dreamed three times each."""
    if rate is None:
        return {"attempts": 0, "dreams": 0, "called": 0, "rate": None, "interval": None}
    called = round(rate * 3 * attempts)
    interval = list(wilson(round(rate * attempts), attempts))
    return {"attempts": attempts, "dreams": 3 * attempts, "called": called, "rate": rate, "interval": interval}

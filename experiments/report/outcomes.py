"""Recorded episodes of a task's policies over seeds: what each came to, from which start state, and how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.statistics import Estimate, paired_difference, success_rate
from worldaction.io.sealed_json import read_json

Json = Mapping[str, Any]
STOCHASTIC = "stochastic"
"""The sampler that a policy is trained with; in `Outcomes.policies`, the clone under it in every seed."""
OTHER = "bc_other"
"""The clone under the sampler that was not chosen."""


@dataclass(frozen=True)
class Episodes:
    """Of one policy on one task, [n], the seeds laid end to end."""

    seed: np.ndarray
    start: np.ndarray
    """Start states, by their number in the environment's list."""
    success: np.ndarray
    """[n] bool, within the time limit."""
    steps: np.ndarray
    """Control steps until success, or until the time limit."""
    oracle: np.ndarray | None = None
    """Control steps until success by CALVIN's own oracle, 0 without it; None where that is what judges."""
    juror: np.ndarray | None = None
    """Number of the juror whose replay each is; None where a simulator judges."""

    @classmethod
    def read(cls, recorded: Sequence[tuple[int, Json]]) -> Episodes:
        """From a seed and what its evaluation says of the policy: "index", "success" and "steps"."""
        columns = {key: np.concatenate([np.array(one[key]) for _, one in recorded]) for key in ("index", "steps")}
        success = np.concatenate([np.array(one["success"], bool) for _, one in recorded])
        seeds = np.repeat([seed for seed, _ in recorded], [len(one["success"]) for _, one in recorded])
        oracle, juror = (_known_of_all([one for _, one in recorded], key) for key in ("oracle_steps", "juror"))
        return cls(seeds, columns["index"], success, columns["steps"], oracle, juror)

    def by_oracle(self) -> Episodes | None:
        """The same episodes as CALVIN's own oracle judges them; None where that is what judges already."""
        return None if self.oracle is None else Episodes(self.seed, self.start, self.oracle > 0, self.oracle)

    def within(self, steps: int | None = None) -> np.ndarray:
        """[n] bool, success within so many control steps, or within the time limit."""
        return self.success if steps is None else self.success & (self.steps <= steps)

    def rate(self, steps: int | None = None) -> Estimate:
        """Success within so many control steps, or within the time limit; a start state is a cluster."""
        return success_rate(self.within(steps), self.start)

    def over(self, other: Episodes, steps: int | None = None) -> Estimate:
        """How much more often than another policy from the same start states and seeds."""
        return paired_difference(self.within(steps), other.within(steps), self.start)

    def time(self) -> float | None:
        """Median of the control steps to success over all episodes; None where no more than half succeed.

        Episodes without success count as longer than any: among the successes alone, a policy would look the faster
        the more of its slow episodes fail.
        """
        steps = np.where(self.success, self.steps, np.inf)
        median = float(np.median(steps))
        return median if np.isfinite(median) else None

    def shared_with(self, other: Episodes) -> tuple[Episodes, Episodes]:
        """The episodes of both whose seed and start state both have, in the same order.

        Raises:
            ValueError: some are replays, of which many have the same seed and start state.
        """
        if self.juror is not None or other.juror is not None:
            raise ValueError("replays cannot be paired by seed and start state")
        places = [{pair: i for i, pair in enumerate(zip(e.seed, e.start, strict=True))} for e in (self, other)]
        common = [pair for pair in places[0] if pair in places[1]]
        first, second = ([place[pair] for pair in common] for place in places)
        return self._at(first), other._at(second)

    def by_juror(self) -> dict[int, Episodes]:
        """The episodes that each juror has seen; none where a simulator judges."""
        if self.juror is None:
            return {}
        return {int(one): self._at(np.flatnonzero(self.juror == one)) for one in np.unique(self.juror)}

    def _at(self, index: Sequence[int] | np.ndarray) -> Episodes:
        oracle, juror = (None if part is None else part[index] for part in (self.oracle, self.juror))
        return Episodes(self.seed[index], self.start[index], self.success[index], self.steps[index], oracle, juror)


def _known_of_all(recorded: Sequence[Json], key: str) -> np.ndarray | None:
    """A column, the recordings laid end to end; None where one of them lacks it."""
    found = [np.array(one[key]) for one in recorded if key in one]
    return np.concatenate(found) if len(found) == len(recorded) else None


@dataclass(frozen=True)
class Outcomes:
    """Of all policies of a task in one simulator."""

    policies: Mapping[str, Episodes]
    """"bc", under the better sampler, and the improved policy, in this order; where two samplers were compared `OTHER`
    and, if any seed's better one is not it, `STOCHASTIC`."""
    samplers: Mapping[int, str]
    """Of the clone, by seed."""
    limit: int
    """Time limit (control steps)."""
    fair: bool = True
    """Whether the clone acts by the better of its samplers, or has but one."""

    @classmethod
    def read(cls, evaluations: Sequence[Json], names: Mapping[str, str]) -> Outcomes:
        """What some seeds' evaluations of a task say.

        Args:
            evaluations: the content of evaluation.json, one a seed.
            names: of BC and of the improved policy, and what the files call them.
        """
        policies = {name: Episodes.read([(e["seed"], e[own]) for e in evaluations]) for name, own in names.items()}
        if all(e["bc_other"] is not None for e in evaluations):
            policies[OTHER] = Episodes.read([(e["seed"], e["bc_other"]) for e in evaluations])
            if any(e["sampler"] != STOCHASTIC for e in evaluations):
                drawn = ((e, "bc" if e["sampler"] == STOCHASTIC else "bc_other") for e in evaluations)
                policies[STOCHASTIC] = Episodes.read([(e["seed"], e[key]) for e, key in drawn])
        # those from before samplers were chosen do not say which there are
        fair = all(e["bc_other"] is not None or e.get("samplers") == [STOCHASTIC] for e in evaluations)
        return cls(policies, {e["seed"]: e["sampler"] for e in evaluations}, evaluations[0]["limit"], fair)

    @property
    def pair(self) -> tuple[str, str]:
        """What BC and the improved policy are called."""
        bc, improved, *_ = self.policies
        return bc, improved

    @property
    def improved(self) -> Episodes:
        """Of the improved policy."""
        return self.policies[self.pair[1]]

    @property
    def shown(self) -> dict[str, Episodes | None]:
        """What tables and figures have: BC under both samplers, the second one None without it, and improved."""
        bc, improved = self.pair
        return {bc: self.policies[bc], OTHER: self.policies.get(OTHER), improved: self.policies[improved]}

    def by_oracle(self) -> Outcomes | None:
        """The same episodes as CALVIN's own oracle judges them; None where that is what judges already."""
        found = {name: episodes.by_oracle() for name, episodes in self.policies.items()}
        known = {name: episodes for name, episodes in found.items() if episodes is not None}
        return Outcomes(known, self.samplers, self.limit, self.fair) if len(known) == len(found) else None

    def over_stochastic(self) -> Estimate | None:
        """Improved minus stochastic clone; None where there is no other sampler to tell it from."""
        return (
            self.difference(to=STOCHASTIC if STOCHASTIC in self.policies else "bc") if OTHER in self.policies else None
        )

    def difference(self, steps: int | None = None, *, to: str = "bc") -> Estimate | None:
        """Improved minus cloned policy, paired by seed and start state; None without that clone."""
        return self.improved.over(self.policies[to], steps) if to in self.policies else None


def same_episodes(evaluation: Json, improved: str) -> bool:
    """Whether an improved policy did, step for step, what the clone did under its stochastic sampler, noise by noise.

    Where neither ever succeeds all episodes end at the time limit, and nothing can be said.

    Args:
        evaluation: the content of evaluation.json.
        improved: what it calls the improved policy.
    """
    clone = evaluation["bc" if evaluation["sampler"] == STOCHASTIC else OTHER]
    return any(clone["success"]) and all(evaluation[improved][key] == clone[key] for key in ("success", "steps"))


def recorded(folder: Path, task: str, seeds: Sequence[int], names: Mapping[str, str]) -> dict[str, Outcomes]:
    """What the evaluations of a task say, by simulator: "" for the run's own, then others by their id.

    Args:
        folder: of the run.
        task: the task.
        seeds: that have been evaluated; in another simulator, some may not have been.
        names: see `Outcomes.read`.
    """
    where = folder / "evaluation"
    found = {"": [read_json(where / f"{task}-seed{seed}.json") for seed in seeds]}
    for judge in sorted(where.glob("judged-*")):
        files = [path for seed in seeds if (path := judge / f"{task}-seed{seed}.json").exists()]
        for one in map(read_json, files):
            found.setdefault(one["env"], []).append(one)
    return {simulator: Outcomes.read(evaluations, names) for simulator, evaluations in found.items()}

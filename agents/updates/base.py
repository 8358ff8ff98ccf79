"""What a policy update is: a way to make a policy better from what it does in imagination.

An iteration rolls the policy out in the frozen world model, looks whether a rule stops the run, and learns. Everything
but the learning is here. What keeps a policy from learning to please the model are rules that stop the run without
asking a simulator, and, in the updates, a penalty on the divergence from the cloned policy.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from agents.imagination import DreamModel, RolloutBatch, Starts, Success
from agents.jury import Jury, judged_dream
from agents.policies.base import ImprovedPolicy, PolicyHead, Score
from worldaction.config import UpdateConfig
from worldaction.errors import UserError
from worldaction.fit import Report
from worldaction.random import Use, branch

Producer = Callable[[Any, int], RolloutBatch]
"""The rollouts of an iteration, counted from 0, in which the given policy has explored."""


class Decisions(NamedTuple):
    """Decisions that were taken in rollouts, without those that were not.

    Attributes:
        feature: [M, F] what each was taken on.
        stored: tensors [M, ...] by name, see `agents.policies.base.Decision`.
        log_prob: [M, N'] under the policy that took them.
    """

    feature: Tensor
    stored: dict[str, Tensor]
    log_prob: Tensor

    def take(self, rows: Tensor) -> Decisions:
        """Some of the decisions."""
        stored = {name: value[rows] for name, value in self.stored.items()}
        return Decisions(self.feature[rows], stored, self.log_prob[rows])


class Update(ABC):
    """One run of improving a policy, an iteration at a time. Subclass it in a file of its own; nothing else changes.

    A subclass defines ``name``, ``Options`` if it has more of them than `UpdateConfig`, and `learn`. There it asks
    `score` for log-probabilities with gradient, takes gradient steps with `step`, and draws random numbers from
    `generator`, in `minibatches` for instance. What else it trains it puts into `learned`, so that a run that is
    resumed goes on to the bit.

    After each `iterate` the whole state can be taken by `state_dict`, and a run that goes on from there is equal to the
    bit on a CPU. Which policy is the result is fixed in advance: if the policy went too far (`max_divergence`,
    `min_time`), the last one before it did; if dreams have nothing left to teach (`max_imagined`), the one that dreamed
    them; else the last one, or the one before if it dreamed better (`fell`). `policy` is that one once `finished`.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = UpdateConfig

    def __init__(
        self,
        model: DreamModel,
        cloned: PolicyHead,
        success: Success,
        starts: Starts,
        options: Any,
        *,
        decisions: int,
        threshold: float,
        seed: int,
        producer: Producer | None = None,
        jury: Jury | None = None,
    ) -> None:
        """
        Args:
            model: the frozen world model.
            cloned: the cloned policy.
            success: the frozen success classifier.
            starts: P scenes among which each dream draws its start.
            options: an instance of ``Options``.
            decisions: decisions H after which a dream is cut off.
            threshold: probability from which an imagined state counts as success.
            seed: of the dreams, the weights of what is learned beside the policy, and the minibatches.
            producer: where the rollouts of an iteration come from instead of dreams, such as episodes in a simulator;
                then of the model, the classifier and the starts nothing but the device is used.
            jury: other world models, which say what a dreamed success is worth.
        """
        self.model, self.success, self.starts, self.options, self.seed = model, success, starts, options, seed
        self.decisions, self.threshold, self.producer, self.jury = decisions, threshold, producer, jury
        self.device = next(cloned.parameters()).device
        self.policy = cloned.improvable(trained_steps=options.trained_steps)
        self.previous = self._weights()
        self.optimiser = torch.optim.AdamW(self.policy.tuned.parameters(), lr=options.lr, weight_decay=0.0, fused=True)
        self.learned: dict[str, Any] = {"policy_optimiser": self.optimiser}
        """What has a `state_dict` and belongs to the state of the run, by name."""
        self.generator = torch.Generator().manual_seed(seed)
        self.iteration, self.stopped = 0, ""
        # the share of the last dreams that succeeded
        self.dreamed = 0.0
        # dreams of the cloned policy that succeeded, and the actions they took
        self.cloned_successes, self.cloned_actions = 0, 0

    # What an update says ----------------------------------------------------------------------------------------------

    @abstractmethod
    def learn(self, rollouts: RolloutBatch, decisions: Decisions) -> dict[str, float]:
        """Improve the policy.

        Args:
            rollouts: [B, H] of the present policy.
            decisions: those that were taken, in the order of ``rollouts.alive``: `spread` and a mask go between both.

        Returns:
            metrics, with `policy_steps`, how many gradient steps the policy took; their names get the update's as a
            prefix.
        """

    @property
    def warmup(self) -> int:
        """First iterations, in which the policy stays as it is; for updates that first have a critic to learn."""
        return 0

    def draw_starts(self, count: int) -> Tensor:
        """Which of the start scenes each dream begins at, [count] int64."""
        return torch.randint(len(self.starts), (count,), generator=self.generator)

    # What an update uses ----------------------------------------------------------------------------------------------

    def score(self, decisions: Decisions) -> Score:
        """Log-probabilities [M, N'] of the present policy and its divergence from the cloned one, see `Score`."""
        return self.policy.score(decisions.feature, decisions.stored, min_std=self.options.min_std)

    def step(self, loss: Tensor) -> None:
        """One gradient step of the policy; its learning rate rises over the first iterations after the warm-up."""
        share = min(1.0, max(self.iteration - self.warmup, 0) / max(self.options.ramp, 1))
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.lr * share
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def minibatches(self, count: int) -> Iterator[Tensor]:
        """A pass over decisions in random order: rows [<= minibatch] int64, in parts of about equal size."""
        order = torch.randperm(count, generator=self.generator).to(self.device)
        # parts of equal size: a small remainder would have a gradient of noise
        yield from order.chunk(math.ceil(count / self.options.minibatch))

    # The run ----------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """No iteration is left, or a rule has stopped the run; `stopped` says which."""
        return bool(self.stopped) or self.iteration >= self.options.iterations

    @property
    def kept(self) -> int:
        """Iterations of learning behind `policy` once `finished`; the last iteration only looked."""
        # in the first one there is nothing to take back, and a run without iterations keeps the cloned policy
        return max(self.iteration - 1 - self._taken_back, 0)

    @property
    def _taken_back(self) -> bool:
        """A rule has stopped the run because of the last update."""
        return self.stopped not in ("", "max_imagined")

    def run(self, report: Report) -> ImprovedPolicy:
        """Iterate to the end; `report` is called after each iteration with its number, from 1, and its metrics."""
        while not self.finished:
            metrics = self.iterate()
            report(self.iteration, metrics)
        return self.policy

    def iterate(self) -> dict[str, float]:
        """Roll out the present policy, see whether a rule stops the run, and learn from the rollouts.

        Raises:
            UserError: a metric is not finite.
        """
        rollouts = self._rollouts()
        decisions, apart = self._decisions(rollouts)
        metrics = rollouts.summary() | {f"{self.name}/divergence": apart}
        self.iteration += 1
        self._remember_cloned(rollouts)
        self.stopped = self._stop_rule(metrics, apart)
        self.dreamed = metrics["imagined/success"]
        if self._taken_back:
            self.policy.tuned.load_state_dict(self.previous)
        if self.finished:
            return metrics | {f"{self.name}/policy_steps": 0.0}
        self.previous = self._weights()
        metrics |= {f"{self.name}/{key}": value for key, value in self.learn(rollouts, decisions).items()}
        if bad := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise UserError(f"{bad[0]} is not finite in iteration {self.iteration}; lower the learning rate")
        return metrics

    def _decisions(self, rollouts: RolloutBatch) -> tuple[Decisions, float]:
        """The decisions that were taken, and their divergence from the cloned policy, in nats a decision."""
        alive = rollouts.alive
        feature, stored = rollouts.feature[alive], {name: value[alive] for name, value in rollouts.stored.items()}
        score = self.policy.score_when_taken(feature, stored, min_std=self.options.min_std)
        # of a whole decision: the numbers of its chunk, once in every trained step
        numbers = self.policy.trained_steps * self.policy.base.chunk_size
        return Decisions(feature, stored, score.log_prob), score.divergence.item() * numbers

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.policy.tuned.state_dict().items()}

    def _rollouts(self) -> RolloutBatch:
        """A batch of exploring dreams; their names go on counting from iteration to iteration.

        By its name each dream has a posterior sample of its start scene of its own, and its own noise.
        """
        if self.producer is not None:
            return self.producer(self.policy, self.iteration)
        count = self.options.dreams
        rows, seed = torch.arange(count, device=self.device) + self.iteration * count, branch(self.seed, Use.DREAMS)
        which = self.draw_starts(count).to(self.device)
        return judged_dream(
            self.model,
            self.policy,
            self.success,
            self.starts,
            which,
            jury=self.jury,
            decisions=self.decisions,
            threshold=self.threshold,
            seed=seed,
            rows=rows,
            min_std=self.options.min_std,
        )

    # Rules that stop a run --------------------------------------------------------------------------------------------

    @property
    def _untouched(self) -> bool:
        """The policy that dreams in this iteration is still the cloned one."""
        return self.iteration <= self.warmup + 1

    def _remember_cloned(self, rollouts: RolloutBatch) -> None:
        """Add to what is known of the cloned policy's time to success."""
        if self._untouched:
            self.cloned_successes += int((rollouts.success_step > 0).sum())
            self.cloned_actions += int(rollouts.success_step.sum())

    def _stop_rule(self, metrics: Mapping[str, float], apart: float) -> str:
        """The name of the rule that the dreaming policy breaks, or nothing."""
        if apart > self.options.max_divergence:
            return "max_divergence"
        if metrics["imagined/success"] >= self.options.max_imagined:
            return "max_imagined"
        usual = self.cloned_actions / max(self.cloned_successes, 1)
        if self._untouched:
            return ""
        if metrics.get("imagined/time", math.inf) < self.options.min_time * usual:
            return "min_time"
        if self.iteration == self.options.iterations and metrics["imagined/success"] < self.dreamed:
            return "fell"
        return ""

    # Disk -------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on: nested dicts of tensors and plain values."""
        return {
            "tuned": self.policy.tuned.state_dict(),
            "previous": self.previous,
            **{name: part.state_dict() for name, part in self.learned.items()},
            "generator": self.generator.get_state(),
            "iteration": self.iteration,
            "stopped": self.stopped,
            "dreamed": self.dreamed,
            "cloned_successes": self.cloned_successes,
            "cloned_actions": self.cloned_actions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        for name, part in self.learned.items():
            part.load_state_dict(copy.deepcopy(state[name]))
        self.policy.tuned.load_state_dict(state["tuned"])
        self.previous = {name: value.clone() for name, value in state["previous"].items()}
        self.generator.set_state(state["generator"])
        for name in ("iteration", "stopped", "dreamed", "cloned_successes", "cloned_actions"):
            setattr(self, name, state[name])


def discounted_return(rollouts: RolloutBatch, gamma: float) -> Tensor:
    """The return of each rollout: its reward, discounted by the decisions before the one that reached success; [B]."""
    steps = torch.arange(rollouts.success.shape[1], device=rollouts.success.device)
    return (rollouts.reward * gamma**steps).sum(1)

"""PPO over denoising steps inside the frozen world model (DPPO, arXiv 2409.00588; DiWA, arXiv 2508.03645).

Two processes lie inside each other. The outer one takes decisions in dreams and is rewarded with 1 for success; the
inner one denoises each decision's action chunk. The last denoising steps are Gaussian policies: they are what is
trained, all with the advantage of their decision. What keeps the policy from learning to please the model is a penalty
on its divergence from the cloned policy, and rules that stop the run without asking a simulator.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.imagination import Dream, DreamModel, Success, dream
from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from agents.updates.critic import Critic
from agents.updates.objective import (
    Decisions,
    Objective,
    PolicyLoss,
    clip_schedule,
    decisions_of,
    denoising_discount,
    divergence,
    explained_variance,
    policy_loss,
)
from worldaction.errors import UserError
from worldaction.fit import Report
from worldaction.world_model.rssm import Latent

Producer = Callable[[TunedPolicy, int], Dream]
"""The batch of an iteration, counted from 0, in which the given policy has explored."""


@dataclass(frozen=True)
class PPOOptions:
    """Numbers of a run.

    Attributes:
        iterations: largest number of iterations. The last one learns nothing: its dreams look at what was learned.
        dreams: dreams per iteration.
        decisions: decisions H after which a dream is cut off.
        threshold: probability from which an imagined state counts as success.
        trained_steps: last denoising steps N' that are trained.
        epochs: passes over the decisions of an iteration.
        minibatch: largest number of decisions per gradient step.
        lr: learning rate of the policy.
        critic_lr: learning rate of the critic.
        critic_width: width of the critic.
        warmup: first iterations, which train the critic alone.
        gamma: discount per decision.
        gae_lambda: decay of the trace of the advantage.
        bootstrap: value what would come after the time limit; see `decisions_of`.
        gamma_denoising: discount per denoising step, counted from the action.
        clip: clip range of the last denoising step.
        clip_base: clip range of the noisiest trained step.
        min_std: smallest standard deviation of a denoising step.
        bc: coefficient of the divergence from the cloned policy.
        target_kl: approximate KL beyond which the policy rests for the remainder of an iteration.
        max_divergence: stop when the policy is further than this from the cloned one.
        max_imagined: stop when imagined success reaches this: dreams that all succeed have nothing left to teach.
        min_time: stop when dreams succeed in less than this share of the cloned policy's time.
        ramp: iterations over which the policy's learning rate rises; the first ones overshoot without.
    """

    iterations: int
    dreams: int
    decisions: int
    threshold: float
    trained_steps: int
    epochs: int
    minibatch: int
    lr: float
    critic_lr: float
    critic_width: int
    warmup: int
    gamma: float
    gae_lambda: float
    bootstrap: bool
    gamma_denoising: float
    clip: float
    clip_base: float
    min_std: float
    bc: float
    target_kl: float
    max_divergence: float
    max_imagined: float
    min_time: float
    ramp: int


class PPO:
    """One fine-tuning run, an iteration at a time.

    After each `iterate` the whole state can be taken by `state_dict`, and a run that goes on from there is equal to the
    bit on a CPU. Which iterate is the result is fixed in advance: if the policy went too far (`max_divergence`,
    `min_time`), the last one before it did; if dreams have nothing left to teach (`max_imagined`), the one that dreamed
    them; else the last one, or the one before if it dreamed better (`fell`). `policy` is that iterate once `finished`.
    """

    def __init__(
        self,
        model: DreamModel,
        cloned: DiffusionPolicy,
        success: Success,
        starts: Latent,
        options: PPOOptions,
        *,
        seed: int,
        producer: Producer | None = None,
    ) -> None:
        """
        Args:
            model: the frozen world model.
            cloned: the cloned policy.
            success: the frozen success classifier.
            starts: [P] latents among which each dream draws its start.
            options: see `PPOOptions`.
            seed: of the dreams, the critic's weights and the minibatches.
            producer: where the batches of an iteration come from instead of dreams, such as episodes in a simulator;
                then of the model, the classifier and the starts nothing but the device is used.
        """
        device = starts.belief.device
        self.producer = producer
        self.model, self.success, self.starts, self.options, self.seed = model, success, starts, options, seed
        base = copy.deepcopy(cloned).eval().requires_grad_(False)
        tuned = copy.deepcopy(cloned).eval().requires_grad_(True)
        self.policy = TunedPolicy(base, tuned, trained_steps=options.trained_steps)
        self.previous = {name: value.clone() for name, value in tuned.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = Critic(base.config["feature_size"], options.critic_width).to(device)
        self.policy_optimiser = torch.optim.AdamW(tuned.parameters(), lr=options.lr, weight_decay=0.0, fused=True)
        self.critic_optimiser = torch.optim.AdamW(
            self.critic.parameters(), lr=options.critic_lr, weight_decay=0.0, fused=True
        )
        self.objective = Objective(
            clip=clip_schedule(options.trained_steps, options.clip, options.clip_base).to(device),
            discount=denoising_discount(options.trained_steps, options.gamma_denoising).to(device),
            std=base.schedule.sigma[: options.trained_steps].flip(0).clamp(min=options.min_std),
            bc=options.bc,
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.iteration, self.stopped = 0, ""
        # the share of the last dreams that succeeded
        self.dreamed = 0.0
        # dreams of the cloned policy that succeeded, and the actions they took
        self.cloned_successes, self.cloned_actions = 0, 0

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

    def run(self, report: Report) -> TunedPolicy:
        """Iterate to the end; `report` is called after each iteration with its number, from 1, and its metrics."""
        while not self.finished:
            metrics = self.iterate()
            report(self.iteration, metrics)
        return self.policy

    def iterate(self) -> dict[str, float]:
        """Dream with the current policy, see whether a rule stops the run, and learn from the dreams."""
        night = self._dream()
        metrics = night.summary()
        apart = divergence(night.means[night.alive], night.base_means[night.alive], self.objective.std)
        metrics["ppo/divergence"] = apart.item()
        self.iteration += 1
        self._remember_cloned(night)
        self.stopped = self._stop_rule(metrics)
        self.dreamed = metrics["imagined/success"]
        if self._taken_back:
            self.policy.tuned.load_state_dict(self.previous)
        if self.finished:
            return metrics | {"ppo/policy_steps": 0.0}
        self.previous = {name: value.clone() for name, value in self.policy.tuned.state_dict().items()}
        metrics |= self._learn(night)
        if bad := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise UserError(f"{bad[0]} is not finite at PPO iteration {self.iteration}; lower the learning rate")
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on: nested dicts of tensors and plain values."""
        return {
            "tuned": self.policy.tuned.state_dict(),
            "previous": self.previous,
            "critic": self.critic.state_dict(),
            "policy_optimiser": self.policy_optimiser.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "iteration": self.iteration,
            "stopped": self.stopped,
            "dreamed": self.dreamed,
            "cloned_successes": self.cloned_successes,
            "cloned_actions": self.cloned_actions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        for name in ("critic", "policy_optimiser", "critic_optimiser"):
            getattr(self, name).load_state_dict(copy.deepcopy(state[name]))
        self.policy.tuned.load_state_dict(state["tuned"])
        self.previous = {name: value.clone() for name, value in state["previous"].items()}
        self.generator.set_state(state["generator"])
        for name in ("iteration", "stopped", "dreamed", "cloned_successes", "cloned_actions"):
            setattr(self, name, state[name])

    def _dream(self) -> Dream:
        """A batch of exploring dreams; their names go on counting from iteration to iteration."""
        if self.producer is not None:
            return self.producer(self.policy, self.iteration)
        device = self.starts.belief.device
        count = self.options.dreams
        start = torch.randint(len(self.starts.belief), (count,), generator=self.generator).to(device)
        return dream(
            self.model,
            self.policy,
            self.success,
            Latent(self.starts.belief[start], self.starts.code[start]),
            decisions=self.options.decisions,
            threshold=self.options.threshold,
            seed=self.seed,
            rows=torch.arange(count, device=device) + self.iteration * count,
            min_std=self.options.min_std,
        )

    @property
    def _untouched(self) -> bool:
        """The policy that dreams in this iteration is still the cloned one."""
        return self.iteration <= self.options.warmup + 1

    def _remember_cloned(self, night: Dream) -> None:
        """Add to what is known of the cloned policy's time to success."""
        if self._untouched:
            self.cloned_successes += int((night.success_step > 0).sum())
            self.cloned_actions += int(night.success_step.sum())

    def _stop_rule(self, metrics: Mapping[str, float]) -> str:
        """The name of the rule that the dreaming policy breaks, or nothing."""
        if metrics["ppo/divergence"] > self.options.max_divergence:
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

    def _learn(self, night: Dream) -> dict[str, float]:
        """Fit the critic and, after the warm-up, the policy to a batch of dreams."""
        data, value = decisions_of(
            night,
            self.critic,
            gamma=self.options.gamma,
            gae_lambda=self.options.gae_lambda,
            std=self.objective.std,
            bootstrap=self.options.bootstrap,
        )
        metrics = {"ppo/explained_variance": explained_variance(value, data.target).item()}
        # without a single success the advantages are the critic's errors, and there is nothing to learn from them
        active = self.iteration > self.options.warmup and bool(night.success.any())
        self._set_rate()
        value_losses, policy_losses = [], []
        for _ in range(self.options.epochs):
            order = torch.randperm(len(data.target), generator=self.generator).to(data.target.device)
            # parts of equal size: a small remainder would have a gradient of noise
            for rows in order.chunk(math.ceil(len(order) / self.options.minibatch)):
                batch = data.take(rows)
                value_losses.append(self._value_step(batch))
                if active:
                    policy_losses.append(self._policy_step(batch))
                    active = policy_losses[-1].approx_kl.item() <= self.options.target_kl
        metrics["ppo/value_loss"] = torch.stack(value_losses).mean().item()
        metrics["ppo/policy_steps"] = float(len(policy_losses))
        return metrics | _averages(policy_losses)

    def _set_rate(self) -> None:
        """The policy's learning rate rises over the first iterations after the warm-up."""
        share = min(1.0, max(self.iteration - self.options.warmup, 0) / max(self.options.ramp, 1))
        for group in self.policy_optimiser.param_groups:
            group["lr"] = self.options.lr * share

    def _value_step(self, batch: Decisions) -> Tensor:
        loss = 0.5 * (self.critic(batch.feature, batch.left) - batch.target).square().mean()
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        return loss.detach()

    def _policy_step(self, batch: Decisions) -> PolicyLoss:
        loss = policy_loss(self.policy.tuned, batch, self.objective)
        self.policy_optimiser.zero_grad()
        loss.total.backward()
        self.policy_optimiser.step()
        return loss._replace(total=loss.total.detach())


def _averages(losses: list[PolicyLoss]) -> dict[str, float]:
    """Metrics of an iteration's gradient steps; none if the policy rested."""
    if not losses:
        return {}
    mean = PolicyLoss(*(torch.stack(values).mean(0) for values in zip(*losses, strict=True)))
    steps = len(mean.clip_fraction)
    fractions = {f"ppo/clip_fraction/{steps - 1 - i}": v.item() for i, v in enumerate(mean.clip_fraction)}
    return {
        "ppo/policy_loss": mean.surrogate.item(),
        "ppo/approx_kl": mean.approx_kl.item(),
        "ppo/clip_fraction": mean.clip_fraction.mean().item(),
        **fractions,
    }

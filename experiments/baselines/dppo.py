"""The run's PPO with real episodes in the place of dreams: model-free, as DPPO is (arXiv 2409.00588)."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from agents.imagination import Starts, Success
from agents.policies.base import PolicyHead
from agents.updates.ppo import PPO
from experiments.baselines.base import Baseline, Learned, Record
from experiments.baselines.rollouts import Rollouts
from experiments.stages.bc import load_actor
from experiments.stages.improve import decisions_of
from experiments.stages.task_run import TaskRun
from worldaction.config import UpdateConfig
from worldaction.errors import UserError


class DPPO(Baseline):
    """The run's cloned policy, fine-tuned by the run's PPO on what happens in the simulator.

    Episodes, decisions, learning rates and the penalty on divergence are the run's; its stop rules, which guard against
    the model's errors, are off.
    """

    name = "dppo"
    sees = "latents"
    data = "play"
    acts_in = "simulator"
    stages = ("clone",)

    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        decisions = decisions_of(task_run)
        options = within(task_run.study.update, budget, decisions * task_run.study.policy.chunk)
        cloned = load_actor(task_run, "clone")
        assert isinstance(cloned, PolicyHead)
        rollouts, steps = Rollouts(task_run, options, decisions), 0
        # where an episode begins and whether it succeeds is the simulator's to say
        nowhere, nobody = cast(Starts, None), cast(Success, None)
        ppo = PPO(
            task_run.model,
            cloned,
            nobody,
            nowhere,
            options,
            decisions=decisions,
            threshold=task_run.study.success.threshold,
            seed=task_run.seed,
            producer=rollouts,
        )
        try:
            while not ppo.finished:
                metrics = ppo.iterate()
                steps += int(metrics["ppo/policy_steps"])
                real = {name.replace("imagined/", "real/"): value for name, value in metrics.items()}
                record(ppo.iteration, real | {"real_steps": float(rollouts.steps)})
        finally:
            rollouts.close()
        return Learned(task_run.model, ppo.policy, real_steps=rollouts.steps, gradient_steps=steps)


def within(options: UpdateConfig, budget: int, limit: int) -> UpdateConfig:
    """The run's numbers without stop rules, for as many iterations as surely stay within a number of steps.

    Args:
        options: of the run's update.
        budget: steps.
        limit: steps of an episode at most.

    Raises:
        UserError: they are not enough for one iteration.
    """
    batch = options.dreams * limit
    if budget < batch:
        raise UserError(
            f"--steps {budget} is less than one batch of dppo, {batch} steps; give more, or a run with fewer"
        )
    return replace(options, iterations=budget // batch, max_divergence=1e9, max_imagined=2.0, min_time=0.0)

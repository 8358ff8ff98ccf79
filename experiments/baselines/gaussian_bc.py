"""A Gaussian policy cloned on the run's latents: behaviour cloning without diffusion."""

from __future__ import annotations

from agents.policies.gaussian import GaussianPolicy, clone_gaussian
from experiments.baselines.base import Baseline, Greedy, Learned, Record
from experiments.stages.bc import demonstrations
from experiments.stages.demonstrations import demonstrated
from experiments.stages.task_run import TaskRun
from worldaction.latents import encode


class GaussianBC(Baseline):
    """The run's behaviour cloning with another policy: one normal distribution, tested by its mean."""

    name = "gaussian_bc"
    sees = "latents"
    data = "play"

    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        policy = cloned(task_run, record)
        actor = Greedy(policy.most_likely, chunk=policy.chunk)
        return Learned(task_run.model, actor, gradient_steps=task_run.study.clone.steps)


def cloned(task_run: TaskRun, record: Record) -> GaussianPolicy:
    """A Gaussian policy of the diffusion policy's width, by maximum likelihood on the same latents."""
    options, size = task_run.study.clone, task_run.study.policy
    episodes = encode(
        task_run.model,
        task_run.store.frames,
        demonstrated(task_run),
        resamples=options.resamples,
        seed=task_run.seed,
    )
    features, chunks = demonstrations(task_run.model, task_run.store, episodes, chunk=size.chunk)
    return clone_gaussian(
        features,
        chunks,
        width=size.width,
        binary=task_run.store.meta.layout.binary,
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        weight_decay=options.weight_decay,
        ema=options.ema,
        seed=task_run.seed,
        report=record,
    )

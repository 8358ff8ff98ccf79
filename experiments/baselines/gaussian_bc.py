"""A Gaussian policy cloned on the run's latents: behaviour cloning without diffusion."""

from __future__ import annotations

from agents.gaussian import GaussianPolicy, clone_gaussian
from experiments.baselines.base import Baseline, Greedy, Learned, Record, demonstrated
from experiments.learn import TaskRun, demonstrations
from worldaction.latents import encode


class GaussianBC(Baseline):
    """The run's behaviour cloning with another policy: one normal distribution, tested by its mean."""

    name = "gaussian_bc"
    sees = "latents"
    data = "play"

    def learn(self, here: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        policy = cloned(here, record)
        actor = Greedy(policy.most_likely, chunk=policy.chunk)
        return Learned(here.model, actor, gradient_steps=here.study.clone.steps)


def cloned(here: TaskRun, record: Record) -> GaussianPolicy:
    """A Gaussian policy of the diffusion policy's width, by maximum likelihood on the same latents."""
    options, size = here.study.clone, here.study.policy
    episodes = encode(
        here.model, here.store.frames, demonstrated(here).ranges, resamples=options.resamples, seed=here.seed
    )
    features, chunks = demonstrations(here.model, here.store, episodes, chunk=size.chunk)
    return clone_gaussian(
        features,
        chunks,
        width=size.width,
        binary=here.store.meta.layout.binary,
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        weight_decay=options.weight_decay,
        ema=options.ema,
        seed=here.seed,
        report=record,
    )

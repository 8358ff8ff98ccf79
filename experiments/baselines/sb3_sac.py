"""Soft actor-critic of Stable-Baselines3 in the simulator, on the whole state and the sparse reward."""

from __future__ import annotations

from stable_baselines3 import SAC

from experiments.baselines.base import Baseline, Learned, Record
from experiments.baselines.sb3 import Watch, in_simulator, simulators, state_encoder
from experiments.stages.task_run import TaskRun

BUFFER = 1_000_000
"""Largest number of remembered steps: the library's default."""


class SB3SAC(Baseline):
    """What a user would try first: no images, no demonstrations, default settings (Haarnoja et al. 2018)."""

    name = "sb3_sac"
    sees = "state (privileged)"
    data = "none"
    acts_in = "simulator"

    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        encoder = state_encoder(task_run)
        with simulators(task_run, encoder, 1) as tables:
            sac = SAC("MlpPolicy", tables, buffer_size=min(budget, BUFFER), seed=task_run.seed, device="cpu")
            sac.learn(budget, callback=Watch(record, "real"))
        return in_simulator(task_run, encoder, sac, sac.actor.optimizer, sac.actor.mu)

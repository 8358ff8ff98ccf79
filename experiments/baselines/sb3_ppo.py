"""PPO of Stable-Baselines3 in the simulator, on the whole state and the sparse reward."""

from __future__ import annotations

from stable_baselines3 import PPO

from experiments.baselines.base import Baseline, Learned, Record
from experiments.baselines.sb3 import Watch, in_simulator, minibatch, simulators, state_encoder, whole
from experiments.stages.task_run import TaskRun

BATCH = 2_048
"""Steps between two updates: the library's default, shared by the simulators."""


class SB3PPO(Baseline):
    """No images, no demonstrations, default settings (Schulman et al. 2017)."""

    name = "sb3_ppo"
    sees = "state (privileged)"
    data = "none"
    acts_in = "simulator"

    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        encoder, count = state_encoder(task_run), task_run.study.evaluation.parallel
        each = max(1, min(BATCH, budget) // count)
        steps = whole(budget, each * count, self.name)
        with simulators(task_run, encoder, count) as tables:
            ppo = PPO(
                "MlpPolicy",
                tables,
                n_steps=each,
                batch_size=minibatch(each * count, 64),
                seed=task_run.seed,
                device="cpu",
            )
            ppo.learn(steps, callback=Watch(record, "real"))
        return in_simulator(task_run, encoder, ppo, ppo.policy.optimizer, ppo.policy.action_net)

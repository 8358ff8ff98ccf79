"""PPO of Stable-Baselines3 in the run's dreams, from scratch: what imagination alone gives, without demonstrations."""

from __future__ import annotations

from stable_baselines3 import PPO

from envs.dream.sb3_env import DreamVecEnv
from experiments.baselines.base import Baseline, Learned, Record
from experiments.baselines.sb3 import Watch, greedy, minibatch, updates, whole
from experiments.learn import TaskRun, dream_starts, load_classifier


class SB3PPODream(Baseline):
    """A stock algorithm on the frozen world model, one action a decision."""

    name = "sb3_ppo_dream"
    sees = "latents"
    data = "play"
    acts_in = "dreams"
    stages = ("success",)

    def learn(self, here: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        study = here.study
        dreams = DreamVecEnv(
            here.model,
            load_classifier(here),
            dream_starts(here),
            num_envs=study.ppo.dreams,
            horizon=study.table.max_steps,
            threshold=study.success.threshold,
            seed=here.seed,
        )
        batch = study.ppo.dreams * study.table.max_steps
        # as many dreams a batch as in the run's own PPO; the rest is the library's default
        ppo = PPO(
            "MlpPolicy",
            dreams,
            n_steps=study.table.max_steps,
            batch_size=minibatch(batch, 256),
            seed=here.seed,
            device="cpu",
        )
        ppo.learn(whole(budget, batch, self.name), callback=Watch(record, "imagined"))
        return Learned(
            here.model,
            greedy(ppo, here.store.meta.layout.binary),
            imagined_steps=ppo.num_timesteps,
            gradient_steps=updates(ppo.policy.optimizer, ppo.policy.action_net),
        )

"""PPO of Stable-Baselines3 in the run's dreams, from scratch: what imagination alone gives, without demonstrations."""

from __future__ import annotations

import torch
from stable_baselines3 import PPO

from envs.dream.sb3_env import DreamVecEnv
from experiments.baselines.base import Baseline, Learned, Record
from experiments.baselines.sb3 import Watch, greedy, minibatch, updates, whole
from experiments.stages.improve import dream_starts
from experiments.stages.success import load_classifier
from experiments.stages.task_run import TaskRun
from worldaction.random import Use, branch


class SB3PPODream(Baseline):
    """A stock algorithm on the frozen world model, one action a decision."""

    name = "sb3_ppo_dream"
    sees = "latents"
    data = "play"
    acts_in = "dreams"
    stages = ("success",)

    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        study, (scenes, _) = task_run.study, dream_starts(task_run)
        rows = torch.arange(len(scenes), device=task_run.device)
        dreams = DreamVecEnv(
            task_run.model,
            load_classifier(task_run),
            scenes.draw(rows, seed=branch(task_run.seed, Use.DREAMS), rows=rows),
            num_envs=study.update.dreams,
            horizon=study.dream_steps,
            threshold=study.success.threshold,
            seed=task_run.seed,
        )
        batch = study.update.dreams * study.dream_steps
        # as many dreams a batch as in the run's own PPO; the rest is the library's default
        ppo = PPO(
            "MlpPolicy",
            dreams,
            n_steps=study.dream_steps,
            batch_size=minibatch(batch, 256),
            seed=task_run.seed,
            device="cpu",
        )
        ppo.learn(whole(budget, batch, self.name), callback=Watch(record, "imagined"))
        return Learned(
            task_run.model,
            greedy(ppo, task_run.store.meta.layout.binary),
            imagined_steps=ppo.num_timesteps,
            gradient_steps=updates(ppo.policy.optimizer, ppo.policy.action_net),
        )

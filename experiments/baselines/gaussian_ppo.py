"""PPO in imagination of a Gaussian policy: the run's pipeline without diffusion, by Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from agents.policies.gaussian import LOG_STD_RANGE, GaussianPolicy
from experiments.baselines.base import Baseline, Learned, Record
from experiments.baselines.chunks import ChunkedVecEnv
from experiments.baselines.gaussian_bc import cloned
from experiments.baselines.sb3 import Watch, greedy, minibatch, updates, whole
from experiments.stages.improve import dream_starts
from experiments.stages.success import load_classifier
from experiments.stages.task_run import TaskRun


class GaussianPPO(Baseline):
    """`gaussian_bc`, fine-tuned in dreams on chunks of actions.

    Dreams, decisions, epochs, minibatches, learning rate, discounts and the critic's warm-up are the run's; the clip
    range is the library's default, for a Gaussian's ratio is of a whole chunk and not of one denoising step.
    """

    name = "gaussian_ppo"
    sees = "latents"
    data = "play"
    acts_in = "dreams"
    stages = ("success",)
    settings = {"clip": 0.2, "target_kl": 0.02}  # noqa: RUF012

    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        study, options = task_run.study, task_run.study.update
        start = cloned(task_run, lambda step, figures: None)
        decisions = study.table.max_steps // start.chunk
        dreams = ChunkedVecEnv(
            task_run.model,
            load_classifier(task_run),
            dream_starts(task_run),
            num_envs=options.dreams,
            chunk=start.chunk,
            horizon=study.table.max_steps,
            threshold=study.success.threshold,
            seed=task_run.seed,
        )
        batch = options.dreams * decisions
        ppo = PPO(
            "MlpPolicy",
            dreams,
            learning_rate=options.lr,
            n_steps=decisions,
            batch_size=minibatch(batch, options.minibatch),
            n_epochs=options.epochs,
            gamma=options.gamma,
            gae_lambda=options.gae_lambda,
            clip_range=self.settings["clip"],
            target_kl=self.settings["target_kl"],
            policy_kwargs=architecture(start, options.critic_width),
            seed=task_run.seed,
            device="cpu",
        )
        give(start, ppo.policy)
        callbacks: list[BaseCallback] = [Watch(record, "imagined", scale=start.chunk), Warmup(options.warmup)]
        ppo.learn(whole(budget // start.chunk, batch, self.name), callback=callbacks)
        return Learned(
            task_run.model,
            greedy(ppo, start.binary, chunk=start.chunk),
            imagined_steps=dreams.dreams.steps,
            gradient_steps=study.clone.steps + updates(ppo.policy.optimizer, ppo.policy.action_net),
        )


class Warmup(BaseCallback):
    """The critic learns alone in the first batches: advantages of an untrained one would undo the cloned policy.

    Args:
        batches: how many.
    """

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def _on_rollout_start(self) -> None:
        policy: Any = self.model.policy
        for part in (policy.mlp_extractor.policy_net, policy.action_net):
            part.requires_grad_(self.left <= 0)
        policy.log_std.requires_grad_(self.left <= 0)
        self.left -= 1

    def _on_step(self) -> bool:
        return True


def architecture(policy: GaussianPolicy, critic_width: int) -> dict[str, Any]:
    """What makes Stable-Baselines3 build the same network, beside a critic of its own."""
    return {
        "net_arch": {"pi": [policy.width] * policy.layers, "vf": [critic_width] * 2},
        "activation_fn": policy.activation,
    }


@torch.no_grad()
def give(policy: GaussianPolicy, to: Any) -> None:
    """Copy a Gaussian policy into an `ActorCriticPolicy` of its `architecture`."""
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (policy.trunk, to.mlp_extractor.policy_net),
        (policy.mean, to.action_net),
    ]
    for source, target in pairs:
        target.load_state_dict(source.state_dict())
    to.log_std.copy_(policy.log_std.clamp(*LOG_STD_RANGE))

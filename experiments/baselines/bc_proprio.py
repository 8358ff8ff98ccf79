"""The diffusion policy cloned from proprioception alone: what can be done without seeing."""

from __future__ import annotations

from agents.bc import clone
from agents.observation_encoder import Sight, SightConfig
from experiments.baselines.base import Baseline, Learned, Record, demonstrated_frames
from experiments.stages.task_run import TaskRun
from worldaction.errors import UserError
from worldaction.spec import ROBOT


class BCProprio(Baseline):
    """The run's behaviour cloning, with the robot's own numbers in the place of latents."""

    name = "bc_proprio"
    sees = "proprioception"
    data = "demonstrations"

    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        layout, options, sizes = task_run.store.meta.layout, task_run.study.clone, task_run.study.policy
        if not layout.robot:
            raise UserError(
                f"bc_proprio: frames of {task_run.store.path} have no proprioception; leave it out of --methods"
            )
        demos = demonstrated_frames(task_run)
        robot = task_run.store.frames[ROBOT][demos.frame]
        sight = Sight(SightConfig(layout)).requires_grad_(False)
        sight.standardise({ROBOT: robot})
        policy = clone(
            sight.embed({ROBOT: robot})[None].to(task_run.device),
            demos.chunks.to(task_run.device),
            denoising_steps=sizes.denoising_steps,
            width=sizes.width,
            blocks=sizes.blocks,
            binary=layout.binary,
            steps=options.steps,
            batch=options.batch,
            lr=options.lr,
            weight_decay=options.weight_decay,
            ema=options.ema,
            seed=task_run.seed,
            report=record,
        )
        return Learned(sight, policy, gradient_steps=options.steps)

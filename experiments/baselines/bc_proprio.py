"""The run's policy head cloned from proprioception alone: what can be done without seeing."""

from __future__ import annotations

from agents.bc import clone
from agents.observation_encoder import ObservationConfig, ObservationEncoder
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
        layout, options = task_run.store.meta.layout, task_run.study.clone
        if not layout.robot:
            raise UserError(
                f"bc_proprio: frames of {task_run.store.path} have no proprioception; leave it out of --methods"
            )
        demos = demonstrated_frames(task_run)
        robot = task_run.store.frames[ROBOT][demos.frame]
        encoder = ObservationEncoder(ObservationConfig(layout)).requires_grad_(False)
        encoder.standardise({ROBOT: robot})
        head, head_options = task_run.head
        policy = clone(
            head,
            encoder.embed({ROBOT: robot})[None].to(task_run.device),
            demos.chunks.to(task_run.device),
            options=vars(head_options),
            binary=layout.binary,
            steps=options.steps,
            batch=options.batch,
            lr=options.lr,
            weight_decay=options.weight_decay,
            ema=options.ema,
            seed=task_run.seed,
            report=record,
        )
        return Learned(encoder, policy, gradient_steps=options.steps)

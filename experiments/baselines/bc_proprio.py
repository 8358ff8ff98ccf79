"""The diffusion policy cloned from proprioception alone: what can be done blindly."""

from __future__ import annotations

from agents.clone import clone
from agents.sight import Sight, SightConfig
from experiments.baselines.base import Baseline, Learned, Record, demonstrated
from experiments.learn import TaskRun
from worldaction.errors import UserError
from worldaction.spec import ROBOT


class BCProprio(Baseline):
    """The run's behaviour cloning, with the robot's own numbers in the place of latents."""

    name = "bc_proprio"
    sees = "proprioception"
    data = "demonstrations"

    def learn(self, here: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        layout, options, sizes = here.store.meta.layout, here.study.clone, here.study.policy
        if not layout.robot:
            raise UserError(
                f"bc_proprio: frames of {here.store.path} have no proprioception; leave it out of --methods"
            )
        demos = demonstrated(here)
        robot = here.store.frames[ROBOT][demos.frame]
        sight = Sight(SightConfig(layout)).requires_grad_(False)
        sight.standardise({ROBOT: robot})
        policy = clone(
            sight.embed({ROBOT: robot})[None].to(here.device),
            demos.chunks.to(here.device),
            denoising_steps=sizes.denoising_steps,
            width=sizes.width,
            blocks=sizes.blocks,
            binary=layout.binary,
            steps=options.steps,
            batch=options.batch,
            lr=options.lr,
            weight_decay=options.weight_decay,
            ema=options.ema,
            seed=here.seed,
            report=record,
        )
        return Learned(sight, policy, gradient_steps=options.steps)

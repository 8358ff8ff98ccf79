"""The diffusion policy cloned end to end from images and proprioception: demonstrations alone teach the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.diffusion import DiffusionPolicy
from agents.imitate import imitate
from agents.sight import Sight, SightConfig
from experiments.baselines.base import Baseline, Learned, Record, demonstrated
from experiments.learn import TaskRun
from worldaction.errors import UserError
from worldaction.spec import ROBOT


class Seeing(nn.Module):
    """An encoder and the policy on its features, trained as one."""

    def __init__(self, sight: Sight, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.sight, self.policy = sight, policy

    def loss(self, observation: dict[str, Tensor], chunk: Tensor) -> Tensor:
        """The denoising loss of frames [B, ...] and the chunks [B, K, A] that follow them."""
        k = torch.randint(len(self.policy.schedule), (len(chunk),), device=chunk.device)
        noise = torch.randn(len(chunk), self.policy.chunk_size, device=chunk.device)
        return self.policy.loss(self.sight.embed(observation), chunk, noise, k)


class BCPixels(Baseline):
    """The run's behaviour cloning with an encoder like the world model's, trained by the cloning loss."""

    name = "bc_pixels"
    sees = "pixels"
    data = "demonstrations"

    def learn(self, here: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        options, demos = here.study.clone, demonstrated(here)
        seeing = build(here)
        # small: a task's demonstrations are some thousand frames
        frames = {key: here.store.frames[key][demos.frame].to(here.device) for key in seeing.sight.seen}
        chunks = demos.chunks.to(here.device)
        seeing.sight.standardise({key: frames[key] for key in seeing.sight.config.vectors})

        def loss() -> Tensor:
            rows = torch.randint(len(chunks), (options.batch,), device=chunks.device)
            return seeing.loss({key: value[rows] for key, value in frames.items()}, chunks[rows])

        with torch.random.fork_rng(devices=[here.device] if here.device.type == "cuda" else []):
            torch.manual_seed(here.seed)
            learned = imitate(
                seeing,
                loss,
                steps=options.steps,
                lr=options.lr,
                weight_decay=options.weight_decay,
                ema=options.ema,
                report=record,
            )
        return Learned(learned.sight, learned.policy, gradient_steps=options.steps)


def build(here: TaskRun) -> Seeing:
    """An untrained encoder and policy of the run's sizes."""
    layout, sizes, model = here.store.meta.layout, here.study.policy, here.study.world_model
    if not model.cameras:
        raise UserError("bc_pixels: this run sees no camera; leave it out of --methods")
    config = SightConfig(
        layout,
        cameras=model.cameras,
        vectors=(ROBOT,) if layout.robot else (),
        image_size=here.study.table.image_size,
        depth=model.depth,
        patch=model.patch,
        embed=model.embed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(here.seed)
        sight = Sight(config)
        policy = DiffusionPolicy(
            sight.feature_size,
            layout.action,
            chunk=sizes.chunk,
            denoising_steps=sizes.denoising_steps,
            width=sizes.width,
            blocks=sizes.blocks,
            binary=layout.binary,
        )
    return Seeing(sight, policy).to(here.device)

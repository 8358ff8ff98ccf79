"""The run's policy head cloned end to end from images and proprioception: demonstrations alone teach the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.bc import fit_averaged
from agents.observation_encoder import ObservationConfig, ObservationEncoder
from agents.policies.base import PolicyHead
from experiments.baselines.base import Baseline, Learned, Record, demonstrated_frames
from experiments.stages.task_run import TaskRun
from worldaction.errors import UserError
from worldaction.spec import ROBOT

SHIFT = 1 / 16
"""Largest shift of an image that is learned from, as a share of its side."""


class Seeing(nn.Module):
    """An encoder and the policy on its features, trained as one."""

    def __init__(self, encoder: ObservationEncoder, policy: PolicyHead) -> None:
        super().__init__()
        self.encoder, self.policy = encoder, policy

    def loss(self, observation: dict[str, Tensor], chunk: Tensor) -> Tensor:
        """The cloning loss of frames [B, ...] and the chunks [B, K, A] that follow them."""
        return self.policy.bc_loss(self.encoder.embed(observation), chunk)


class BCPixels(Baseline):
    """The run's behaviour cloning with an encoder like the world model's, trained by the cloning loss.

    Images are shifted at random, without which so few demonstrations are learned by heart.
    """

    name = "bc_pixels"
    sees = "pixels"
    data = "demonstrations"
    settings = {"shift": SHIFT}  # noqa: RUF012

    def learn(self, task_run: TaskRun, *, budget: int, record: Record) -> Learned:
        """See `Baseline.learn`."""
        options, demos = task_run.study.clone, demonstrated_frames(task_run)
        seeing = build(task_run)
        # small: a task's demonstrations are some thousand frames
        frames = {key: task_run.store.frames[key][demos.frame].to(task_run.device) for key in seeing.encoder.seen}
        chunks, most = demos.chunks.to(task_run.device), round(SHIFT * task_run.study.table.image_size)
        seeing.encoder.standardise({key: frames[key] for key in seeing.encoder.config.vectors})

        def loss() -> Tensor:
            rows = torch.randint(len(chunks), (options.batch,), device=chunks.device)
            seen = {key: value[rows] for key, value in frames.items()}
            seen |= {camera: shifted(seen[camera], most) for camera in seeing.encoder.config.cameras}
            return seeing.loss(seen, chunks[rows])

        with torch.random.fork_rng(devices=[task_run.device] if task_run.device.type == "cuda" else []):
            torch.manual_seed(task_run.seed)
            learned = fit_averaged(
                seeing,
                loss,
                steps=options.steps,
                lr=options.lr,
                weight_decay=options.weight_decay,
                ema=options.ema,
                report=record,
            )
        return Learned(learned.encoder, learned.policy, gradient_steps=options.steps)


def build(task_run: TaskRun) -> Seeing:
    """An untrained encoder and policy of the run's sizes."""
    layout, model = task_run.store.meta.layout, task_run.study.world_model
    head, head_options = task_run.head
    if not model.cameras:
        raise UserError("bc_pixels: this run sees no camera; leave it out of --methods")
    config = ObservationConfig(
        layout,
        cameras=model.cameras,
        vectors=(ROBOT,) if layout.robot else (),
        image_size=task_run.study.table.image_size,
        depth=model.depth,
        patch=model.patch,
        embed=model.embed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task_run.seed)
        encoder = ObservationEncoder(config)
        policy = head(
            encoder.feature_size,
            layout.action,
            chunk=task_run.study.policy.chunk,
            binary=layout.binary,
            **vars(head_options),
        )
    return Seeing(encoder, policy).to(task_run.device)


def shifted(images: Tensor, most: int) -> Tensor:
    """Images [B, H, W, 3], each moved by up to so many pixels either way; the border is repeated (arXiv 2004.13649)."""
    by = torch.randint(-most, most + 1, (2, len(images), 1), device=images.device)
    height, width = images.shape[1:3]
    # [B, H] and [B, W], where each pixel comes from
    rows = (torch.arange(height, device=images.device) + by[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + by[1]).clamp(0, width - 1)
    image = torch.arange(len(images), device=images.device)
    return images[image[:, None, None], rows[:, :, None], columns[:, None, :]]
